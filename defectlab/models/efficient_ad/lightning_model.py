"""EfficientAD: student, teacher and autoencoder on patches (Batzner et al., 2024, arXiv:2303.14535)."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from anomalib.models.image.efficient_ad.lightning_model import EfficientAd as AnomalibEfficientAd
from anomalib.models.image.efficient_ad.torch_model import reduce_tensor_elems
from torchvision.transforms.v2 import functional as tvf

from defectlab.data.auxiliary_images import AuxiliaryImages, find_auxiliary_images
from defectlab.data.datasets import ManifestDataset, load_image
from defectlab.models.base import BaseDetector
from defectlab.models.checks import check_unnormalised
from defectlab.models.efficient_ad.teacher import (
    MIN_DEVIATION,
    channel_statistics,
    check_size,
    fill_teacher,
    floored_deviations,
    teacher_record,
)
from defectlab.models.efficient_ad.torch_model import MAP_NAMES, MIN_RANGE, NO_PADDING, EfficientAdModel
from defectlab.models.model_parts import evaluating
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.seeds import generator
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import OptionError

logger = logging.getLogger(__name__)

MIN_SIZE = 256  # of the autoencoder: five halvings, then a kernel of 8
GREY_SHARE = 0.3  # of the general images, as in the paper
FLOOR_IMAGES = 16  # general images on which the floor of the teacher's deviations is measured


class EfficientAd(BaseDetector, AnomalibEfficientAd):
    """anomalib's EfficientAD with teacher and general images from local files, seeded, reloadable.

    Images stay in [0, 1], of at least 256 pixels; the datamodule's `train_batch_size` must be 1. Tiled, each tile is an
    image to it, in training, in the measuring of maps and in scores.

    Args:
        imagenet_dir: Folder of images of anything else, at any depth: the student must not follow the teacher there.
            None: a set of generated surfaces, made once under data/generated. Used in training only.
        teacher_out_channels: Channels of the teacher.
        model_size: small, medium, or tiny (for trials on a CPU).
        lr: Adam's learning rate; a tenth in the last 5 % of the steps.
        weight_decay: Adam's weight decay.
        padding: Pad in the convolutions.
        pad_maps: Without padding: pad the maps instead.
        pre_padding: Black pixels (left, right, top, bottom) put around each image before the networks; maps are cut
            back to the image. Without padding in the convolutions the outermost pixels are judged by less otherwise.
        teacher: Weights file of the teacher; None looks for pretrained_teacher_SIZE in the weights folders; "random"
            asks for random weights. `distil_teacher` makes one from any backbone. Used in training only.
        seed: Initialises student and autoencoder, orders the general images.

    Raises:
        OptionError: An option that cannot work.
    """

    model_name: ClassVar[str] = "efficient_ad"

    @takes_shared_arguments
    def __init__(
        self,
        imagenet_dir: str | Path | None = None,
        teacher_out_channels: int = 384,
        model_size: str = "small",
        lr: float = 1e-4,
        weight_decay: float = 1e-5,
        padding: bool = False,
        pad_maps: bool = True,
        shared: SharedArguments = DEFAULTS,
        teacher: str | Path | None = None,
        pre_padding: Sequence[int] = NO_PADDING,
    ) -> None:
        model_size = check_size(model_size)
        around = _checked_padding(pre_padding)
        check_integer("EfficientAd", "teacher_out_channels", teacher_out_channels, low=1)
        check_range("EfficientAd", "lr", lr, low=0, open_low=True)
        check_range("EfficientAd", "weight_decay", weight_decay, low=0)
        shape: dict[str, Any] = {
            "teacher_out_channels": teacher_out_channels,
            "model_size": model_size,
            "padding": padding,
            "pad_maps": pad_maps and not padding,
            # left out where there is none: runs from before there was a choice stay the same experiment
            **({"pre_padding": around} if any(around) else {}),
        }
        self.set_up(
            super(AnomalibEfficientAd, self).__init__,
            options={
                "imagenet_dir": None if imagenet_dir is None else str(imagenet_dir),
                "teacher": None if teacher is None else str(teacher),
                **shape,
                "lr": lr,
                "weight_decay": weight_decay,
            },
            shared=shared,
        )
        check_unnormalised("EfficientAd", self.preprocessing)
        height, width = self.preprocessing.input_size
        padded = (height + around[2] + around[3], width + around[0] + around[1])
        if min(padded) < MIN_SIZE:
            raise OptionError(
                f"EfficientAd: the model's input of {padded} is too small for its autoencoder: "
                f"at least {MIN_SIZE} pixels."
            )
        self.model = EfficientAdModel(**shape, seed=shared.seed)
        self.lr, self.weight_decay = lr, weight_decay
        self.backbone_record = teacher_record(model_size, None)
        self._has_teacher = False
        self._measured_epoch = -1

    def check_training(self, datamodule: Any) -> None:
        """Find teacher and general images and add them to the `sources` of the record.

        Raises:
            OptionError: A batch size other than 1.
            WeightsError: There is no teacher.
            DataError: There are no images at `imagenet_dir`.
        """
        super().check_training(datamodule)
        if datamodule.train_batch_size != 1:
            raise OptionError(
                "EfficientAd trains on one image at a time, as in the paper: give train_batch_size=1, "
                f"not {datamodule.train_batch_size}."
            )
        self._general: AuxiliaryImages = find_auxiliary_images(
            self.options["imagenet_dir"],
            option="EfficientAd: imagenet_dir",
            fetch="Fetch some photographs of anything; anomalib's are Imagenette "
            "(https://s3.amazonaws.com/fast-ai-imageclas/imagenette2.tgz), unpacked there.",
            loses="the student is held back on formulas then, not on photographs of things",
        )
        self.sources = {"general_images": self._general.summary}
        if not self._has_teacher:
            size, given = self.options["model_size"], self.options["teacher"]
            self.backbone_record = fill_teacher(self.model.teacher, size, given, self.seed)
            self._has_teacher = True

    def on_train_start(self) -> None:
        """Measure the teacher on the training images."""
        with evaluating(self.model):
            inputs = map(self.model.padded, self._inputs(self._datamodule.train_data))
            mean, std = channel_statistics(self.model.teacher, inputs)
            general = (self._middle(path)[None].to(self.device) for path in self._general.files()[:FLOOR_IMAGES])
            std, raised = floored_deviations(std, channel_statistics(self.model.teacher, general)[1])
        self._note_floor(
            "deviations",
            raised
            and f"{raised} of {std.numel()} channels of the teacher hardly vary on the training images: "
            f"{MIN_DEVIATION:g} of their deviation on the general images is taken",
        )
        self.model.mean_std["mean"].copy_(mean)
        self.model.mean_std["std"].copy_(std)
        self._measured_epoch = -1

    def on_train_epoch_start(self) -> None:
        """Order the general images of each epoch by a stream of its own."""
        self._draws = generator(self.seed, f"efficient_ad general images of epoch {self.current_epoch}")
        files = self._general.files()
        self._files = [files[index] for index in torch.randperm(len(files), generator=self._draws)]

    def training_step(self, batch: Any, batch_idx: int, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Train student and autoencoder on one image and one general image; of tiles, on the mean of their losses."""
        del args, kwargs
        general = self._general_image(self._files[batch_idx % len(self._files)]).to(self.device)
        # the hardest patches are those of one image, as in the paper: tiles are not thrown together
        losses = [torch.stack(self.model.fit(image, general)) for image in batch.image.split(1)]
        student, autoencoder, both = torch.stack(losses).mean(dim=0)
        loss = student + autoencoder + both
        self.log_losses(batch, train_loss=loss, student_loss=student, autoencoder_loss=autoencoder)
        return {"loss": loss}

    def _general_image(self, path: Path) -> torch.Tensor:
        """Return the middle of a general image at twice the input's size, sometimes grey: (1, 3, H, W)."""
        image = self._middle(path)
        if float(torch.rand(1, generator=self._draws)) < GREY_SHARE:
            image = tvf.rgb_to_grayscale(image, num_output_channels=3)
        return image[None]

    def _middle(self, path: Path) -> torch.Tensor:
        """Return the middle of an image at twice the input's size: (3, H, W)."""
        height, width = self.preprocessing.input_size
        large = tvf.resize(load_image(path), [2 * height, 2 * width], antialias=True)
        return tvf.center_crop(large, [height, width])

    def on_validation_start(self) -> None:
        """Measure the maps of a training before validation scores them; later validations do not change the result."""
        if self.trainer.state.fn == "fit":
            self._measure_maps()

    def on_train_epoch_end(self) -> None:
        """Measure the maps of the last epoch's weights if no validation has done it."""
        trainer = self.trainer
        last = trainer.should_stop or self.current_epoch + 1 == trainer.max_epochs
        last = last or 0 <= trainer.max_steps <= trainer.global_step
        if last and self._measured_epoch != self.current_epoch:
            self._measure_maps()

    @torch.no_grad()
    def _measure_maps(self) -> None:
        """Set the quantiles that bring both maps to one scale, from good validation images (or training images)."""
        data = self._datamodule
        chooses = data.manifest.chooses
        good = [index for index, entry in enumerate(data.val_data.entries) if entry.label == 0 and chooses(entry)]
        dataset = data.val_data if good else data.train_data
        if not good:
            logger.info("EfficientAd: no good validation images: its maps are measured on the training images")
        size = self.preprocessing.input_size
        with evaluating(self.model):
            distances = [
                [self.model.sized(distance, size).cpu() for distance in self.model.embed(self.model.features(image))]
                for image in self._inputs(dataset, good or None)
            ]
        flat = []
        for name, maps in zip(("st", "ae"), zip(*distances, strict=True), strict=True):
            values = reduce_tensor_elems(torch.cat(maps))
            low, high = torch.quantile(values, 0.9), torch.quantile(values, 0.995)
            if high - low < MIN_RANGE:
                flat.append(MAP_NAMES[name])
                high = low + MIN_RANGE
            self.model.quantiles[f"qa_{name}"].copy_(low)
            self.model.quantiles[f"qb_{name}"].copy_(high)
        self._note_floor(
            "ranges",
            flat
            and f"over the good images hardly anything varies in the map of {' and that of '.join(flat)}: divided by "
            f"{MIN_RANGE:g}",
        )
        self._measured_epoch = self.current_epoch

    def _note_floor(self, of: str, text: Any) -> None:
        """Note for log and record that a spread was too small to divide by; an earlier note goes if there is none."""
        key = f"efficient_ad floor of {of}"
        self.notes = {name: note for name, note in self.notes.items() if name != key}
        if text:
            logger.info("EfficientAd: %s", text)
            self.notes = {**self.notes, key: str(text)}

    def _inputs(self, dataset: ManifestDataset, indices: Sequence[int] | None = None) -> Iterator[torch.Tensor]:
        """Yield the model's input of one image, or tile, after another, (1, 3, H, W), in the manifest's order."""
        transform, grid = self.preprocessing.transform(), self.preprocessing.grid
        for index in range(len(dataset)) if indices is None else indices:
            image = transform(dataset[index].image)[None].to(self.device)
            yield from [image] if grid is None else grid.cut(image).split(1)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the teacher's record over: its weights are in the checkpoint."""
        super().on_load_checkpoint(checkpoint)
        record = checkpoint.get("defectlab")
        if record is not None:
            self.backbone_record = record["backbone"]
            self._has_teacher = True


def _checked_padding(pre_padding: Sequence[int]) -> list[int]:
    numbers = list(pre_padding) if isinstance(pre_padding, Sequence) and not isinstance(pre_padding, str) else []
    if len(numbers) != 4 or any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in numbers):
        raise OptionError(
            "EfficientAd: pre_padding must be four whole numbers of pixels, [left, right, top, bottom], "
            f"got {pre_padding!r}."
        )
    return numbers


__all__ = ["EfficientAd", "EfficientAdModel"]
