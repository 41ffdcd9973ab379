"""Recognition of masks that lie among the images, by name and by content. Does not use torch.

A folder as it came often holds images and their masks side by side. Taken for photographs, the masks would be trained
on and tested without a word.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from defectlab.data.image_facts import ImageFacts
from defectlab.data.manifest.folder_names import IMAGE_FOLDERS, MASKS, plain
from defectlab.data.manifest.masks import MASK_SUFFIXES
from defectlab.data.mask_content import value_counts
from defectlab_runtime.image_bands import pixels_of
from defectlab_runtime.image_decoding import open_file, open_image
from defectlab_runtime.image_files import nfc

IMAGE_SUFFIXES = ("_image", "_img", "_rgb", "_orig", "_original", "_photo")  # where a mask has one in its place
MIN_TWO_VALUED = 0.9  # share of pixels at the two commonest values; a mask with soft edges or JPEG noise has it


@dataclass(frozen=True)
class MaskAmongImages:
    """A file among the images of a folder that looks like a mask; `image` is the picture it marks, if one is there."""

    path: Path
    reason: str
    image: Path | None = None


def masks_among(
    root: Path, folder: Path, files: Sequence[Path], facts: Callable[[Path], ImageFacts], suffix: str | None = None
) -> list[MaskAmongImages]:
    """Return the files of an image folder that are another one's mask by their name, or lie in a folder of masks.

    A mask is called as its image with one of `MASK_SUFFIXES` (or with `suffix`) after the stem; or has its image's
    stem, another ending and two values where the image has many; or lies below the root in a folder with the name of a
    folder of masks, and the image beside that folder, in it or in a folder `images`.

    Args:
        root: The dataset's root.
        folder: The image folder.
        files: Its images, at any depth.
        facts: Gives the facts of a file; asked for where stems are equal.
        suffix: What masks have after their image's stem, if this is known.
    """
    above = folder.relative_to(root) if folder.is_relative_to(root) else Path()
    if any(plain(part) in MASKS for part in above.parts):
        return [MaskAmongImages(path, f"in the folder of masks {above.as_posix()}") for path in files]
    names = {path: PurePosixPath(nfc(path.relative_to(folder).as_posix())) for path in files}
    places: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path, name in names.items():
        if not _in_mask_folder(name):
            places[_place(name)].append(path)
    bases = dict(places)
    for (parent, stem), together in places.items():
        for ending in IMAGE_SUFFIXES:
            bases.setdefault((parent, stem.removesuffix(ending)), together)
    suffixes = MASK_SUFFIXES if suffix is None else (suffix,) if suffix else ()
    found = []
    for path, name in names.items():
        if _in_mask_folder(name):
            image = _first(bases, _place(name), suffixes)
            found.append(MaskAmongImages(path, f"in the folder of masks {name.parent.as_posix()}", image))
            continue
        parent, stem = _place(name)
        image = _first_base(bases, parent, stem, suffixes)
        if image is not None:
            found.append(MaskAmongImages(path, f"named as the mask of {image.name}", image))
    taken = {one.path for one in found}
    for together in places.values():
        left = [path for path in together if path not in taken]
        found += _of_one_stem(left, facts) if len(left) > 1 else []
    return found


def two_valued(facts: Mapping[Path, ImageFacts]) -> list[MaskAmongImages]:
    """Return the files with black and one other grey value, unless every file of the dataset has no more than that."""
    if all(fact.grey_values for fact in facts.values() if not fact.problem):
        return []
    reason = "nothing but black and one grey value, while other pictures are photographs"
    return [MaskAmongImages(path, reason) for path, fact in facts.items() if fact.grey_values == 2]


def _of_one_stem(together: Sequence[Path], facts: Callable[[Path], ImageFacts]) -> list[MaskAmongImages]:
    """Return the masks among files of one stem: those of two values, where exactly one file has many."""
    many = [path for path in together if not is_mostly_two_valued(path, facts(path))]
    if len(many) != 1 or facts(many[0]).problem:
        return []
    reason = f"called as {many[0].name}, with two grey values"
    return [MaskAmongImages(path, reason, many[0]) for path in together if path != many[0]]


def is_mostly_two_valued(path: Path, facts: ImageFacts) -> bool:
    """Return whether nearly all pixels of a file have one of two grey values, as in a mask with soft edges or noise."""
    if facts.grey_values:
        return True
    if facts.problem:
        return False
    try:
        with open_file(path) as file, open_image(file) as image:
            if image.mode.startswith(("I", "F")):  # as L, values above 255 would be one
                counts = np.sort(value_counts(pixels_of(image))[1])
            else:
                counts = np.sort(np.array(image.convert("L").histogram()))
    except Exception:  # decoders raise anything; the file is reported where it is read
        return False
    return bool(counts[-2:].sum() >= MIN_TWO_VALUED * counts.sum())


def _in_mask_folder(name: PurePosixPath) -> bool:
    return any(plain(part) in MASKS for part in name.parts[:-1])


def _place(name: PurePosixPath) -> tuple[str, str]:
    """Return the folder, without parts that say "images" or "masks", and the stem."""
    parts = [part for part in name.parts[:-1] if plain(part) not in (*MASKS, *IMAGE_FOLDERS)]
    return "/".join(parts), name.stem


def _first(
    places: Mapping[tuple[str, str], Sequence[Path]], place: tuple[str, str], suffixes: Sequence[str]
) -> Path | None:
    """Return the image of a mask in a folder of masks, which may or may not have a suffix."""
    here = places.get(place)
    return here[0] if here else _first_base(places, *place, suffixes)


def _first_base(
    places: Mapping[tuple[str, str], Sequence[Path]], parent: str, stem: str, suffixes: Sequence[str]
) -> Path | None:
    """Return the image whose stem is `stem` without one of the suffixes, in any case; None if there is none."""
    for suffix in suffixes:
        if stem.casefold().endswith(suffix.casefold()) and len(stem) > len(suffix):
            here = places.get((parent, stem[: -len(suffix)]))
            if here:
                return here[0]
    return None
