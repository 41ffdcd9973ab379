"""`python -m defectlab_runtime` is `defectlab-predict`."""

import sys

from defectlab_runtime.cli import main

sys.exit(main())
