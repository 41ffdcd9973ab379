"""The class `Detector`, which loads a trained run or checkpoint and scores images."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from defectlab.data.datasets import to_tensor
from defectlab.data.image_sources import find_images
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.inference.exported import ExportedDetector, is_exported
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
from defectlab_runtime.errors import InputError
from defectlab_runtime.image_sources import Pixels
from defectlab_runtime.scoring import ImageScorer, Levels

logger = logging.getLogger(__name__)


class Detector(ImageScorer[torch.Tensor]):
    """A trained model that scores images and decides at the thresholds of its run; see `ImageScorer`."""

    def __init__(
        self,
        model: BaseDetector,
        image_threshold: float | None,
        pixel_threshold: float | None,
        batch_size: int = 8,
        categories: Mapping[str, Levels] | None = None,
        root: Path | None = None,
    ) -> None:
        super().__init__(image_threshold, pixel_threshold, batch_size, categories, root)
        self.model = model.eval()

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
        """Load a run folder, a checkpoint or an exported file. Needs no weights file and no training images.

        The thresholds are those of the run's run.json; a checkpoint without one beside it, or of another epoch than the
        run's, brings its own copy.

        Args:
            path: A run folder, a .ckpt file, or an exported file (.onnx; .xml of an OpenVINO pair), whose detector has
                all but `model` and what needs it.
            backbone: Only for a model trained with a backbone of unknown code: the same module.
            device: "auto" takes the GPU where there is one.
            verify: False does not compare the checkpoint with its digest, which takes about a second a GB.
            category: That of all images, for a model that serves several; see `of_category`.

        Raises:
            InputError: No such run or checkpoint, it is damaged, `backbone` is needed, this machine has no such device,
                or the model does not serve this category.
        """
        show_log()
        if is_exported(path):
            if backbone is not None:
                raise InputError("An exported file has its backbone in it: leave out backbone.")
            file = paths.resolve(path)
            return cast("Detector", ExportedDetector.load(file, device=str(device), category=category))
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

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to an image before the model sees it."""
        return self.model.preprocessing

    @property
    def map_range(self) -> tuple[float, float]:
        """Smallest and largest value of the validation maps: one scale for all heat maps of a run."""
        processor = self.model.post_processor
        if not isinstance(processor, RawPostProcessor):
            raise InputError("This model was trained with post_processor=False: it has no range of validation maps.")
        return float(processor.pixel_min), float(processor.pixel_max)

    @property
    def relative_maps(self) -> bool:
        """Whether heat maps range from 0 to twice the pixel threshold."""
        return model_info(self.model.model_name).relative_maps

    @property
    def model_name(self) -> str:
        """Name of the model for titles of pictures."""
        return self.model.name

    @property
    def dataset(self) -> str | None:
        """Name of the dataset that the model was trained on, None without a run beside the checkpoint."""
        folder = self.model.run_folder
        return None if folder is None else Run.open(folder).dataset

    @property
    def has_maps(self) -> bool:
        """Whether the model gives maps."""
        return model_info(self.model.model_name).maps

    @property
    def score_range(self) -> tuple[float, float]:
        """Smallest and largest raw image score of the validation images."""
        processor = self.model.post_processor
        if not isinstance(processor, RawPostProcessor):
            raise InputError("This model was trained with post_processor=False: it has no range of validation scores.")
        return float(processor.image_min), float(processor.image_max)

    def find_images(self, source: Any) -> list[Path]:
        """Return the image files of a path, a glob, or a list of these, without masks."""
        return find_images(source)

    def prepare(self, image: Pixels) -> torch.Tensor:
        """Bring an image (H, W, 3), uint8 or float32 in [0, 1], to (3, h, w) as for training, before a centre crop.

        Raises:
            DataError: The image does not fit the region that the model looks at.
        """
        return self.preprocessing.resize()(to_tensor(image))

    @torch.inference_mode()
    def score(self, images: Sequence[torch.Tensor]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return raw scores (B,) and maps (B, h, w) on the model's input, None without maps, of prepared images."""
        output = self.model.model(self._batch(images))
        scores = output.pred_score.flatten().cpu().numpy()
        if output.anomaly_map is None:
            return scores, None
        maps = output.anomaly_map.float().cpu().numpy()
        return scores, maps.reshape(len(images), *maps.shape[-2:])  # (B, 1, h, w) -> (B, h, w)

    def model_input(self, images: Sequence[Pixels]) -> torch.Tensor:
        """Preprocess images (H, W, 3) of any sizes into the model's input (B, 3, h, w), on its device."""
        return self._batch([self.prepare(image) for image in images])

    def _batch(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.preprocessing.transform()(torch.stack(list(prepared)).to(self.model.device))

    def to_image(self, anomaly_map: NDArray[np.float32], image_size: tuple[int, int]) -> NDArray[np.float32]:
        """Resample a map (h, w) to an image of this (height, width), with NaN where the model saw nothing."""
        return self.preprocessing.to_image(torch.from_numpy(anomaly_map)[None], image_size)[0].numpy()

    def resolve(self, path: str) -> Path:
        """Return the absolute path of an image file; a relative one is taken from the project root."""
        return paths.resolve(path)

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether an error of `score` means that fewer images at once may do."""
        return is_out_of_memory(error)

    def free_memory(self) -> None:
        """Release what a failed attempt left reserved."""
        free_memory()


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
