"""How many defects a coarse grid would lose, counted before any training. Does not use torch."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from defectlab.data.manifest.findings import Findings
from defectlab.data.mask_content import MaskReading
from defectlab.data.mask_files import read_mask
from defectlab.data.transforms.mask_reduction import kept_regions, reduce_mask

GRID = (256, 256)  # the usual input of a model, which is the default grid of the pixel metrics


def report_grid_loss(masks: Sequence[tuple[Path, MaskReading]], method: str, findings: Findings) -> None:
    """Say how many defects (connected regions) of masks the nearest pixel loses on a grid of 256 x 256.

    It is a note where masks are reduced by area, which loses none, and a warning with `method` "nearest".
    """

    def count(file: tuple[Path, MaskReading]) -> tuple[int, int]:
        """Return the number of regions of a mask and of those that are kept."""
        mask = read_mask(*file)
        kept = kept_regions(mask, reduce_mask(mask, GRID, "nearest"))
        return len(kept), int(kept.sum())

    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        counts = [one for one in pool.map(count, masks) if one[0]]
    if not counts:
        return
    regions, lost = sum(count for count, _ in counts), sum(count - kept for count, kept in counts)
    images = sum(kept == 0 for _, kept in counts)
    share = f"{lost} of {regions} defects, all of them in {images} of {len(counts)} images"
    grid = "the grid is the model's input, for example 256 x 256"
    if method == "nearest" and lost:
        findings.warn(
            f"Defects are lost by mask_reduction nearest ({grid}); area keeps all",
            [f"{share} have no pixel left"],
        )
    else:
        would = f"the nearest pixel would lose {share}" if lost else f"none of {regions} defects is lost"
        findings.choose(f"Masks on the grid of the pixel metrics: {would} ({grid}); by area all are kept.")
