"""A picture of images with the outlines of their masks, to see what masks mark before any training. No torch here."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from defectlab.data.manifest.manifest import Entry, Manifest
from defectlab.data.mask_files import read_mask
from defectlab.data.transforms.mask_reduction import reduce_mask
from defectlab.visualization.canvas import new_figure, to_image
from defectlab_runtime import names
from defectlab_runtime.errors import InputError
from defectlab_runtime.images import as_uint8, read_image
from defectlab_runtime.overlays import contour

COLUMNS, MAX_PAIRS = 4, 12
SIDE = 400  # pixels of a picture's longer side
MARGIN = 5  # pixels between a defect and its outline


def write_mask_pairs(manifest: Manifest, file: Path) -> int:
    """Write a picture of the first images with masks, each kind of defect in turn; return their number.

    The outline surrounds what is marked. Titles have the share of the image that is.

    Raises:
        InputError: No image has a mask, or the file's ending is not that of a picture.
        DataError: An image or a mask cannot be read.
    """
    chosen = _in_turn([entry for entry in manifest.entries if entry.mask])[:MAX_PAIRS]
    if not chosen:
        raise InputError(f"{manifest.name} has no masks: there is nothing to draw.")
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = new_figure((3.2 * columns, 3.4 * rows), rows=rows, columns=columns)
    for axis in axes:
        axis.set_axis_off()
    for axis, entry in zip(axes, chosen, strict=False):
        pixels, share = outlined(manifest, entry)
        axis.imshow(pixels)
        axis.set_title(f"{names.figure(entry.path)}\n{share:.2%} marked", fontsize=8)
    figure.suptitle(names.figure(f"{manifest.name}: outlines of what masks mark"))
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        to_image(figure).save(file)
    except ValueError as error:
        raise InputError(f"{file}: a picture ends in .png or .jpg.") from error
    return len(chosen)


def outlined(manifest: Manifest, entry: Entry) -> tuple[np.ndarray, float]:
    """Return an image with the outline of its mask, (h, w, 3) uint8, reduced to `SIDE`, and the share that is marked.

    Raises:
        DataError: The image or the mask cannot be read.
    """
    path = manifest.absolute_mask(entry)
    assert path is not None, "an image with a mask"
    mask = read_mask(path, manifest.mask_reading(entry))
    picture = Image.fromarray(as_uint8(read_image(manifest.absolute(entry), manifest.protocol.bit_depth)))
    picture.thumbnail((SIDE, SIDE))
    small = reduce_mask(mask, (picture.height, picture.width))
    around = ndimage.binary_dilation(small, iterations=MARGIN) if small.any() else small
    return contour(np.asarray(picture), around), float(mask.mean())


def _in_turn(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries in an order that takes one of each kind of defect, then the next of each, and so on."""
    kinds: dict[str, int] = {}
    places = []
    for entry in entries:
        kinds[entry.defect] = kinds.get(entry.defect, 0) + 1
        places.append(kinds[entry.defect])
    order = sorted(range(len(entries)), key=lambda place: places[place])
    return [entries[place] for place in order]
