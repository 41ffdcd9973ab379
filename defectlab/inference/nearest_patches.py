"""Explanation of a PatchCore score: the good patches that are nearest to an image's most anomalous patch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from defectlab.data.manifest.manifest import Manifest
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.inference.detector import Detector
from defectlab.kernels.neighbours import nearest_neighbours
from defectlab.kernels.rotation import point_before_rotation
from defectlab.models.patchcore.lightning_model import BankOrigin, Patchcore
from defectlab.utils.validation import check_integer
from defectlab_runtime.errors import InputError
from defectlab_runtime.image_sources import read_images

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class GoodPatch:
    """A patch of a training image: `box` is left, top, right, bottom in that image's own pixels.

    `distance` is that between its features and those of the most anomalous patch, in the unit of the anomaly map.
    `degrees`: the image was rotated by so much, counter-clockwise, before its features were taken (`rotations`); the
    box stands upright where the patch's centre was before.
    """

    image_path: Path
    box: Box
    distance: float
    degrees: float = 0.0


@dataclass(frozen=True)
class NearestGood:
    """An image's most anomalous patch (`box` in the image's own pixels) and the nearest good patches."""

    image_path: str | None
    box: Box
    patches: tuple[GoodPatch, ...]
    bit_depth: int | None = None  # of the values in 16-bit files


@torch.inference_mode()
def nearest_good_patches(detector: Detector, image: str | Path | np.ndarray, count: int = 5) -> NearestGood:
    """Find the memory bank's patches that are closest to an image's most anomalous patch, nearest first.

    A box is a patch's cell of the patch grid. Its features see more than the cell: the backbone looks around it.

    Args:
        detector: Of a PatchCore run, loaded from its run folder or from the checkpoint in it.
        image: One file or array, as for `Detector.predict`.
        count: How many; fewer where the bank is smaller.

    Raises:
        InputError: Another model, no run beside the checkpoint, a checkpoint that does not say where its memory bank
            comes from, or more than one image.
    """
    model, origin, manifest = _bank(detector)
    check_integer("nearest_good_patches", "count", count, low=1)
    images = list(read_images(image, bit_depth=detector.bit_depth, find=detector.find_images))
    if len(images) != 1:
        raise InputError(f"nearest_good_patches explains one image, got {len(images)}.")
    path, pixels = images[0]
    embedding = model.model.embed(model.model.features(detector.model_input([pixels])))
    grid = (embedding.shape[-2], embedding.shape[-1])
    patches = model.model.comparable(model.model.rows(embedding)).float()  # (1, C, h, w) -> (h*w, C)
    foreground = model.model.foreground(embedding)
    bank = model.model.memory_bank.float()
    image_size = (pixels.shape[0], pixels.shape[1])
    boxes = [_box(model.preprocessing, place, grid, image_size) for place in range(len(patches))]
    on_image = torch.tensor([right > left and bottom > top for left, top, right, bottom in boxes])
    if foreground is not None:
        on_image &= foreground[0].cpu()
    distances = nearest_neighbours(patches, bank, 1)[0].flatten().cpu()
    worst = int(distances.masked_fill(~on_image, -1.0).argmax())
    nearest, rows = nearest_neighbours(patches[worst : worst + 1], bank, min(count, len(bank)))
    found = []
    for distance, row in zip(model.model.measured(nearest).flatten().tolist(), rows.flatten().tolist(), strict=True):
        entry = manifest.entries[int(origin.images[row])]
        degrees = 0.0 if origin.degrees is None else float(origin.degrees[row])
        box = _box(model.preprocessing, int(origin.patches[row]), origin.grid, (entry.height, entry.width), degrees)
        found.append(GoodPatch(manifest.absolute(entry), box, distance, degrees))
    return NearestGood(path, boxes[worst], tuple(found), detector.bit_depth)


def _bank(detector: Detector) -> tuple[Patchcore, BankOrigin, Manifest]:
    """Return the PatchCore model, the origin of its memory bank, and the run's manifest, which names the images."""
    model = detector.model
    if not isinstance(model, Patchcore):
        raise InputError(
            f"Nearest good patches are PatchCore's, which keeps patches of good images; this is {model.name}. "
            "Train a Patchcore for them."
        )
    if model.bank_origin is None:
        raise InputError(
            "This checkpoint does not say which images its memory bank comes from: it was trained on augmented images, "
            "whose patches no image shows, or written by an earlier version. Train it again, without augment."
        )
    if model.run_folder is None or not (model.run_folder / "manifest.json").is_file():
        raise InputError(
            "There is no run beside this checkpoint, and only its manifest.json names the training images. Load the "
            "run folder, or the checkpoint where the run wrote it."
        )
    return model, model.bank_origin, Manifest.read(model.run_folder / "manifest.json")


def _box(
    preprocessing: Preprocessing, place: int, grid: tuple[int, int], image_size: tuple[int, int], degrees: float = 0.0
) -> Box:
    """Return the cell of patch `place` (counted row by row) of a (height, width) grid, in an image's own pixels.

    Of an image that was rotated by `degrees` it is the upright cell around the point that was the patch's centre.
    """
    row, column = divmod(place, grid[1])
    size = preprocessing.map_size
    high, wide = size[0] / grid[0], size[1] / grid[1]
    if not degrees:
        cell = (column * wide, row * high, (column + 1) * wide, (row + 1) * high)
    else:
        x, y = point_before_rotation(((column + 0.5) * wide, (row + 0.5) * high), degrees, size)
        cell = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
    return preprocessing.box_to_image(cell, image_size)
