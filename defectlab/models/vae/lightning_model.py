"""Variational autoencoders (Kingma and Welling, 2014, arXiv:1312.6114) of good images.

What was never seen in training is rebuilt badly: an image's score is its loss.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from anomalib import LearningType
from anomalib.data import InferenceBatch
from torch import nn

from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.evaluation.thresholds import DefaultRule
from defectlab.models.base import BaseDetector
from defectlab.models.vae.networks import HIDDEN, POOLS, big_networks, linear_networks, pooled, small_networks
from defectlab.utils.errors import OptionError
from defectlab.utils.seeds import generator, seeded
from defectlab.utils.validation import check_range, check_whole, checked_options

logger = logging.getLogger(__name__)

IMAGE_SIZE = (40, 72)
Networks = Callable[[tuple[int, int], int], tuple[nn.Module, nn.Module]]


class Encoded(NamedTuple):
    """Images (B, 3, H, W) in [0, 1] with mean and log variance (B, latent_dim) of their latent posterior."""

    images: torch.Tensor
    mean: torch.Tensor
    log_variance: torch.Tensor


class VaeModel(nn.Module):
    """The four parts of a variational autoencoder.

    Args:
        networks: Make encoder and decoder for an image size and a latent size.
        image_size: (height, width) of the images.
        latent_dim: Length of the latent vector.
        n_samples: Latent samples that a score is the mean of; 0 takes the posterior's mean instead.
        seed: Initialises the networks and draws the samples, the same ones for every image.
    """

    noise: torch.Tensor

    def __init__(
        self, networks: Networks, image_size: tuple[int, int], latent_dim: int, *, n_samples: int = 0, seed: int = 42
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.latent_dim = latent_dim
        with seeded(seed, "vae networks"):
            self.encoder, self.decoder = networks(image_size, latent_dim)
        noise = torch.randn(n_samples, latent_dim, generator=generator(seed, "vae samples of a score"))
        self.register_buffer("noise", noise)

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the images (B, 3, H, W) themselves: there is no backbone."""
        return {"images": images}

    def embed(self, features: dict[str, torch.Tensor]) -> Encoded:
        """Return the images with their latent posteriors."""
        return Encoded(features["images"], *self.encoder(features["images"]))

    def fit(self, embedding: Encoded, random: torch.Generator) -> torch.Tensor:
        """Return the losses (B,) to step on, one latent sample an image, drawn from `random`."""
        noise = torch.randn(embedding.mean.shape, generator=random).to(embedding.mean)
        return self.squared_error(embedding, noise).sum(dim=(1, 2, 3)) + divergence(embedding)

    def score(self, embedding: Encoded, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,), summed squared error plus divergence, and maps (B, 1, H, W), the squared error.

        Rebuilt from the posterior's mean, or as the mean over `noise`: no score is drawn by chance.
        """
        del image_size  # the images' own
        draws = [None] if not len(self.noise) else list(self.noise)
        maps = torch.zeros_like(embedding.images[:, :1])
        for noise in draws:
            maps += self.squared_error(embedding, noise) / len(draws)
        return maps.sum(dim=(1, 2, 3)) + divergence(embedding), maps

    def squared_error(self, embedding: Encoded, noise: torch.Tensor | None) -> torch.Tensor:
        """Return the squared error (B, 1, H, W), summed over channels; noise (B, latent_dim) or (latent_dim,)."""
        latent = embedding.mean
        if noise is not None:
            latent = latent + noise * torch.exp(0.5 * embedding.log_variance)
        return (self.decoder(latent) - embedding.images).square().sum(dim=1, keepdim=True)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images (B, 3, H, W), in eval mode whatever the model's is."""
        with evaluating(self), torch.no_grad():
            scores, maps = self.score(self.embed(self.features(images)), (images.shape[-2], images.shape[-1]))
        return InferenceBatch(pred_score=scores, anomaly_map=maps)

    def reconstruct(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (B, 3, H, W) as rebuilt from their posteriors' means, in [0, 1]."""
        with evaluating(self), torch.no_grad():
            return self.decoder(self.embed(self.features(images)).mean)

    def generate(self, count: int, seed: int = 42) -> torch.Tensor:
        """Return `count` images (count, 3, H, W) in [0, 1], decoded from standard normal noise of one seed."""
        latent = torch.randn(count, self.latent_dim, generator=generator(seed, "vae generation")).to(self.noise)
        with evaluating(self), torch.no_grad():
            return self.decoder(latent)


def divergence(embedding: Encoded) -> torch.Tensor:
    """Return the Kullback-Leibler divergence (B,) of each posterior from the standard normal distribution."""
    mean, log_variance = embedding.mean, embedding.log_variance
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


class evaluating:  # noqa: N801 - a context manager, as torch.no_grad
    """Put a module into eval mode inside the block."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        self.training = self.module.training
        self.module.eval()

    def __exit__(self, *error: object) -> None:
        self.module.train(self.training)


class VaeDetector(BaseDetector):
    """What the three autoencoders share; loss and score are a summed squared error plus divergence, an image."""

    pools_before_norm: ClassVar[int | None] = None  # halvings before the smallest grid with batch norm; None: no grid
    model: VaeModel
    learning_rate: float

    def build(
        self,
        networks: Networks,
        *,
        latent_dim: int,
        lr: float,
        n_samples: int,
        seed: int,
        image_size: int | Sequence[int] | None,
        pre_processor: nn.Module | bool,
        more_options: dict[str, Any] | None = None,
        **given: Any,
    ) -> None:
        """Check the options and make module and torch model; `given` are anomalib's arguments and the crop's."""
        name = type(self).__name__
        check_whole(name, "latent_dim", latent_dim, low=1)
        check_whole(name, "n_samples", n_samples, low=0)
        check_range(name, "lr", lr, low=0, open_low=True)
        self.set_up(
            super().__init__,
            options={"latent_dim": latent_dim, "lr": lr, "n_samples": n_samples, "seed": seed, **(more_options or {})},
            backbone=None,
            image_size=(image_size or IMAGE_SIZE) if pre_processor is True else image_size,
            pre_processor=pre_processor,
            **given,
        )
        check_unit_range(name, self.preprocessing)
        self.model = VaeModel(networks, self.preprocessing.input_size, latent_dim, n_samples=n_samples, seed=seed)
        self.learning_rate = lr

    @property
    def learning_type(self) -> LearningType:
        """It learns good images only."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """It asks Lightning for nothing."""
        return {}

    @property
    def default_rule(self) -> DefaultRule:
        """Midway between the mean losses of good and of anomalous validation images."""
        return DefaultRule("mean_of_means")

    @property
    def needs_pairs(self) -> bool:
        """Whether batch norm gets one value an image, so that a batch of one image has no deviation."""
        pools = self.pools_before_norm
        return pools is None or pooled(self.preprocessing.input_size, pools) == (1, 1)

    def image_losses(self, batch: Any) -> torch.Tensor:
        """Return each image's loss (B,), which is its score."""
        return batch.pred_score

    def check_training(self, datamodule: Any) -> None:
        """Refuse single images where batch norm needs several, as in `BaseDetector.check_training`."""
        super().check_training(datamodule)
        if self.needs_pairs and min(datamodule.train_batch_size, len(datamodule.manifest.split("train"))) < 2:
            raise OptionError(
                f"{type(self).__name__} learns from batches of at least two images (batch norm): give "
                "train_batch_size=2 or more, and two training images or more."
            )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all weights, in one pass over them: it took most of LinearVae's time without `fused`."""
        return torch.optim.Adam(self.model.parameters(), lr=self.learning_rate, fused=True)

    def on_train_epoch_start(self) -> None:
        """Draw each epoch's latent samples from a stream of its own, so that a resumed training draws the same."""
        self._latent_noise = generator(self.seed, f"vae latent samples of epoch {self.current_epoch}")

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        """Return a batch's mean loss; a left-over single image is passed over where batch norm needs two."""
        del args, kwargs
        if self.needs_pairs and len(batch.image) < 2:
            return None
        losses = self.model.fit(self.model.embed(self.model.features(batch.image)), self._latent_noise)
        self.log_losses(batch, train_loss=losses.mean())
        return losses.mean()

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Score one batch."""
        del args, kwargs
        return batch.update(**self.model(batch.image)._asdict())


def check_unit_range(model: str, preprocessing: Preprocessing) -> None:
    """Refuse a pre-processor that normalises: the decoder gives images in [0, 1] only.

    Raises:
        OptionError: With what is allowed.
    """
    if preprocessing.mean != (0.0, 0.0, 0.0) or preprocessing.std != (1.0, 1.0, 1.0):
        raise OptionError(
            f"{model} rebuilds images in [0, 1], and this pre-processor normalises them (mean {preprocessing.mean}, "
            f"std {preprocessing.std}): leave Normalize out."
        )


class LinearVae(VaeDetector):
    """A fully connected variational autoencoder: 89.87 million weights at 40 x 72 pixels and 128 latent numbers.

    The epoch with the smallest loss of good validation images is kept, unless the engine says `keep="last"`; its
    checkpoint has no optimiser state, unless the engine says `keep_checkpoint="all"`.

    Args:
        latent_dim: Length of the latent vector.
        hidden: Widths of the layers between pixels and latent vector, mirrored in the decoder.
        lr: Adam's learning rate.
        n_samples: Latent samples that a score is the mean of; 0 rebuilds from the posterior's mean.
        image_size: (height, width) or one number; None is 40 x 72.
        center_crop: (height, width) cut out after resizing.
        keep_aspect: Fit the image into `image_size` and pad instead of stretching it.
        seed: Initialises the networks and draws every latent sample.

    Raises:
        OptionError: An option that cannot work.
    """

    model_name: ClassVar[str] = "linear_vae"
    monitor: ClassVar[str | None] = "val_good_loss"  # it swings from epoch to epoch
    keeps_optimizer: ClassVar[bool] = False  # a gigabyte instead of a third of one

    @checked_options
    def __init__(
        self,
        latent_dim: int = 128,
        hidden: Sequence[int] = HIDDEN,
        lr: float = 1e-3,
        n_samples: int = 0,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Any = True,
        visualizer: Any = True,
        image_size: int | Sequence[int] | None = None,
        center_crop: int | Sequence[int] | None = None,
        keep_aspect: bool = False,
        seed: int = 42,
    ) -> None:
        if isinstance(hidden, str) or len(hidden) < 2:
            raise OptionError(f"LinearVae: hidden must be two or more widths such as {list(HIDDEN)}, got {hidden!r}.")
        for width in hidden:
            check_whole("LinearVae", "hidden", width, low=1)
        self.build(
            lambda size, latent: linear_networks(size, latent, hidden),
            latent_dim=latent_dim,
            lr=lr,
            n_samples=n_samples,
            seed=seed,
            image_size=image_size,
            center_crop=center_crop,
            keep_aspect=keep_aspect,
            pre_processor=pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
            more_options={"hidden": list(hidden)},
        )


class SmallConvVae(VaeDetector):
    """A convolutional variational autoencoder: 2.353 million weights at 40 x 72 pixels and 128 latent numbers.

    Args and errors: as `LinearVae`, without `hidden`.
    """

    model_name: ClassVar[str] = "small_conv_vae"
    pools_before_norm: ClassVar[int | None] = POOLS - 1

    @checked_options
    def __init__(
        self,
        latent_dim: int = 128,
        lr: float = 3e-4,
        n_samples: int = 0,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Any = True,
        visualizer: Any = True,
        image_size: int | Sequence[int] | None = None,
        center_crop: int | Sequence[int] | None = None,
        keep_aspect: bool = False,
        seed: int = 42,
    ) -> None:
        self.build(
            small_networks,
            latent_dim=latent_dim,
            lr=lr,
            n_samples=n_samples,
            seed=seed,
            image_size=image_size,
            center_crop=center_crop,
            keep_aspect=keep_aspect,
            pre_processor=pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )


class BigConvVae(VaeDetector):
    """A larger convolutional variational autoencoder: 11.77 million weights at 40 x 72 and 128 latent numbers.

    Args and errors: as `LinearVae`, without `hidden`.
    """

    model_name: ClassVar[str] = "big_conv_vae"
    pools_before_norm: ClassVar[int | None] = POOLS

    @checked_options
    def __init__(
        self,
        latent_dim: int = 128,
        lr: float = 3e-4,
        n_samples: int = 0,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Any = True,
        visualizer: Any = True,
        image_size: int | Sequence[int] | None = None,
        center_crop: int | Sequence[int] | None = None,
        keep_aspect: bool = False,
        seed: int = 42,
    ) -> None:
        self.build(
            big_networks,
            latent_dim=latent_dim,
            lr=lr,
            n_samples=n_samples,
            seed=seed,
            image_size=image_size,
            center_crop=center_crop,
            keep_aspect=keep_aspect,
            pre_processor=pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )


__all__ = ["BigConvVae", "LinearVae", "SmallConvVae", "VaeModel"]
