"""Exported files where the toolkit takes a run: found from the project root, shown by their model's name."""

from pathlib import Path
from typing import Any, NoReturn

from defectlab.data.image_sources import find_images
from defectlab.utils import paths
from defectlab_runtime import detector
from defectlab_runtime.errors import InputError
from defectlab_runtime.graphs import GRAPHS


def is_exported(path: str | Path) -> bool:
    """Return whether a path is, by its ending, an exported file and no run.

    >>> is_exported("out/model.onnx"), is_exported("results/Padim/coins/r"), is_exported("model.ckpt")
    (True, False, False)
    """
    return Path(path).suffix.lower() in GRAPHS


class ExportedDetector(detector.Detector):
    """The runtime's detector, which finds images as the toolkit does."""

    def find_images(self, source: Any) -> list[Path]:
        """Return the image files of a path, a glob, or a list of these, without masks."""
        return find_images(source)

    def resolve(self, path: str) -> Path:
        """Return the absolute path of an image file; a relative one is taken from the project root."""
        return paths.resolve(path)

    @property
    def model(self) -> NoReturn:
        """Raise an InputError: what needs the model itself needs the run."""
        run = self.description.run
        raise InputError(f"An exported file has scores and maps, not the model: give the run {run.name} ({run.id}).")
