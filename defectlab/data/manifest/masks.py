"""Pairing of masks with images by name within their folders, and checks of mask sizes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from defectlab.data.image_facts import ImageFacts
from defectlab_runtime.errors import DataError
from defectlab_runtime.image_files import nfc

MASK_SUFFIXES = ("_mask", "-mask", "_gt", "_ground_truth", "_groundtruth", "_label", "_seg")
MIN_MASK_SIDE = 4  # pixels; with the rounding of one pixel, a smaller mask has the aspect of any image


@dataclass
class Pairing:
    """The mask of each image (by position in the given lists), and the images with no mask or an ambiguous one.

    `differing` has the mask of each missing image whose name differs from what is looked for in case only.
    """

    masks: dict[int, int] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    differing: dict[int, int] = field(default_factory=dict)
    ambiguous: list[str] = field(default_factory=list)


def pair_masks(images: Sequence[str], masks: Sequence[str], suffix: str | None = None) -> Pairing:
    """Pair relative posix paths of one image folder with those of its mask folder.

    A mask belongs to the image in the same subfolder whose stem it has, or has with one of `MASK_SUFFIXES` added.
    A mask with the exact stem of an image is never taken as another image's suffixed mask. With `suffix` given, a mask
    is called by the stem and that suffix, nothing else ("" is the bare stem).

    >>> pair_masks(["b.png", "a.jpg"], ["a_mask.png", "b.png"]).masks
    {0: 1, 1: 0}
    """
    by_key: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, mask in enumerate(masks):
        by_key[_key(mask)].append(index)
    image_keys: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        image_keys[_key(image)].append(index)

    folded = {_folded(_key(mask)): index for index, mask in enumerate(masks)}
    pairing = Pairing()
    for (folder, stem), indices in image_keys.items():
        if len(indices) > 1:
            pairing.ambiguous.append("images of one stem: " + ", ".join(images[i] for i in indices))
            continue
        suffixed = [(folder, stem + ending) for ending in MASK_SUFFIXES]
        keys = [(folder, stem), *(key for key in suffixed if key not in image_keys)]
        if suffix is not None:
            keys = [(folder, nfc(stem + suffix))]
        candidates = [mask for key in keys for mask in by_key.get(key, [])]
        if len(candidates) > 1:
            names = ", ".join(masks[mask] for mask in candidates)
            pairing.ambiguous.append(f"{images[indices[0]]} has {len(candidates)} masks: {names}")
        elif candidates:
            pairing.masks[indices[0]] = candidates[0]
        else:
            pairing.missing.append(indices[0])
            like = [folded[_folded(key)] for key in keys if _folded(key) in folded]
            pairing.differing |= dict.fromkeys(indices[:1], like[0]) if like else {}
    return pairing


def mask_folders(abnormal: Sequence[Path], masks: Sequence[Path]) -> tuple[list[Path], str | None]:
    """Return the mask folder of each abnormal folder, and a warning if the given order was changed.

    Equal counts go together one to one; one mask folder serves several abnormal folders, with a subfolder of the
    abnormal folder's name where there is one. The same names in another order are a slip, and names win.

    Raises:
        DataError: The counts fit neither way.
    """
    if len(masks) == 1:
        return [_subfolder(masks[0], folder) for folder in abnormal], None
    if len(masks) != len(abnormal):
        raise DataError(
            f"mask_dir has {len(masks)} folders for {len(abnormal)} abnormal_dir: give one for each, in the same "
            "order, or one for all with a subfolder of each abnormal folder's name."
        )
    mask_names, names = [nfc(m.name) for m in masks], [nfc(a.name) for a in abnormal]
    if mask_names != names and sorted(mask_names) == sorted(names) and len(set(names)) == len(names):
        return [masks[mask_names.index(name)] for name in names], (
            f"mask_dir names the folders of abnormal_dir in another order ({', '.join(mask_names)} for "
            f"{', '.join(names)}): they are paired by name"
        )
    return list(masks), None


def compare_sizes(image: ImageFacts, mask: ImageFacts, orientation: int = 1) -> tuple[str, str]:
    """Compare the size of a mask with its image's, both upright: ("same" | "resize" | "wrong", what to say).

    `orientation` is the EXIF orientation that the mask gets beside its own.

    "resize": the aspect agrees within a pixel of rounding, so that nearest resampling puts the mask in place. Of a mask
    with a side below `MIN_MASK_SIDE` nothing can be told.
    """
    if orientation >= 5:
        mask = replace(mask, width=mask.height, height=mask.width)
    size = f"mask {mask.width} x {mask.height}, image {image.width} x {image.height}"
    if (mask.width, mask.height) == (image.width, image.height):
        return "same", ""
    if min(mask.width, mask.height) < min(MIN_MASK_SIDE, image.width, image.height):
        return "wrong", f"{size}, which is too small to say where a defect is"
    if _same_aspect(mask.width, mask.height, image.width, image.height):
        return "resize", size
    turned = (image.raw_width, image.raw_height) != (image.width, image.height)
    if turned and _same_aspect(mask.width, mask.height, image.raw_width, image.raw_height):
        size += " after its EXIF rotation; the mask fits the unrotated image: say mask_orientation: stored"
    return "wrong", size


def _same_aspect(width: int, height: int, other_width: int, other_height: int) -> bool:
    if width * height > other_width * other_height:
        width, height, other_width, other_height = other_width, other_height, width, height
    # One side of the larger is scaled onto the smaller exactly; the other may be off by the rounding of one pixel.
    by_width = abs(other_height * width / other_width - height) <= 1
    by_height = abs(other_width * height / other_height - width) <= 1
    return by_width or by_height


def _subfolder(mask_dir: Path, abnormal: Path) -> Path:
    if (abnormal / abnormal.name).is_dir():  # the subfolder is kept with each image's relative path instead
        return mask_dir
    if mask_dir.is_dir():
        for entry in mask_dir.iterdir():
            if nfc(entry.name) == nfc(abnormal.name) and entry.is_dir():
                return entry
    return mask_dir


def _folded(key: tuple[str, str]) -> tuple[str, str]:
    return key[0].casefold(), key[1].casefold()


def _key(path: str) -> tuple[str, str]:
    pure = PurePosixPath(nfc(path))
    return pure.parent.as_posix(), pure.stem
