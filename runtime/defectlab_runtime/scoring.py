"""`ImageScorer`, what every detector does around its model: reading, batches, decisions, views of the scores."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from defectlab_runtime.decision import decision, round_down
from defectlab_runtime.errors import DataError, InputError, OptionError, unknown_name
from defectlab_runtime.geometry import Size, enlarge_bilinear
from defectlab_runtime.image_sources import OnUnreadable, Pixels, Source, files_of, find_images, path_of, read_images
from defectlab_runtime.normalization import check_view, heat_range, normalize_scores
from defectlab_runtime.prediction import Prediction
from defectlab_runtime.preprocessing import PreprocessingSettings

logger = logging.getLogger("defectlab.runtime")  # one logger, "defectlab", for runtime and toolkit

T = TypeVar("T")  # a prepared image
Maps = NDArray[np.float32]
Levels = tuple[float | None, float | None]  # image and pixel threshold


@dataclass(frozen=True)
class _Item(Generic[T]):
    """An image that is ready for the model, with its path and its own height and width."""

    path: str | None
    size: Size
    pixels: T


class ImageScorer(ABC, Generic[T]):
    """Scores images and decides at thresholds; a subclass prepares an image and runs the model.

    Where the model serves several categories, `categories` holds image and pixel threshold of each by name, and
    `category` the one that all images are of; None: each image's is the folder of that name below `root`, the folder of
    the run's dataset, that it lies in. There are no thresholds for all categories together.
    """

    def __init__(
        self,
        image_threshold: float | None,
        pixel_threshold: float | None,
        batch_size: int = 8,
        categories: Mapping[str, Levels] | None = None,
        root: Path | None = None,
    ) -> None:
        self.image_threshold = image_threshold
        self.pixel_threshold = pixel_threshold
        self.batch_size = batch_size
        self.categories = dict(categories or {})
        self.category: str | None = None
        self.root = root
        self._max_batch: int | None = None  # largest batch size that fits, once memory ran out

    @property
    @abstractmethod
    def preprocessing(self) -> PreprocessingSettings:
        """What happens to an image before the model sees it."""

    @property
    @abstractmethod
    def score_range(self) -> tuple[float, float]:
        """Smallest and largest raw image score of the validation images."""

    @property
    @abstractmethod
    def map_range(self) -> tuple[float, float]:
        """Smallest and largest value of the validation maps: one scale for all heat maps of a run."""

    @property
    @abstractmethod
    def relative_maps(self) -> bool:
        """Whether heat maps range from 0 to twice the pixel threshold."""

    @property
    @abstractmethod
    def has_maps(self) -> bool:
        """Whether the model gives maps."""

    @property
    @abstractmethod
    def model_name(self) -> str:
        """Name of the model for titles of pictures."""

    @property
    @abstractmethod
    def dataset(self) -> str | None:
        """Name of the dataset that the model was trained on, None where it is not known."""

    @abstractmethod
    def prepare(self, image: Pixels) -> T:
        """Bring an image (H, W, 3), uint8 or float32 in [0, 1], to the size that the model takes.

        Raises:
            DataError: The image does not fit the region that the model looks at.
        """

    @abstractmethod
    def score(self, images: Sequence[T]) -> tuple[NDArray[np.float32], Maps | None]:
        """Return raw scores (B,) and maps (B, h, w) on the model's input, None without maps, of prepared images."""

    def find_images(self, source: Any) -> list[Path]:
        """Return the image files of a path, a glob, or a list of these."""
        return find_images(source)

    def to_image(self, anomaly_map: Maps, image_size: Size) -> Maps:
        """Resample a map (h, w) to an image of this (height, width), with NaN where the model saw nothing."""
        return self.preprocessing.frame.to_image(anomaly_map, image_size, resize=enlarge_bilinear)

    def resolve(self, path: str) -> Path:
        """Return the absolute path of an image file."""
        return Path(path).absolute()

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an error of `score` means that fewer images at once may do."""
        words = ("out of memory", "failed to allocate", "bad_alloc", "bad allocation")
        return isinstance(error, MemoryError) or any(part in str(error).lower() for part in words)

    def free_memory(self) -> None:
        """Release what a failed attempt left reserved."""

    def of_category(self, name: str) -> Self:
        """Return this detector for images of one of its categories: it decides at that category's thresholds.

        Raises:
            InputError: The model serves one dataset, or no such category.
        """
        if not self.categories:
            raise InputError(f"This model serves one dataset, not categories: leave category={name!r} out.")
        if name not in self.categories:
            raise InputError(unknown_name("category", name, list(self.categories)))
        one = copy(self)
        one.category = name
        one.image_threshold, one.pixel_threshold = self.categories[name]
        return one

    def of(self, found: Prediction) -> Self:
        """Return this detector with the thresholds that a prediction was decided at."""
        return self if found.category in (None, self.category) else self.of_category(found.category)

    @property
    def each(self) -> list[Self]:
        """The detector for each category that an image can be of; itself where there is one set of thresholds."""
        return [self] if self._is_decided else [self.of_category(name) for name in self.categories]

    @property
    def _is_decided(self) -> bool:
        """Whether one set of thresholds decides all images."""
        return not self.categories or self.category is not None

    def _for(self, path: str | None) -> Self:
        """Return this detector with the thresholds of the category whose folder below `root` an image lies in.

        Raises:
            InputError: It lies in none, or is no file.
        """
        if self._is_decided:
            return self
        parts: tuple[str, ...] = ()
        if path is not None and self.root is not None:
            file = self.resolve(path)
            parts = file.relative_to(self.root).parts if file.is_relative_to(self.root) else ()
        if parts and parts[0] in self.categories:
            return self.of_category(parts[0])
        where = "" if self.root is None else f", and below no category's folder in {self.root}"
        raise InputError(
            f"This model serves {', '.join(self.categories)}, each with thresholds of its own. Say which one: "
            f"category={next(iter(self.categories))!r} (--category); {path or 'an image that is no file'} names "
            f"none{where}."
        )

    def _check_categories(self, source: Source) -> None:
        """Check, before any image is scored, that the category of each is known."""
        if self._is_decided:
            return
        given = [source] if isinstance(source, str | Path) or not isinstance(source, Sequence) else source
        for part in given:
            if not isinstance(part, str | Path):
                self._for(path_of(part))
                continue
            for file in files_of(part, lambda *_: None, self.find_images):  # what is not there is reported when read
                self._for(str(file))

    def decided_at(self, image_threshold: float | None) -> Self:
        """Return this detector with another image threshold, for images of whatever category."""
        other = copy(self)
        other.image_threshold = image_threshold
        other.categories, other.category = {}, None
        return other

    @property
    def bit_depth(self) -> int | None:
        """Bits of the values in 16-bit images that the model was trained with; None is 16."""
        return self.preprocessing.bit_depth

    @property
    def heat_range(self) -> tuple[float, float]:
        """Ends of the colour scale of all heat maps: `map_range`, or relative to the threshold for some models."""
        return heat_range(*self.map_range, self.pixel_threshold, self.relative_maps)

    def check_view(self, view: str) -> None:
        """Check that this run has the thresholds and ranges that a view of the scores needs.

        Raises:
            OptionError: No view is called so.
            InputError: The run has no threshold, or no range of validation scores, to give it by.
        """
        if check_view(view) == "raw":
            return
        if not self._is_decided:
            for one in self.each:
                one.check_view(view)
            return
        if self.image_threshold is None:
            raise InputError(
                f"This run has no image threshold, so there is no view {view!r} of its scores; leave it raw."
            )
        ranges = [self.score_range] + ([] if self.pixel_threshold is None else [self.map_range])
        if view == "min_max" and not all(-np.inf < low < high < np.inf for low, high in ranges):
            raise InputError("This run has no range of validation scores, so no view 'min_max'; ask for 'percent'.")

    def normalize(self, prediction: Prediction, view: str, digits: int | None = None) -> Prediction:
        """Return a raw prediction in a view: `min_max` has the threshold at 0.5, `percent` at 100 (0 .. 1000).

        Scores and maps each by their own threshold; maps of a run without one stay raw. `digits` rounds without ever
        moving anything across the threshold.

        Raises:
            InputError: This run cannot give the view.
        """
        own = self.of(prediction)
        if own is not self:
            return own.normalize(prediction, view, digits)
        self.check_view(view)
        if view == "raw":
            return prediction
        assert self.image_threshold is not None
        score = np.array(prediction.score)
        score = normalize_scores(view, score, self.image_threshold, *self.score_range, digits)
        anomaly_map = prediction.anomaly_map
        if self.pixel_threshold is not None:
            anomaly_map = normalize_scores(view, anomaly_map, self.pixel_threshold, *self.map_range, digits)
        return replace(prediction, score=float(score), anomaly_map=anomaly_map)

    def predict(
        self, source: Source, batch_size: int | None = None, view: str = "raw", category: str | None = None
    ) -> list[Prediction]:
        """Score a file, a folder (with all below it), a glob, an array, an image, or a list of these, in order.

        Arrays: (H, W, 3), (H, W) or (N, H, W, 3), uint8, uint16 or float in [0, 1]. Images: a Pillow image, the bytes
        of an image file, a file open in binary mode. For more images than fit into
        memory with their maps, use `iterate`. Views of the scores: raw, min_max, percent (`normalize`).

        A model that serves several categories decides at the thresholds of `category`; without it, at those of the
        category whose folder in the run's dataset an image lies in.

        Raises:
            DataError: No images, or one that cannot be read.
            InputError: A view that this run cannot give, or an image of unknown category.
        """
        return list(self.iterate(source, batch_size, view, category=category))

    def iterate(
        self,
        source: Source,
        batch_size: int | None = None,
        view: str = "raw",
        on_unreadable: OnUnreadable | None = None,
        category: str | None = None,
    ) -> Iterator[Prediction]:
        """Yield what `predict` returns; one decoded image and one batch of the model's input are in memory at a time.

        With `on_unreadable`, files that cannot be read, or do not fit the model's input region, are left out; it is
        called with the path and the reason of each.
        """
        if category is not None:
            yield from self.of_category(category).iterate(source, batch_size, view, on_unreadable)
            return
        if batch_size is None:
            batch_size = self.batch_size
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise OptionError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")
        self.check_view(view)
        self._check_categories(source)
        items = self._items(source, on_unreadable)
        while batch := list(islice(items, batch_size)):
            for prediction in self._predict_what_fits(batch):
                yield self.normalize(prediction, view)

    def _items(self, source: Source, on_unreadable: OnUnreadable | None) -> Iterator[_Item[T]]:
        for path, image in read_images(source, on_unreadable, self.bit_depth, self.find_images):
            try:
                pixels = self.prepare(image)
            except DataError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(path or "an image", str(error))
            else:
                yield _Item(path, (image.shape[0], image.shape[1]), pixels)

    def _predict_what_fits(self, batch: Sequence[_Item[T]]) -> Iterator[Prediction]:
        """Score a batch; when memory runs out, continue with half the batch size, for later batches too."""
        place = 0
        while place < len(batch):
            part = batch[place : place + (self._max_batch or len(batch))]
            try:
                scores, maps = self.score([item.pixels for item in part])
            except Exception as error:
                if not self.is_out_of_memory(error) or len(part) == 1:
                    raise
                self._max_batch = len(part) // 2
                logger.warning("Out of memory with %d images a batch: going on with %d", len(part), self._max_batch)
            else:
                place += len(part)
                for number, (item, score) in enumerate(zip(part, scores.tolist(), strict=True)):
                    yield self._prediction(item, score, None if maps is None else maps[number])
                continue
            self.free_memory()  # outside `except`, where the error no longer keeps arrays alive

    def _prediction(self, item: _Item[T], score: float, anomaly_map: Maps | None) -> Prediction:
        if anomaly_map is None:
            own_size = np.full(item.size, np.nan, np.float32)
        else:
            own_size = self.to_image(anomaly_map, item.size)
        own = self._for(item.path)
        limit = own.pixel_threshold
        return Prediction(
            image_path=item.path,
            score=score,
            label=decision(score, own.image_threshold),
            anomaly_map=own_size,
            mask=None if limit is None or math.isnan(limit) else own_size > round_down(limit),
            category=own.category,
        )
