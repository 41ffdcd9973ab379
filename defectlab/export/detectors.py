"""Exported files of every format as detectors of the runtime, the way that they score on the line."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectlab.export.torch_graphs import TorchGraph
from defectlab_runtime.description import Description
from defectlab_runtime.detector import Detector
from defectlab_runtime.graphs import GRAPHS
from defectlab_runtime.images import read_image

Floats = NDArray[np.float32]


def open_detector(path: Path) -> Detector:
    """Open an exported file of any format, on the CPU.

    Raises:
        InputError: The file cannot be opened, or DefectLab did not export it.
    """
    if path.suffix in GRAPHS:
        return Detector.load(path, device="cpu")
    graph = TorchGraph(path)
    return Detector(graph, Description.from_json(graph.text or "", str(path)))


def score_files(detector: Detector, image_paths: Sequence[Path]) -> tuple[Floats, Floats | None]:
    """Return raw scores (B,) and raw maps (B, h, w) on the model's input, None for a model without maps."""
    images = [read_image(path, detector.bit_depth) for path in image_paths]
    return detector.score([detector.prepare(image) for image in images])
