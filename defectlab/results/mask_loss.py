"""What the nearest pixel would lose of a run's test masks on its grid, and the pixel metrics that it would give."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectlab.data.manifest.manifest import Manifest
from defectlab.data.transforms.mask_reduction import kept_regions, mask_on_input, reduce_mask
from defectlab.evaluation.pixel.maps_and_masks import ImageSubset, PixelImages
from defectlab.evaluation.pixel.metrics import pixel_metrics
from defectlab.results.pixel_grid import Mask, masks_on_images, pixel_images, pixel_labels, pixel_size_of
from defectlab.results.run.record import RunRecord
from defectlab.results.run.run import Run
from defectlab.results.run.setup_records import MaskLossRecord
from defectlab_runtime.geometry import Frame, Size, Slices

logger = logging.getLogger(__name__)

NOTABLE = 0.01  # difference of a metric
COMPARED = ("AUROC", "AUPR", "F1Max", "AUPRO")  # metrics that need no threshold, which validation masks decide on


def measure_mask_loss(run: Run, manifest: Manifest) -> MaskLossRecord | None:
    """Count what the nearest pixel loses on the run's grid, log it, and compute the pixel metrics that it gives.

    None without masks or maps, and on the grid "original", where masks are not reduced.
    """
    images, _ = pixel_images(run)
    pixel_size = pixel_size_of(run)
    if images is None or pixel_size == "original":
        return None
    rows = run.scores("test")
    frame = Frame.from_record(run.record.preprocessing.options())
    if isinstance(pixel_size, list):  # a fixed grid shows the whole region
        frame = Frame((pixel_size[0], pixel_size[1]), region=frame.region)
    counts, packed = _compare(_Masks(manifest.hash, tuple(row.image_path for row in rows), frame, manifest))
    method = run.record.evaluation.mask_reduction
    _log(counts, nearest=method == "nearest")
    if method == "nearest" or run.record.categories:  # whose metrics are means over categories, not of all pixels
        return counts
    known = np.flatnonzero(pixel_labels(run, rows) >= 0).tolist()
    metrics = pixel_metrics(ImageSubset(_OtherMasks(images, packed), known))
    return counts.replaced(nearest={f"pixel_{name}": metrics[name].value for name in COMPARED})


def describe_mask_loss(record: RunRecord) -> str:
    """Return sentences for a reader of the pixel metrics: what masks lost or would have lost; empty if nothing notable.

    Metrics by the nearest pixel are named where they differ from the run's own by more than 0.01.
    """
    loss = record.evaluation.mask_loss
    if loss is None:
        return ""
    others = {name: value for name, value in loss.nearest.items() if value is not None}
    own = {name: record.metrics.get(name) for name in others}
    apart = [
        f"{name} {others[name]:.3f} (here {value:.3f})"
        for name, value in own.items()
        if value is not None and abs(value - others[name]) > NOTABLE
    ]
    lost = _lost(loss)
    sentences = []
    if record.evaluation.mask_reduction == "nearest" and loss.lost_regions:
        sentences.append(
            f"Masks came to the grid by the nearest pixel, which lost {lost}: mask_reduction area keeps them."
        )
    if apart:
        dropped = f", which drops {lost}" if loss.lost_regions else ""
        sentences.append(f"On masks reduced as anomalib does (by the nearest pixel{dropped}): {', '.join(apart)}.")
    if loss.unseen_images:
        sentences.append(
            f"The masks of {loss.unseen_images} of {loss.images} images mark only what the model does not see; their "
            "pixels count as good."
        )
    return " ".join(sentences)


def _lost(loss: MaskLossRecord) -> str:
    return f"{loss.lost_regions} of {loss.regions} defects, all of them in {loss.lost_images} of {loss.images} images"


@dataclass(frozen=True)
class _Masks:
    """The masks of test images, and where the grid that they are brought to lies on the images."""

    manifest_hash: str
    image_paths: tuple[str, ...]
    frame: Frame
    manifest: Manifest = field(compare=False)


@lru_cache(maxsize=4)  # the runs of a sweep share images and grid
def _compare(masks: _Masks) -> tuple[MaskLossRecord, list[NDArray[np.uint8]]]:
    """Return the counts, and each mask on the grid by the nearest pixel, packed eight pixels to a byte."""
    kept: list[tuple[Mask, Mask]] = []  # of each image with marked pixels
    packed = []
    for mask, size, marked in masks_on_images(masks.manifest, masks.image_paths, masks.frame.region, "area"):
        packed.append(np.packbits(mask_on_input(mask, size, masks.frame, "nearest")))
        if marked:
            on_size, seen, _ = masks.frame.place(size)
            kept.append((_kept(mask, on_size, seen, "area"), _kept(mask, on_size, seen, "nearest")))
    counts = MaskLossRecord(
        images=len(kept),
        regions=sum(int(area.sum()) for area, _ in kept),
        lost_images=sum(bool(area.any() and not nearest.any()) for area, nearest in kept),
        lost_regions=sum(int((area & ~nearest).sum()) for area, nearest in kept),
        unseen_images=sum(not area.any() for area, _ in kept),
    )
    return counts, packed


def _kept(mask: Mask, size: Size, seen: Slices, method: str) -> Mask:
    """Return for each connected region of a mask whether the part of the grid that is seen keeps any of it."""
    reduced = reduce_mask(mask, size, method)
    visible = np.zeros_like(reduced)
    visible[seen] = reduced[seen]
    return kept_regions(mask, visible)


def _log(counts: MaskLossRecord, *, nearest: bool) -> None:
    if counts.lost_regions:
        logger.log(
            logging.WARNING if nearest else logging.INFO,
            "Masks on the grid of the pixel metrics: the nearest pixel %s %s; %s",
            "loses" if nearest else "would lose", _lost(counts),
            "data.mask_reduction: area keeps them" if nearest else "by area all are kept",
        )  # fmt: skip
    if counts.unseen_images:
        logger.warning(
            "%d of %d masks mark only what the model does not see (center_crop, crop_area or valid_area_mask cuts it "
            "away): all pixels of these images count as good",
            counts.unseen_images, counts.images,
        )  # fmt: skip


class _OtherMasks:
    """The maps of another source with other masks, packed eight pixels to a byte."""

    def __init__(self, images: PixelImages, packed: Sequence[NDArray[np.uint8]]) -> None:
        self._images = images
        self._packed = packed

    @property
    def sizes(self) -> Sequence[Size]:
        """Height and width of each image."""
        return self._images.sizes

    def map(self, index: int) -> NDArray[np.float32]:
        """Raw anomaly map (H, W) of one image."""
        return self._images.map(index)

    def mask(self, index: int) -> Mask:
        """Mask (H, W) of one image."""
        height, width = self.sizes[index]
        return np.unpackbits(self._packed[index], count=height * width).view(np.bool_).reshape(height, width)
