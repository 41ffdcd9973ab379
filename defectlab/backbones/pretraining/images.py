"""What the project's own backbone is trained on: sheets of 256 x 256 pixels with a label for every cell of 64 pixels.

A procedural sheet has one label, or one for every cell where it shows different things in different places. A
photograph is cut into sheets whose cells each have a label. Flat cells (sky, black borders), which look alike
everywhere, have none. No photograph of a built-in sample is used.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

from defectlab.backbones.weights_manifest import file_sha256
from defectlab.data.image_decoding import FORMATS
from defectlab.data.samples.photographs import photograph_file
from defectlab.data.samples.procedural import KINDS, procedural_image
from defectlab.utils.errors import DataError

SHEET = 256
CELL = 64
NO_LABEL = -100  # what torch's cross-entropy leaves out
SCENES = ("leaves", "fractal", "parts")  # kinds whose cells differ
FLAT = 6.0  # grey levels of standard deviation below which a cell shows nothing


@dataclass(frozen=True)
class Source:
    """A photograph inside scikit-image 0.24 to 0.26; origin and licence as its documentation states them."""

    file: str
    origin: str
    licence: str
    sha256: str
    shrink: int = 1  # for photographs whose pixels show little


SOURCES = (
    Source(
        "astronaut.png",
        "NASA Great Images",
        "public domain, no known copyright restrictions",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    Source(
        "camera.png",
        "photograph by Lav Varshney",
        "CC0",
        "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    ),
    Source(
        "hubble_deep_field.jpg",
        "NASA, HubbleSite",
        "public domain",
        "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    ),
    Source(
        "ihc.png",
        "Center for Microscopy And Molecular Imaging (CMMI)",
        "no known copyright restrictions",
        "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
    ),
    Source(
        "retina.jpg",
        "Wikimedia, Mikael Häggström",
        "CC0",
        "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        shrink=2,
    ),
    Source("rocket.jpg", "SpaceX", "public domain", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
    Source(
        "clock_motion.png",
        "photograph by Stefan van der Walt",
        "public domain",
        "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
    ),
)


@dataclass(frozen=True)
class PretrainingImages:
    """Images (N, 3, 256, 256) uint8 and labels (N, 4, 4) int64.

    The first sheets are those of the photographs; `share` (photographs' sheets,) is the chance of each, such that
    every photograph is seen equally often however large it is.
    """

    images: Tensor
    labels: Tensor
    share: Tensor

    @property
    def photographs(self) -> int:
        """The number of sheets cut from photographs."""
        return len(self.share)

    @property
    def classes(self) -> int:
        """The number of different labels."""
        return int(self.labels.max()) + 1


def make_pretraining_images(
    per_kind: int, cell_sheets: int = 0, *, seed: int = 42, progress: Callable[[int, int], None] | None = None
) -> PretrainingImages:
    """Return the photographs' sheets, then `per_kind` sheets of each procedural kind; the same seed, the same pixels.

    Of each kind in `SCENES` the first `cell_sheets` have a label for every cell.

    Raises:
        DataError: A photograph is missing or not the file that the recipe is defined on.

    """
    by_source = [_cut(load_source(source)) for source in SOURCES]
    share = torch.tensor([1 / (len(SOURCES) * len(part)) for part in by_source for _ in part])
    cut = [sheet for part in by_source for sheet in part]
    pictures, labels, next_label = list(cut), [], 0
    for picture in cut:
        label = _cell_labels(picture, next_label)
        next_label = max(next_label, int(label.max()) + 1)
        labels.append(label)
    total = per_kind * len(KINDS)
    for kind in KINDS:
        for index in range(per_kind):
            pictures.append(procedural_image(kind, index, seed=seed, size=SHEET))
            if kind in SCENES and index < cell_sheets:
                labels.append(_cell_labels(pictures[-1], next_label))
            else:
                labels.append(np.full((SHEET // CELL, SHEET // CELL), next_label))
            next_label = max(next_label, int(labels[-1].max()) + 1)
            if progress:
                progress(len(pictures) - len(cut), total)
    # (N, H, W, 3) -> (N, 3, H, W)
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return PretrainingImages(images, torch.from_numpy(np.stack(labels)).long(), share)


def load_source(source: Source) -> np.ndarray:
    """Return a photograph as RGB (H, W, 3) uint8.

    Raises:
        DataError: It is missing, or not the file that the recipe is defined on.

    """
    path = photograph_file("coins").parent / source.file
    if not path.is_file():
        raise DataError(f"scikit-image does not hold {source.file}. Fix: install scikit-image 0.24 to 0.26.")
    found = file_sha256(path)
    if found != source.sha256:
        raise DataError(
            f"{path} is not the photograph that the recipe is defined on (sha256 {found[:12]}, expected "
            f"{source.sha256[:12]}). Fix: install scikit-image 0.24 to 0.26 again."
        )
    with PillowImage.open(path, formats=FORMATS) as image:
        return np.asarray(image.convert("RGB").reduce(source.shrink))


def _cut(photograph: np.ndarray) -> list[np.ndarray]:
    """Return the whole sheets that fit, evenly spread so that nothing is left out and neighbours overlap least."""
    height, width = photograph.shape[:2]
    tops = np.linspace(0, height - SHEET, max(1, height // SHEET)).astype(int)
    lefts = np.linspace(0, width - SHEET, max(1, width // SHEET)).astype(int)
    return [photograph[y : y + SHEET, x : x + SHEET] for y in tops for x in lefts]


def _cell_labels(picture: np.ndarray, first: int) -> np.ndarray:
    """Number the cells of a sheet that show something: (4, 4), `NO_LABEL` elsewhere."""
    side = SHEET // CELL
    # (256, 256, 3) -> (4, 64, 4, 64) grey -> (4, 4)
    spread = picture.mean(-1).reshape(side, CELL, side, CELL).std(axis=(1, 3))
    labels = np.full((side, side), NO_LABEL)
    shown = spread >= FLAT
    labels[shown] = first + np.arange(shown.sum())
    return labels
