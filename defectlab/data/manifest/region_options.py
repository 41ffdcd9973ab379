"""The part of every image that is looked at, as a user names it: a picture of what counts, a box. No torch here."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from defectlab.data.images import read_mask
from defectlab.data.manifest.findings import Findings
from defectlab.data.transforms.region import Area, Box
from defectlab.utils import paths
from defectlab.utils.errors import DataError, OptionError

if TYPE_CHECKING:
    from defectlab.data.manifest.scan import Item


def read_area(
    root: Path, valid_area_mask: str | os.PathLike[str] | None, crop_area: Sequence[int] | None
) -> Area | None:
    """Return the area that a mask file (below `root`, else below the project) and a box describe; None without both.

    Raises:
        OptionError: No box of whole pixels.
        DataError: There is no such file, or no pixel of it counts.
    """
    box = check_crop_area(crop_area)
    if valid_area_mask is None:
        return Area.of(box, None)
    places = [Path(root, valid_area_mask), paths.resolve(os.fspath(valid_area_mask))]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise DataError(
            f"valid_area_mask {os.fspath(valid_area_mask)!r}: no such file below {root} or {paths.resolve('.')}. "
            "It is a picture of the images' own size, not zero where pixels count."
        )
    area = Area.of(box, read_mask(file))
    assert area is not None
    assert area.mask is not None
    if box is not None and (why := area.problem(area.mask.shape)):
        raise DataError(f"valid_area_mask {file} and crop_area do not fit each other: {why}.")
    if not area.cut(area.mask).any():
        raise DataError(f"valid_area_mask {file}: no pixel counts{' inside crop_area' if box else ''}.")
    return area


def check_crop_area(value: Sequence[int] | None) -> Box | None:
    """Return a box as left, top, right, bottom.

    Raises:
        OptionError: It is none, or has no pixel.
    """
    if value is None:
        return None
    numbers = [] if isinstance(value, str) else list(value)
    if len(numbers) != 4 or any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in numbers):
        raise OptionError(f"Data: crop_area must be [left, top, right, bottom] in whole pixels, got {value!r}.")
    left, top, right, bottom = numbers
    if left >= right or top >= bottom:
        raise OptionError(f"Data: crop_area {numbers} has no pixel: left < right and top < bottom must hold.")
    return left, top, right, bottom


def check_sizes(area: Area | None, items: "Iterable[Item]", findings: Findings) -> None:
    """Find images that the area does not fit."""
    if area is None:
        return
    sizes = ((item.path, area.problem((item.facts.height, item.facts.width))) for item in items)
    lines = [f"{path}: {why}" for path, why in sizes if why]
    findings.problem("Images that valid_area_mask or crop_area does not fit", lines)
