"""Which runs there are, said where one is asked for that is not."""

import difflib
from pathlib import Path

from defectlab import paths


def runs_there_are(wanted: Path) -> str:
    """Say which runs there are in place of one that is not, the closest names first."""
    there = [paths.relative(file.parent) for file in sorted(paths.results_dir().glob("*/*/[!.]*/run.json"))]
    if not there:
        return (
            f"There are no runs under {paths.results_dir()} yet: run the first training cell of "
            "training_code/patchcore.ipynb, or `make demo`."
        )
    close = difflib.get_close_matches(paths.relative(wanted), there, n=3, cutoff=0)
    more = f" and {len(there) - len(close)} more under {paths.results_dir()}" if len(there) > len(close) else ""
    return f"There are {', '.join(close)}{more}; a training cell or `make demo` makes others."
