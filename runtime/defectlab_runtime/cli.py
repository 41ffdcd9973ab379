"""The command `defectlab-predict`: scores image files with an exported model."""

import argparse
import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from defectlab_runtime import __version__, names
from defectlab_runtime.errors import InputError
from defectlab_runtime.normalization import VIEW_THRESHOLDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 1 where an image has no score, and 2 for what cannot work."""
    given = _parser().parse_args(arguments)
    _show_log()
    try:
        return _predict(given)
    except (InputError, OSError) as error:
        print(names.terminal(f"defectlab-predict: {error}", lines=True), file=sys.stderr)
        return 2


def _predict(given: argparse.Namespace) -> int:
    from defectlab_runtime.detector import Detector
    from defectlab_runtime.image_sources import find_images
    from defectlab_runtime.prediction_files import predict_to_folder

    files = find_images(given.images)
    output = given.output or Path("predictions", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    loading = {"device": given.device, "threads": given.threads, "batch_size": given.batch_size}
    detector = Detector.load(given.file, **loading, category=given.category)
    drawn = {"heatmaps": given.heatmaps, "masks": given.masks, "view": given.view}
    problems = predict_to_folder(detector, files, output, **drawn, strict=given.strict)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "defectlab-predict", description="Score images with an exported model and write scores.csv.", allow_abbrev=False
    )
    parser.add_argument("file", type=Path, help="model.onnx, or the model.xml of an OpenVINO pair.")
    parser.add_argument("images", nargs="+", help="Image files, folders or globs.")
    parser.add_argument("--output", type=Path, help="Folder to write to; default is predictions/DATE_TIME.")
    drawn = "Write heat maps, all on one scale; in view percent, 50 to 150."
    parser.add_argument("--heatmaps", action="store_true", help=drawn)
    parser.add_argument("--masks", action="store_true", help="Write masks at the images' own size.")
    views = "Of the scores: raw, min_max (0.5 is the threshold) or percent (100 is the threshold)."
    parser.add_argument("--view", choices=list(VIEW_THRESHOLDS), default="raw", help=views)
    parser.add_argument("--category", help="That of all images, for a model that serves several categories.")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="Images that are scored at once.")
    parser.add_argument("--threads", type=int, metavar="N", help="Of the arithmetic; default is one a core.")
    parser.add_argument("--device", default="auto", help="auto (the GPU where ONNX Runtime has one), cpu or cuda.")
    ends = "End at an image that cannot be read; else the others are scored and its reason is in scores.csv."
    parser.add_argument("--strict", action="store_true", help=ends)
    parser.add_argument("--version", action="version", version=f"defectlab-runtime {__version__}")
    return parser


class _Formatter(logging.Formatter):
    """Formatter whose messages cannot command a terminal: file names in them may hold control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return names.terminal(super().format(record), lines=True)


def _show_log() -> None:
    """Print the log to standard error, unless logging is configured already."""
    logger = logging.getLogger("defectlab")
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
