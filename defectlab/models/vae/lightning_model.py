"""Variational autoencoders (Kingma and Welling, 2014, arXiv:1312.6114) of good images.

Images unlike the training images are reconstructed poorly: an image's score is its loss.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from anomalib import LearningType

from defectlab.evaluation.threshold import DefaultRule
from defectlab.models.base import BaseDetector
from defectlab.models.checks import check_unnormalised
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.models.vae.networks import HIDDEN, POOLS, big_networks, linear_networks, pooled, small_networks
from defectlab.models.vae.torch_model import Networks, VaeModel
from defectlab.utils.seeds import generator
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import OptionError


class VaeDetector(BaseDetector):
    """What the three autoencoders share; loss and score are a summed squared error plus divergence, an image."""

    usual_size: ClassVar[tuple[int, int]] = (40, 72)
    pools_before_norm: ClassVar[int | None] = None  # halvings before the smallest grid with batch norm; None: no grid
    model: VaeModel
    learning_rate: float

    def build(
        self,
        networks: Networks,
        shared: SharedArguments,
        *,
        latent_dim: int,
        lr: float,
        n_samples: int,
        more_options: dict[str, Any] | None = None,
    ) -> None:
        """Check the options and make module and torch model."""
        name = type(self).__name__
        check_integer(name, "latent_dim", latent_dim, low=1)
        check_integer(name, "n_samples", n_samples, low=0)
        check_range(name, "lr", lr, low=0, open_low=True)
        options = {"latent_dim": latent_dim, "lr": lr, "n_samples": n_samples, **(more_options or {})}
        self.set_up(super().__init__, options=options, shared=shared)
        check_unnormalised(name, self.preprocessing)
        input_size = self.preprocessing.input_size
        self.model = VaeModel(networks, input_size, latent_dim, n_samples=n_samples, seed=shared.seed)
        self.learning_rate = lr

    @property
    def learning_type(self) -> LearningType:
        """Learning type of the model: it is trained on good images only."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments for Lightning's Trainer: none."""
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
        """Check as `BaseDetector.check_training`, and that batches have the two images that batch norm may need."""
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
        """Return a batch's mean loss; a single left-over image is skipped if batch norm needs two."""
        del args, kwargs
        if self.needs_pairs and len(batch.image) < 2:
            return None
        losses = self.model.fit(self.model.embed(self.model.features(batch.image)), self._latent_noise)
        self.log_losses(batch, train_loss=losses.mean())
        return losses.mean()

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Score the images of one validation batch."""
        del args, kwargs
        return batch.update(**self.model(batch.image)._asdict())


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
        seed: Initialises the networks and draws every latent sample.

    Raises:
        OptionError: An option that cannot work.
    """

    model_name: ClassVar[str] = "linear_vae"
    monitor: ClassVar[str | None] = "val_good_loss"  # it swings from epoch to epoch
    keeps_optimizer: ClassVar[bool] = False  # a gigabyte instead of a third of one

    @takes_shared_arguments
    def __init__(
        self,
        latent_dim: int = 128,
        hidden: Sequence[int] = HIDDEN,
        lr: float = 1e-3,
        n_samples: int = 0,
        shared: SharedArguments = DEFAULTS,
    ) -> None:
        if isinstance(hidden, str) or len(hidden) < 2:
            raise OptionError(f"LinearVae: hidden must be two or more widths such as {list(HIDDEN)}, got {hidden!r}.")
        for width in hidden:
            check_integer("LinearVae", "hidden", width, low=1)
        self.build(
            lambda size, latent: linear_networks(size, latent, hidden),
            shared,
            latent_dim=latent_dim,
            lr=lr,
            n_samples=n_samples,
            more_options={"hidden": list(hidden)},
        )


class _ConvVae(VaeDetector):
    networks: ClassVar[Networks]

    @takes_shared_arguments
    def __init__(
        self, latent_dim: int = 128, lr: float = 3e-4, n_samples: int = 0, shared: SharedArguments = DEFAULTS
    ) -> None:
        self.build(type(self).networks, shared, latent_dim=latent_dim, lr=lr, n_samples=n_samples)


class SmallConvVae(_ConvVae):
    """A convolutional variational autoencoder: 2.353 million weights at 40 x 72 pixels and 128 latent numbers.

    Args and errors: as `LinearVae`, without `hidden`.
    """

    model_name: ClassVar[str] = "small_conv_vae"
    pools_before_norm: ClassVar[int | None] = POOLS - 1
    networks: ClassVar[Networks] = small_networks


class BigConvVae(_ConvVae):
    """A larger convolutional variational autoencoder: 11.77 million weights at 40 x 72 and 128 latent numbers.

    Args and errors: as `LinearVae`, without `hidden`.
    """

    model_name: ClassVar[str] = "big_conv_vae"
    pools_before_norm: ClassVar[int | None] = POOLS
    networks: ClassVar[Networks] = big_networks


__all__ = ["BigConvVae", "LinearVae", "SmallConvVae"]
