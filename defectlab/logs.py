"""The log where a person sees it, without touching the logging that a program has set up."""

import logging
import warnings

# Other packages' notes to their own developers, raised whenever they are imported.
IMPORT_WARNINGS = (
    "Importing from timm.models.layers is deprecated",
    "The anomalib.models.components.dinov2 package is",
)


def show_log() -> None:
    """Print DefectLab's messages to standard error, unless somebody handles them already."""
    package = logging.getLogger("defectlab")
    if not package.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)
        package.propagate = False


def ignore_import_warnings() -> None:
    """Silence the notes above, by their text."""
    for message in IMPORT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
