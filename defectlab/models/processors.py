"""Pre- and post-processor of models in anomalib's terms: recorded pre-processing, and decisions on raw scores."""

from collections.abc import Mapping
from typing import Any

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.pre_processing.utils.spec import transform_to_spec
from lightning import LightningModule, Trainer

from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.evaluation.metrics import stored_threshold
from defectlab.models.tiled import replace_by_tiles


class RecordedPreProcessor(PreProcessor):
    """anomalib's pre-processor, made from a `Preprocessing` and saved with it.

    `forward`, which exports use, applies the same antialiased transform as training: anomalib's own does not.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__(transform=preprocessing.transform())
        self.preprocessing = preprocessing
        self.export_transform = self.transform

    def use(self, preprocessing: Preprocessing) -> None:
        """Set the preprocessing that is applied to images from now on."""
        self.preprocessing = preprocessing
        self.transform = self.export_transform = preprocessing.transform()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Prepare a training batch; a model that trains on tiles gets these."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        tiling, grid = self.preprocessing.tiling, self.preprocessing.grid
        if tiling is not None and grid is not None and getattr(pl_module, "tiled_by", None) == "images":
            replace_by_tiles(batch, grid, tiling.random_tiles)

    def checkpoint_config(self) -> dict[str, Any]:
        """Return plain data; `transform` is anomalib's own form, where it has one, so that plain anomalib reads it."""
        plain = None if self.preprocessing.keep_aspect else transform_to_spec(self.transform)
        return {"transform": plain, "preprocessing": self.preprocessing.to_dict()}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Take the settings of a checkpoint over; one written by plain anomalib has only its transform."""
        if "preprocessing" not in config:
            super().load_checkpoint_config(config)
            self.preprocessing = Preprocessing.from_transform(self.transform)
        else:
            self.use(Preprocessing.from_dict(config["preprocessing"]))
        self.export_transform = self.transform


class RawPostProcessor(PostProcessor):
    """Leaves scores and maps raw and decides `score > threshold`.

    anomalib's own clamps scores into [0, 1], sorts all pixels of every validation epoch and decides with a threshold
    that its comparison then excludes. The buffers keep anomalib's names, so that a checkpoint loads there too.
    """

    def __init__(self) -> None:
        super().__init__(enable_normalization=True, enable_thresholding=True)
        self.category_thresholds: dict[str, dict[str, float | None]] = {}

    def set_thresholds(
        self,
        image: float | None,
        pixel: float | None,
        categories: Mapping[str, Mapping[str, float | None]] | None = None,
    ) -> None:
        """Set raw thresholds; None is "no threshold": no labels, no masks.

        Those of `categories` (image and pixel by name) are written into checkpoints, and decide in a `Detector`, which
        is told an image's category; a batch here has none.
        """
        self._image_threshold.fill_(stored_threshold(image))
        self._pixel_threshold.fill_(stored_threshold(pixel))
        self.category_thresholds = {name: dict(one) for name, one in (categories or {}).items()}

    def set_ranges(self, image: tuple[float, float], pixel: tuple[float, float]) -> None:
        """Set smallest and largest validation score, for normalised views (and for plain anomalib)."""
        for buffer, value in zip((self.image_min, self.image_max), image, strict=True):
            buffer.fill_(value)
        for buffer, value in zip((self.pixel_min, self.pixel_max), pixel, strict=True):
            buffer.fill_(value)

    @property
    def thresholds(self) -> tuple[float | None, float | None]:
        """Raw image and pixel threshold."""
        image, pixel = float(self._image_threshold), float(self._pixel_threshold)
        return (None if image != image else image), (None if pixel != pixel else pixel)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: thresholds come from the run's raw record."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: thresholds are chosen by the recorder."""

    def post_process_batch(self, batch: Batch) -> None:
        """Add `pred_label` and `pred_mask` at the raw thresholds."""
        image, pixel = self.thresholds
        if image is not None and batch.pred_score is not None:
            batch.pred_label = batch.pred_score > image
        if pixel is not None and batch.anomaly_map is not None:
            batch.pred_mask = batch.anomaly_map > pixel

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Return the raw predictions with labels and masks at the raw thresholds (False where there is none)."""
        scores, maps = predictions.pred_score, predictions.anomaly_map
        never = torch.tensor(float("inf"))
        image = torch.where(self._image_threshold.isnan(), never.to(self._image_threshold), self._image_threshold)
        pixel = torch.where(self._pixel_threshold.isnan(), never.to(self._pixel_threshold), self._pixel_threshold)
        return InferenceBatch(
            pred_score=scores,
            pred_label=None if scores is None else scores > image,
            anomaly_map=maps,
            pred_mask=None if maps is None else maps > pixel,
        )
