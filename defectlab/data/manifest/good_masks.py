"""Masks of good images, which are not used, to see whether they mark something. Does not use torch."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from defectlab.data.manifest.layouts import Layout
from defectlab.data.manifest.masks import pair_masks
from defectlab_runtime.image_files import list_images, nfc


def masks_of_good(
    root: Path, layout: Layout, good: Iterable[tuple[str, Sequence[Path]]], used: Iterable[Path], suffix: str | None
) -> dict[Path, Path]:
    """Return the masks of good images in the folders of masks, by image.

    They lie in a folder of the good folder's name in or beside a folder of masks, or in a folder of masks that is not
    of one kind of defect.

    Args:
        root: The dataset's root.
        layout: Its layout.
        good: Each folder of good images, with its images; where two fit a mask, the first has it.
        used: The masks of anomalous images.
        suffix: What masks have after their image's stem, if this is known.
    """
    given = [Path(root, folder) for folder in layout.all_mask_dirs]
    kinds = {nfc(Path(folder).name) for folder in (*layout.abnormal_dirs, *layout.abnormal_val_dirs)}
    taken = set(used)
    found: dict[Path, Path] = {}
    for name, images in good:
        source, own = Path(root, name), set(images)
        places = [place for folder in given for place in (folder / source.name, folder.parent / source.name)]
        shared = [folder for folder in given if nfc(folder.name) not in kinds]
        for place in dict.fromkeys((*places, *shared)):
            if place == source or not place.is_dir():
                continue
            masks = [path for path in list_images(place) if path not in taken and path not in own]
            relative = [path.relative_to(source).as_posix() for path in images]
            pairs = pair_masks(relative, [path.relative_to(place).as_posix() for path in masks], suffix)
            for image, mask in pairs.masks.items():
                found.setdefault(images[image], masks[mask])
                taken.add(masks[mask])
    return found
