"""The evaluated region of every image from the options `valid_area_mask` and `crop_area`. Does not use torch."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from defectlab.data.image_facts import probe
from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.options import DataOptions
from defectlab.data.mask_files import read_mask
from defectlab.utils import paths
from defectlab_runtime.errors import DataError
from defectlab_runtime.region import Region

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from defectlab.data.manifest.scan import Item


def read_region(root: Path, options: DataOptions) -> Region | None:
    """Return the region given by a mask file (below `root` or the project) and a box; None if neither is given.

    Raises:
        DataError: There is no such file, or no pixel of it counts.
    """
    left, top, right, bottom = options.crop_area or (0, 0, 0, 0)
    box = (left, top, right, bottom) if options.crop_area else None
    if options.valid_area_mask is None:
        return Region.of(box, None)
    places = [Path(root, options.valid_area_mask), paths.resolve(options.valid_area_mask)]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise DataError(
            f"valid_area_mask {options.valid_area_mask!r}: no such file below {root} or {paths.resolve('.')}. "
            "It is a picture of the images' own size, not zero where pixels count."
        )
    mask = read_mask(file)
    content = probe(file, as_mask=True).mask
    if content is not None and content.is_soft:
        logger.warning(
            "valid_area_mask %s has %d grey levels, and every pixel that is not 0 counts, those of soft edges and JPEG "
            "noise too: save it with two values",
            file, content.high.shape[1],
        )  # fmt: skip
    region = Region.of(box, mask)
    assert region is not None, "a mask makes a region"
    if why := region.problem(mask.shape):
        raise DataError(f"valid_area_mask {file} and crop_area do not fit each other: {why}.")
    if not region.cut(mask).any():
        raise DataError(f"valid_area_mask {file}: no pixel counts{' inside crop_area' if box else ''}.")
    return region


def check_sizes(region: Region | None, items: "Iterable[Item]", findings: Findings) -> None:
    """Report every image whose size does not fit the region as a problem."""
    if region is None:
        return
    sizes = ((item.path, region.problem((item.facts.height, item.facts.width))) for item in items)
    lines = [f"{path}: {why}" for path, why in sizes if why]
    findings.problem("Images that valid_area_mask or crop_area does not fit", lines)
