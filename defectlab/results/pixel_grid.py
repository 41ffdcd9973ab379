"""The grid on which a run's pixel metrics are computed, and the masks stored on that grid."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from defectlab.data.manifest.manifest import Manifest
from defectlab.data.mask_files import read_mask
from defectlab.data.transforms.mask_reduction import reduce_mask
from defectlab.evaluation.pixel.maps_and_masks import ArrayImages, ImageSubset, MaskedImages, PixelImages, maps_problem
from defectlab.evaluation.pixel.pixel_size import PixelSize
from defectlab.results.run.arrays import mapped
from defectlab.results.run.category_run import CategoryRun
from defectlab.results.run.record import RunRecord
from defectlab.results.run.run import Run
from defectlab.results.run.setup_records import EvaluationRecord, RegionRecord
from defectlab.utils.files import replacing
from defectlab.utils.paths import relative
from defectlab_runtime.errors import InputError
from defectlab_runtime.geometry import Frame, Size
from defectlab_runtime.region import Region
from defectlab_runtime.scores import ScoreRow

Mask = NDArray[np.bool_]
SPLIT = "test"


def pixel_size_of(run: Run) -> PixelSize:
    """Return the option for the grid of the run's pixel metrics; older records default to the model's input."""
    return run.record.evaluation.pixel_size


def evaluation_record(run: Run) -> EvaluationRecord:
    """Return what run.json holds as `evaluation`; `grid` is null where each image has its own, or without maps."""
    pixel_size = pixel_size_of(run)
    if pixel_size == "input":
        maps = run.maps(SPLIT)
        grid = run.record.evaluation.grid if maps is None else list(maps.shape[1:])
    else:
        grid = pixel_size if isinstance(pixel_size, list) else None
    return run.record.evaluation.replaced(pixel_size=pixel_size, grid=grid)


def describe_grid(record: RunRecord) -> str:
    """Describe the grid of a run's pixel metrics; only runs with equal descriptions can be ranked by these metrics.

    For example `224 x 224, the centre of 256 x 256, masks by area`.
    """
    evaluation, preprocessing = record.evaluation, record.preprocessing
    original = evaluation.pixel_size == "original"
    words = [_sides(evaluation.grid)] if evaluation.grid else ["original"] * original
    if evaluation.pixel_size == "input":
        words += [f"the centre of {_sides(preprocessing.size)}"] if preprocessing.crop else []
        words += ["with what fills the sides"] if preprocessing.keep_aspect else []
    by_area = evaluation.mask_reduction == "area" and not original  # not named in rows from before there was a choice
    words += ["masks by area"] if by_area and record.dataset.has_masks else []
    region = preprocessing.region or RegionRecord()
    words += [f"cut to {', '.join(map(str, region.box))}"] if region.box else []
    words += [f"valid area {region.sha256[:6]}"] if region.sha256 else []
    return ", ".join(words)


def _sides(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"


def masks_on_images(
    manifest: Manifest, image_paths: Iterable[str], region: Region | None, method: str
) -> Iterator[tuple[Mask, Size, bool]]:
    """Yield of test images the mask, height and width of the evaluated region, and whether the file marks anything.

    Images are named as in scores.csv. A mask is as it is on disk, or cut to the region, where there is one; an image
    without a mask has an empty one. `method` is how a mask that is not of its image's size comes to that size before it
    is cut (`reduce_mask`).
    """
    entries = {relative(manifest.absolute(entry)): entry for entry in manifest.split(SPLIT)}
    for image_path in image_paths:
        entry = entries[image_path]
        path = manifest.absolute_mask(entry)
        size = (entry.height, entry.width)
        whole = manifest.is_all_defect(entry)
        mask = np.full(size, whole, dtype=np.bool_) if path is None else read_mask(path, manifest.mask_reading(entry))
        if region is None:
            yield mask, size, bool(mask.any())
        else:  # the cut-out region counts as the image; the rest was never evaluated
            yield region.cut(reduce_mask(mask, size, method)), region.cut_size(size), bool(mask.any())


def write_grid_masks(run: Run, manifest: Manifest) -> None:
    """Write the test masks on the run's grid, packed eight pixels to a byte, if it is not the model's input grid.

    With "original" a mask stays as it is on disk; an image without one has an empty mask of its own size.
    """
    pixel_size = pixel_size_of(run)
    if pixel_size == "input" or not manifest.has_masks or run.maps(SPLIT) is None:
        return
    sizes: list[tuple[int, ...]] = []
    packed_path, sizes_path = run.grid_paths(SPLIT)
    with replacing(packed_path) as partial, partial.open("wb") as file:
        for on_grid, image_size in _masks_on_grid(run, manifest):
            sizes.append((*image_size, *on_grid.shape))
            file.write(np.packbits(on_grid).tobytes())
    with replacing(sizes_path) as partial, partial.open("wb") as file:
        np.save(file, np.array(sizes, dtype=np.int64).reshape(-1, 4))


def _masks_on_grid(run: Run, manifest: Manifest) -> Iterator[tuple[Mask, Size]]:
    """Yield the mask of each test image on a grid other than the model's input, and the evaluated region's size."""
    pixel_size, method = pixel_size_of(run), run.record.evaluation.mask_reduction
    region = Region.from_dict(run.record.preprocessing.options().get("area"))
    for mask, size, _ in masks_on_images(manifest, [row.image_path for row in run.scores(SPLIT)], region, method):
        on_grid = mask if isinstance(pixel_size, str) else reduce_mask(mask, (pixel_size[0], pixel_size[1]), method)
        yield on_grid, size


def images_of_maps(
    run: Run, manifest: Manifest, maps: NDArray[np.float32], input_masks: NDArray[np.uint8]
) -> PixelImages:
    """Return other maps (n, H, W) of the run's test images, with the masks on the run's grid, whether kept or not.

    Rows are those of scores.csv. `input_masks` are packed, on the model's input, and used where that is the grid.
    """
    if pixel_size_of(run) == "input":
        return _counted(run, ArrayImages(maps, input_masks))
    masks = list(_masks_on_grid(run, manifest))
    sizes = np.array([(*size, *mask.shape) for mask, size in masks], dtype=np.int64).reshape(-1, 4)
    bits = np.concatenate([np.packbits(mask) for mask, _ in masks])
    return _counted(run, GridImages(maps, Frame.from_record(run.record.preprocessing.options()), sizes, bits))


def pixel_images(run: Run) -> tuple[PixelImages | None, str | None]:
    """Return the run's test maps and masks on its grid, read lazily from disk, or the reason why there are none.

    Raises:
        InputError: Maps or masks are damaged, or the maps are not those of the rows of scores.csv.
    """
    maps = run.maps(SPLIT)
    if maps is None:
        return None, "there are no anomaly maps"
    check_rows(run, maps, SPLIT)
    problem = maps_problem(maps, pixel_labels(run, run.scores(SPLIT)))
    if problem:
        return None, problem
    masks = run.packed_masks(SPLIT)
    if masks is None:
        classified = run.record.dataset.protocol.task == "classification"
        return None, "the task is classification: no masks are used" if classified else "there are no masks"
    count, height, width = maps.shape
    if masks.shape != (count, height, -(-width // 8)):
        raise InputError(
            f"{run.masks_path(SPLIT)} is damaged: masks {masks.shape}, packed along the width, do not belong to maps "
            f"{maps.shape}. Restore it, or test the run again."
        )
    if pixel_size_of(run) == "input":
        return _counted(run, ArrayImages(maps, masks)), None
    if isinstance(run, CategoryRun):  # one file has the masks of all categories
        images, why = pixel_images(run.whole)
        return (None, why) if images is None else (ImageSubset(images, run.places(SPLIT)), None)
    packed, sizes_path = run.grid_paths(SPLIT)
    sizes = mapped(sizes_path, 2, np.int64)
    if not packed.is_file() or sizes is None:
        return None, f"there are no masks on the grid {pixel_size_of(run)}: {packed.name} is gone from the run's maps"
    if sizes.shape != (count, 4) or (sizes.size and sizes.min() < 1):
        raise InputError(f"{sizes_path} is damaged: sizes {sizes.shape} of {count} images. Test the run again.")
    wanted = _starts([(int(row[2]), int(row[3])) for row in sizes])[-1]
    if not wanted or packed.stat().st_size != wanted:
        raise InputError(
            f"{packed} is damaged: {packed.stat().st_size} bytes, where its masks take {wanted}. Test the run again."
        )
    bits = np.memmap(packed, dtype=np.uint8, mode="r")
    images = GridImages(maps, Frame.from_record(run.record.preprocessing.options()), sizes, bits)
    return _counted(run, images), None


def check_rows(run: Run, maps: NDArray[np.float32], split: str) -> None:
    """Check that there is one map for each row of scores.csv, so that maps and images correspond.

    Raises:
        InputError: With both counts.
    """
    rows = len(run.scores(split))
    if len(maps) != rows:
        raise InputError(
            f"{run.folder}: scores.csv has {rows} {split} images, and there are {len(maps)} maps. One is damaged: "
            "restore it, or test the run again."
        )


def left_out(run: Run, rows: Sequence[ScoreRow]) -> list[int]:
    """Return the positions of rows that pixel metrics exclude: defects without a mask."""
    names = frozenset(run.record.dataset.without_mask)
    return [place for place, row in enumerate(rows) if row.image_path in names] if names else []


def pixel_labels(run: Run, rows: Sequence[ScoreRow]) -> NDArray[np.int64]:
    """Return the labels (n,) of rows for pixel metrics, with -1 (unknown) for rows excluded for lack of a mask."""
    labels = np.array([row.label for row in rows], dtype=np.int64)
    labels[left_out(run, rows)] = -1
    return labels


def _counted(run: Run, images: PixelImages) -> PixelImages:
    places = left_out(run, run.scores(SPLIT))
    return MaskedImages(images, places) if places else images


class GridImages:
    """Maps (n, h, w) on the model's input, each resampled to the grid of its mask on access.

    Args:
        maps: Raw maps, memory-mapped or not.
        frame: Where the input lies on the image.
        sizes: (n, 4): height and width of the image, height and width of the grid.
        bits: All masks one after another, eight pixels to a byte, each from a byte of its own on.
    """

    def __init__(
        self, maps: NDArray[np.float32], frame: Frame, sizes: NDArray[np.int64], bits: NDArray[np.uint8]
    ) -> None:
        self._maps = maps
        self._frame = frame
        self._images: list[Size] = [(int(row[0]), int(row[1])) for row in sizes]
        self.sizes: Sequence[Size] = [(int(row[2]), int(row[3])) for row in sizes]
        self._bits = bits
        self._starts = _starts(self.sizes)

    def map(self, index: int) -> NDArray[np.float32]:
        """Return one image's raw anomaly map (H, W) on its grid, with -inf outside the evaluated region."""
        values = np.asarray(self._maps[index])
        return self._frame.to_region(values, self._images[index], self.sizes[index], unseen=-np.inf)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Return the mask (H, W) of one image."""
        height, width = self.sizes[index]
        bits = self._bits[self._starts[index] : self._starts[index + 1]]
        return np.unpackbits(bits, count=height * width).view(np.bool_).reshape(height, width)


def _starts(sizes: Iterable[Size]) -> list[int]:
    starts = [0]
    for height, width in sizes:
        starts.append(starts[-1] + -(-height * width // 8))
    return starts
