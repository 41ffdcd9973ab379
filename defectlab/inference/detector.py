"""The class `Detector`, which loads a trained run or checkpoint and scores images."""

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from defectlab.data.datasets import load_image, to_tensor
from defectlab.data.image_sources import find_images
from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint import read_checkpoint_record
from defectlab.models.checkpoint_thresholds import is_current, stored_thresholds
from defectlab.models.loading import restore
from defectlab.models.processors import RawPostProcessor
from defectlab.models.registry import model_info
from defectlab.results.run.result_records import Thresholds
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.logs import show_log
from defectlab.utils.memory import free_memory, is_out_of_memory
from defectlab_runtime.decision import decision, round_down
from defectlab_runtime.errors import InputError, unknown_name
from defectlab_runtime.image_limits import max_pixels
from defectlab_runtime.images import decode_image, to_rgb_array
from defectlab_runtime.normalization import check_view, heat_range, normalize_scores

logger = logging.getLogger(__name__)

OnUnreadable = Callable[[str, str], None]
OneSource = str | Path | np.ndarray | bytes | IO[bytes] | Image.Image
Source = OneSource | Sequence[OneSource]
Levels = tuple[float | None, float | None]  # image and pixel threshold


@dataclass(frozen=True)
class Prediction:
    """Result for one image. `score` and `anomaly_map` are raw: higher is more anomalous, in the model's own unit.

    `label`: 1 anomalous, 0 good, -1 where the run has no image threshold or the score is NaN. `anomaly_map` (H, W)
    float32 and `mask` (H, W) bool have the image's own size; a centre crop leaves NaN and False outside, a model
    without maps everywhere. `mask` is None without a map threshold.

    `category` is whose thresholds decided, for a model that serves several categories.

    In another view than raw, `score` and `anomaly_map` lie above the view's own threshold, 0.5 or 100, exactly where
    the raw ones are above the run's; `label` and `mask` are the same in every view.
    """

    image_path: str | None
    score: float
    label: int
    anomaly_map: np.ndarray
    mask: np.ndarray | None
    category: str | None = None


class Detector:
    """A trained model that scores images and decides at the thresholds of its run.

    Where the model serves several categories, `categories` holds image and pixel threshold of each by name, and
    `category` the one that all images are of; None: each image's is the folder of that name below `root`, the folder of
    the run's dataset, that it lies in. There are no thresholds for all categories together.
    """

    def __init__(
        self,
        model: BaseDetector,
        image_threshold: float | None,
        pixel_threshold: float | None,
        batch_size: int = 8,
        categories: Mapping[str, Levels] | None = None,
        root: Path | None = None,
    ) -> None:
        self.model = model.eval()
        self.image_threshold = image_threshold
        self.pixel_threshold = pixel_threshold
        self.batch_size = batch_size
        self.categories = dict(categories or {})
        self.category: str | None = None
        self.root = root
        self._max_batch: int | None = None  # largest batch size that fits, once memory ran out

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        backbone: nn.Module | None = None,
        device: str | torch.device = "auto",
        verify: bool = True,
        category: str | None = None,
    ) -> "Detector":
        """Load a run folder or a checkpoint. Needs no weights file and no training images.

        The thresholds are those of the run's run.json; a checkpoint without one beside it, or of another epoch than the
        run's, brings its own copy.

        Args:
            path: A run folder or a .ckpt file.
            backbone: Only for a model trained with a backbone of unknown code: the same module.
            device: "auto" takes the GPU where there is one.
            verify: False does not compare the checkpoint with its digest, which takes about a second a GB.
            category: That of all images, for a model that serves several; see `of_category`.

        Raises:
            InputError: No such run or checkpoint, it is damaged, `backbone` is needed, this machine has no such device,
                or the model does not serve this category.
        """
        show_log()
        target = _device(device)
        path = paths.resolve(path)
        # a missing path is treated as a checkpoint if its name ends in .ckpt, else as a run folder
        a_folder = path.is_dir() or (not path.is_file() and path.suffix != ".ckpt")
        run = Run.open(path) if a_folder else Run.of_checkpoint(path)
        checkpoint = run.checkpoint_file() if run and path.is_dir() else path
        model = restore(checkpoint, backbone, verify=verify)
        its_own = run is not None and (a_folder or run.holds(checkpoint))
        thresholds = run.record.thresholds if run and its_own else None
        if thresholds and thresholds.recorded:
            image, pixel = _levels(thresholds)
            categories = {name: _levels(one) for name, one in thresholds.categories.items()}
            if run is not None and run.holds(checkpoint) and isinstance(model.post_processor, RawPostProcessor):
                _warn_of_old_copy(run, checkpoint, thresholds)
        else:
            stored = read_checkpoint_record(checkpoint, verify=False)["thresholds"]
            image, pixel = stored["image"], stored["pixel"]
            categories = {name: (one["image"], one["pixel"]) for name, one in stored.get("categories", {}).items()}
            logger.info("No run.json with thresholds of %s: using the checkpoint's copy", checkpoint.name)
        batch_size = run.record.experiment.data["eval_batch_size"] if run else 8
        root = paths.resolve(run.record.dataset.root) if run and run.record.categories else None
        detector = cls(model.to(target), image, pixel, batch_size, categories, root)
        return detector if category is None else detector.of_category(category)

    def of_category(self, name: str) -> "Detector":
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

    def of(self, found: Prediction) -> "Detector":
        """Return this detector with the thresholds that a prediction was decided at."""
        return self if found.category in (None, self.category) else self.of_category(found.category)

    @property
    def each(self) -> "list[Detector]":
        """The detector for each category that an image can be of; itself where there is one set of thresholds."""
        return [self] if self._is_decided else [self.of_category(name) for name in self.categories]

    @property
    def _is_decided(self) -> bool:
        """Whether one set of thresholds decides all images."""
        return not self.categories or self.category is not None

    def _for(self, path: str | None) -> "Detector":
        """Return this detector with the thresholds of the category whose folder below `root` an image lies in.

        Raises:
            InputError: It lies in none, or is no file.
        """
        if self._is_decided:
            return self
        parts: tuple[str, ...] = ()
        if path is not None and self.root is not None:
            file = paths.resolve(path)
            parts = file.relative_to(self.root).parts if file.is_relative_to(self.root) else ()
        if parts and parts[0] in self.categories:
            return self.of_category(parts[0])
        where = "" if self.root is None else f", and below no category's folder in {paths.relative(self.root)}"
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
                self._for(_path_of(part))
                continue
            for file in _files(part, lambda *_: None):  # what is not there is reported when it is read
                self._for(str(file))

    @property
    def bit_depth(self) -> int | None:
        """Bits of the values in 16-bit images that the model was trained with; None is 16."""
        return self.model.preprocessing.bit_depth

    @property
    def map_range(self) -> tuple[float, float]:
        """Smallest and largest value of the validation maps: one scale for all heat maps of a run."""
        processor = self.model.post_processor
        if not isinstance(processor, RawPostProcessor):
            raise InputError("This model was trained with post_processor=False: it has no range of validation maps.")
        return float(processor.pixel_min), float(processor.pixel_max)

    @property
    def heat_range(self) -> tuple[float, float]:
        """Ends of the colour scale of all heat maps: `map_range`, or relative to the threshold for some models."""
        return heat_range(*self.map_range, self.pixel_threshold, model_info(self.model.model_name).relative_maps)

    @property
    def score_range(self) -> tuple[float, float]:
        """Smallest and largest raw image score of the validation images."""
        processor = self.model.post_processor
        if not isinstance(processor, RawPostProcessor):
            raise InputError("This model was trained with post_processor=False: it has no range of validation scores.")
        return float(processor.image_min), float(processor.image_max)

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
        """Yield what `predict` returns, one batch at a time.

        With `on_unreadable`, files that cannot be read are left out; it is called with the path and the reason of each.
        """
        if category is not None:
            yield from self.of_category(category).iterate(source, batch_size, view, on_unreadable)
            return
        self.check_view(view)
        self._check_categories(source)
        for batch in _batches(read_images(source, on_unreadable, self.bit_depth), batch_size or self.batch_size):
            yield from (self.normalize(prediction, view) for prediction in self._predict_what_fits(batch))

    def _predict_what_fits(self, batch: "list[tuple[str | None, torch.Tensor]]") -> Iterator[Prediction]:
        """Score a batch; when memory runs out, continue with half the batch size, for later batches too."""
        place = 0
        while place < len(batch):
            part = batch[place : place + (self._max_batch or len(batch))]
            try:
                found = list(self._predict_batch(part))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
                self._max_batch = len(part) // 2
                logger.warning("Out of memory with %d images a batch: going on with %d", len(part), self._max_batch)
            else:
                place += len(part)
                yield from found
                continue
            free_memory()  # outside `except`, where the error no longer keeps tensors alive

    def model_input(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Preprocess (3, H, W) images in [0, 1] of any sizes into the model's input (B, 3, h, w), on its device."""
        resize, transform = self.model.preprocessing.resize(), self.model.preprocessing.transform()
        return transform(torch.stack([resize(image) for image in images]).to(self.model.device))

    @torch.inference_mode()
    def _predict_batch(self, batch: Sequence[tuple[str | None, torch.Tensor]]) -> Iterator[Prediction]:
        preprocessing = self.model.preprocessing
        output = self.model.model(self.model_input([image for _, image in batch]))
        scores = output.pred_score.flatten().cpu()
        if output.anomaly_map is None:
            maps = torch.full((len(batch), *preprocessing.input_size), torch.nan)
        else:
            maps = output.anomaly_map.float().cpu()
        maps = maps.reshape(len(batch), *maps.shape[-2:])  # (B, 1, h, w) -> (B, h, w)
        for (path, image), score, anomaly_map in zip(batch, scores.tolist(), maps, strict=True):
            own = self._for(path)
            own_size = preprocessing.to_image(anomaly_map[None], (image.shape[-2], image.shape[-1]))[0].numpy()
            yield Prediction(
                image_path=path,
                score=score,
                label=decision(score, own.image_threshold),
                anomaly_map=own_size,
                mask=None if own.pixel_threshold is None else own_size > round_down(own.pixel_threshold),
                category=own.category,
            )


def _levels(thresholds: Thresholds) -> Levels:
    return thresholds.image.value, thresholds.pixel.value


def _warn_of_old_copy(run: Run, checkpoint: Path, thresholds: Thresholds) -> None:
    record = read_checkpoint_record(checkpoint, verify=False)  # done, if asked for
    if not is_current(record, thresholds):
        logger.warning(
            "A copy of %s alone would decide by %s, this run by %s: `defectlab threshold --run %s --renew` writes the "
            "run's thresholds into the file.",
            checkpoint.name, record["thresholds"], stored_thresholds(thresholds), paths.relative(run.folder),
        )  # fmt: skip


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        logger.info("Detector runs on %s", device)
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"There is no device {device!r}: give auto, cpu, cuda or cuda:0.") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"This machine has {torch.cuda.device_count()} GPUs, and none is {device}: give auto or cpu.")
    return found


def read_images(
    source: Any, on_unreadable: OnUnreadable | None = None, bit_depth: int | None = None
) -> Iterator[tuple[str | None, torch.Tensor]]:
    """Read files, arrays and images as in `Detector.predict`; yield (path or None, (3, H, W) image in [0, 1]).

    `on_unreadable` is called with the path and the reason of each file that cannot be read, instead of an error.
    `bit_depth` is that of values in arrays and files of 16 bits.

    Raises:
        InputError: An unusable source, or limit of pixels in the environment; nothing is read then.
    """
    max_pixels()
    given = [source] if isinstance(source, str | Path) or _is_image(source) else source
    if isinstance(source, np.ndarray) and source.ndim == 4:
        given = list(source)
    if not isinstance(given, Sequence) or not all(isinstance(part, str | Path) or _is_image(part) for part in given):
        wrong = source if not isinstance(given, Sequence) else next(
            part for part in given if not isinstance(part, str | Path) and not _is_image(part)
        )  # fmt: skip
        raise InputError(
            "predict takes a file, a folder, a glob, an array, a Pillow image, the bytes of an image file, a file open "
            f"in binary mode, or a list of these, got {type(wrong).__name__}."
        )
    # several paths at once: one given twice is scored once, and a missing one ends the work before any is scored
    at_once = on_unreadable is None and all(isinstance(part, str | Path) for part in given)
    for part in [given] if at_once else given:
        readable = [part] if _is_image(part) else _files(part, on_unreadable)
        for one in readable:
            path = _path_of(one)
            try:
                image = _image_tensor(one, bit_depth)
            except InputError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(path or f"an image given as {type(one).__name__}", str(error))
            else:
                yield path, image


def _is_image(source: Any) -> bool:
    """Whether it is one image, or several in one array, rather than where images lie."""
    in_memory = isinstance(source, np.ndarray | bytes | bytearray | Image.Image)
    return in_memory or (hasattr(source, "read") and not isinstance(source, io.TextIOBase))


def _path_of(source: Any) -> str | None:
    """Return the path of a file, or of an open file that has one."""
    name = source if isinstance(source, Path) else getattr(source, "name", None)
    return str(name) if isinstance(name, str | Path) else None


def _image_tensor(source: Any, bit_depth: int | None) -> torch.Tensor:
    if isinstance(source, Path):
        return load_image(source, bit_depth)
    return to_tensor(
        to_rgb_array(source, bit_depth) if isinstance(source, np.ndarray) else decode_image(source, bit_depth)
    )


def _files(source: Any, on_unreadable: OnUnreadable | None) -> list[Path]:
    """Return the image files of a source; none, and `on_unreadable` is called, where a single path is gone."""
    try:
        return find_images(source)
    except InputError as error:
        if on_unreadable is None:
            raise
        on_unreadable(str(source), str(error))
        return []


def _batches(
    items: Iterator[tuple[str | None, torch.Tensor]], size: int
) -> Iterator[list[tuple[str | None, torch.Tensor]]]:
    while batch := list(islice(items, size)):
        yield batch
