"""The base class of all models, which adds checked options, local backbones, raw scores and reloadable checkpoints."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from anomalib.models.components import AnomalibModule
from torch import nn

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.loading import load_backbone
from defectlab.backbones.recognition import as_backbone
from defectlab.backbones.token_networks import check_image_size, nearest_size
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.evaluation.threshold import DefaultRule
from defectlab.models.checkpoint import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_KEY,
    building_from,
    read_checkpoint_record,
    skeleton_backbone,
)
from defectlab.models.k_shots import plan_fits
from defectlab.models.processors import RawPostProcessor, RecordedPreProcessor
from defectlab.models.shared_arguments import SharedArguments
from defectlab.models.tiled import set_tiles
from defectlab.results.run.run import Run
from defectlab.utils.version import __version__
from defectlab_runtime.errors import InputError, OptionError
from defectlab_runtime.region import Region
from defectlab_runtime.tiling import Tiling

logger = logging.getLogger(__name__)


class BaseDetector(AnomalibModule):
    """Mixin before anomalib's class of the same name; see `Padim` for how one is made of it.

    `options` are the model's own arguments as plain data: they name the experiment, and rebuild the model from a
    checkpoint. `backbone` is the record of the backbone, not the module.
    """

    model_name: ClassVar[str]
    model: Any  # the torch model with the four parts: features, embed, fit, score
    pre_processor: RecordedPreProcessor
    options: dict[str, Any]
    backbone_record: dict[str, Any]
    run_folder: Path | None = None
    sources: Mapping[str, str] = {}
    notes: Mapping[str, str] = {}  # what a training found and did of its own accord, for the record
    monitor: ClassVar[str | None] = None  # metric that decides the best epoch, unless the engine is given another
    keeps_optimizer: ClassVar[bool] = (
        True  # whether checkpoints hold the optimiser's state, needed to resume a training
    )
    usual_size: ClassVar[tuple[int, int]] = (256, 256)  # height and width of images where none is given
    fits_once: ClassVar[bool] = False  # on embeddings of all images, so that a fit with other images is cheap
    tiled_by: ClassVar[str | None] = "images"  # "features": the tiles' are joined; None: it cannot be tiled

    def resolve_backbone(self, backbone: str | nn.Module, pre_trained: bool, seed: int) -> Backbone:
        """Return the backbone a constructor was given, by name or as a module.

        Raises:
            OptionError: A name with `pre_trained=False`, which in plain anomalib silently means random weights.
        """
        if isinstance(backbone, nn.Module):
            return as_backbone(backbone)
        if not pre_trained:
            raise OptionError(
                f"{type(self).__name__}(backbone={backbone!r}, pre_trained=False) would use untrained weights. Give "
                f"the weights: backbone=load_backbone({backbone!r}, weights='weights/{backbone}.pth'); or ask for "
                f"random ones by name: backbone=load_backbone({backbone!r}, weights='random')."
            )
        return load_backbone(backbone, seed=seed)

    def set_up(
        self,
        initialise: Callable[..., None],
        *,
        options: Mapping[str, Any],
        shared: SharedArguments,
        backbone: Backbone | None = None,
    ) -> None:
        """Initialise the Lightning module by `initialise`, the constructor above anomalib's own of this model.

        Raises:
            OptionError: A size or a pre-processor that cannot work.
        """
        usual = self.usual_preprocessing(backbone)
        if backbone is not None and shared.image_size is None and shared.center_crop is None and usual.crop is None:
            fitting = nearest_size(backbone.network, usual.size)
            if fitting != usual.size and shared.pre_processor is True:
                logger.info(
                    "%s: images of %s, the size nearest to %s that %s takes",
                    self.name,
                    fitting,
                    usual.size,
                    backbone.spec.name,
                )
            usual = replace(usual, size=fitting)
        preprocessing = shared.preprocessing(usual)
        if backbone is not None:
            check_image_size(backbone.network, preprocessing.input_size)
        initialise(
            pre_processor=RecordedPreProcessor(preprocessing),
            post_processor=RawPostProcessor() if shared.post_processor is True else shared.post_processor,
            evaluator=False if shared.evaluator is True else shared.evaluator,
            visualizer=False if shared.visualizer is True else shared.visualizer,
        )
        self.options = {key: _plain(value) for key, value in options.items()} | {"seed": shared.seed}
        self.options |= {"image_size": list(preprocessing.size), "center_crop": _plain(preprocessing.crop)}
        if preprocessing.keep_aspect:
            self.options["keep_aspect"] = True
        if shared.interpolation not in (None, usual.interpolation):
            self.options["interpolation"] = shared.interpolation
        self.backbone_record = backbone_record(backbone)

    def usual_preprocessing(self, backbone: Backbone | None) -> Preprocessing:
        """Return the default preprocessing of images, which arguments can change.

        Without a backbone they stay in [0, 1]; with one they are normalised by its mean and std.
        """
        if backbone is None:
            return Preprocessing(self.usual_size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return Preprocessing(self.usual_size, mean=_triple(backbone.spec.mean), std=_triple(backbone.spec.std))

    def check_training_images(self, count: int) -> None:
        """Check, before any image is read, that the settings can work with `count` training images.

        Raises:
            OptionError: With the setting and what would work.
        """

    def check_training(self, datamodule: Any) -> None:
        """Check, before long work, that a training can work; record files used beside the images in `sources`.

        Raises:
            InputError: With what is missing or wrong and the fix.
        """
        self.check_training_images(datamodule.training_samples)
        plan = plan_fits(self, datamodule)
        for number, reason in plan.left_out.items() if plan else ():
            logger.warning("k_shots: fits with %s training images are left out: %s", number, reason)

    def trains_on_names(self, datamodule: Any) -> bool:
        """Whether training needs no pixels of this datamodule: the model has their features before the first batch."""
        del datamodule
        return False

    def log_losses(self, batch: Any, **losses: torch.Tensor) -> None:
        """Log the losses of one training batch; the record keeps each epoch's mean over images."""
        values = {name: loss.detach() for name, loss in losses.items()}
        self.log_dict(values, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.image))

    def image_losses(self, batch: Any) -> torch.Tensor | None:
        """Return each image's loss (B,) of a validation batch that has been scored, scores and maps still raw.

        The record, the report and loggers get the means of every epoch, as `val_good_loss` and `val_anomalous_loss`.
        None: the model has no such loss.
        """
        del batch
        return None

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Skip what anomalib's constructor would save: live modules, which no checkpoint could reload."""

    def save_options(self) -> None:
        """Save the options as the hyperparameters from which Lightning builds the model again."""
        spec = self.backbone_record["spec"]
        with_backbone = {} if spec is None else {"backbone": spec["architecture"], "pre_trained": False}
        super().save_hyperparameters({**with_backbone, **self.options})

    @property
    def _datamodule(self) -> Any:
        """The trainer's datamodule, which Lightning attaches without declaring it; None if there is none."""
        return getattr(self.trainer, "datamodule", None)

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing that turns images into this model's input."""
        return self.pre_processor.preprocessing

    def set_input_region(
        self, region: Region | None, tiling: Tiling | None = None, bit_depth: int | None = None
    ) -> None:
        """Restrict every image to this region, in tiles if asked: in training, test, prediction and checkpoint alike.

        `bit_depth` is that of values in 16-bit files; None is 16.

        Raises:
            OptionError: This model cannot be tiled, or not so.
        """
        if tiling is not None and self.tiled_by is None:
            raise OptionError(
                f"{self.name} cannot look at images tile by tile: leave tiling out, or take another model."
            )
        self.pre_processor.use(replace(self.preprocessing, region=region, tiling=tiling, bit_depth=bit_depth))
        set_tiles(self.name, self.model, self.preprocessing.grid, by_images=self.tiled_by == "images")

    @property
    def default_rule(self) -> DefaultRule:
        """Rule by which thresholds are chosen on the validation images at the end of training."""
        return DefaultRule()

    @property
    def is_fitted(self) -> bool:
        """Whether the model can score images; an untrained flow can, with useless scores."""
        return bool(getattr(self, "_is_fitted", True))

    @property
    def seed(self) -> int:
        """The seed of every random choice this model makes."""
        return self.options["seed"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to a checkpoint, as plain data, everything that is needed to build this model again."""
        super().on_save_checkpoint(checkpoint)
        thresholds: dict[str, Any] = {"image": None, "pixel": None}
        if isinstance(self.post_processor, RawPostProcessor):
            thresholds["image"], thresholds["pixel"] = self.post_processor.thresholds
            if self.post_processor.category_thresholds:
                thresholds["categories"] = self.post_processor.category_thresholds
        checkpoint[CHECKPOINT_KEY] = {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "model": self.model_name,
            "options": self.options,
            "backbone": self.backbone_record,
            "preprocessing": self.preprocessing.to_dict(),
            "thresholds": thresholds,
            **({"sources": dict(self.sources)} if self.sources else {}),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint has no fractions where the model has integers: torch would round them in silence.

        Raises:
            InputError: Floating-point numbers for integers.
        """
        super().on_load_checkpoint(checkpoint)
        own = self.state_dict()
        for name, tensor in checkpoint["state_dict"].items():
            if name in own and tensor.is_floating_point() and not own[name].is_floating_point():
                raise InputError(f"The checkpoint has {tensor.dtype} in {name}, where the model has {own[name].dtype}: "
                                 "it was changed by other code. Copy it again, or train again.")  # fmt: skip

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool = True,
        *,
        verify: bool = True,
        **kwargs: Any,
    ) -> "BaseDetector":
        """Rebuild a model from its checkpoint alone, on the CPU unless told otherwise.

        `verify=False` does not compare the file with its digest.

        Raises:
            InputError: The file is damaged or no DefectLab checkpoint of this model, or it was trained with a backbone
                of unknown code, which must then be given as `backbone=`.
        """
        record = read_checkpoint_record(checkpoint_path, verify=verify)
        with building_from(checkpoint_path, record):
            if "backbone" not in kwargs:
                skeleton = skeleton_backbone(record)
                kwargs |= {} if skeleton is None else {"backbone": skeleton}
            loaded = super().load_from_checkpoint(
                checkpoint_path, map_location, hparams_file, strict, weights_only, **kwargs
            )
        assert isinstance(loaded, cls)
        its = loaded.preprocessing
        loaded.set_input_region(its.region, its.tiling, its.bit_depth)
        run = Run.of_checkpoint(Path(checkpoint_path))
        loaded.run_folder = run.folder if run and run.checkpoint == Path(checkpoint_path).absolute() else None
        return loaded


def backbone_record(backbone: Backbone | None) -> dict[str, Any]:
    """Return the record of a backbone; for None the record of a model without a backbone."""
    if backbone is None:
        return {"name": "none", "source": "none", "sha256": "", "kind": "none", "spec": None}
    return {
        "name": backbone.spec.name,
        "source": backbone.weights.source,
        "sha256": backbone.weights.sha256,
        "kind": backbone.weights.kind,
        "spec": backbone.spec.to_dict(),
    }


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
