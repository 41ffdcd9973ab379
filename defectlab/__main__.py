"""`python -m defectlab` is `defectlab`."""

import sys

from defectlab.cli import main

sys.exit(main())
