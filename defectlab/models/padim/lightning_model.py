"""PaDiM: a Gaussian of backbone features at each position (Defard et al., 2020, arXiv:2011.08785)."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.padim.lightning_model import Padim as AnomalibPadim
from anomalib.models.image.padim.torch_model import PadimModel as AnomalibPadimModel
from torch import nn
from torch.nn import functional as F

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.kernels.gaussian.distance import distance
from defectlab.kernels.gaussian.fit import Gaussian, NotPositiveError, fit_cheapest
from defectlab.kernels.gaussian.sums import GaussianSums
from defectlab.kernels.maps import smooth_upsample
from defectlab.models.checkpoint import CHECKPOINT_KEY
from defectlab.models.checks import BLUR_SIGMA, check_layers, check_map_size
from defectlab.models.memory_bank import MemoryBankDetector
from defectlab.models.model_parts import FourParts
from defectlab.models.padim.statistics import PositionGaussians
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.seeds import generator
from defectlab_runtime.errors import InputError, OptionError

logger = logging.getLogger(__name__)

PAPER_N_FEATURES = {"resnet18": 100, "wide_resnet50_2": 550}
MAX_EMBEDDING_BYTES = 4 * 2**30  # bytes; above this sums are kept instead, where they are smaller


class PadimModel(FourParts, AnomalibPadimModel):
    """PaDiM's features, embed, fit and score. State-dict keys are anomalib's except for the form of the covariance."""

    feature_extractor: FeatureExtractor  # type: ignore[assignment]
    gaussian: PositionGaussians  # type: ignore[assignment]

    def __init__(self, backbone: Backbone, layers: Sequence[str], n_features: int | None, seed: int) -> None:
        nn.Module.__init__(self)
        self.tiler = None
        self.backbone = backbone.spec.architecture
        self.layers = list(layers)
        self.feature_extractor = FeatureExtractor(backbone, layers)
        self.n_features_original = sum(self.feature_extractor.out_dims)
        self.n_features = _checked_n_features(n_features, backbone, self.layers, self.n_features_original)
        # a prefix of one permutation, so that a smaller n_features is a part of a larger one
        permutation = torch.randperm(self.n_features_original, generator=generator(seed, "padim channels"))
        self.register_buffer("idx", permutation[: self.n_features])
        self.loss = None
        self.anomaly_map_generator = AnomalyMapGenerator()
        self.gaussian = PositionGaussians()
        self.images = 0  # of which the Gaussians were fitted; 0: unknown

    def embed(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Bring the layers to the first one's size (nearest) and take the chosen channels: (B, n_features, h, w)."""
        size = features[self.layers[0]].shape[-2:]
        resized = [F.interpolate(features[layer], size=size, mode="nearest") for layer in self.layers]
        return torch.cat(resized, dim=1).index_select(1, self.idx)

    @staticmethod
    def rows(embedding: torch.Tensor) -> torch.Tensor:
        """Reshape embeddings for `fit`: (N, C, h, w) -> (N, C, h*w)."""
        return embedding.flatten(2)

    def fit(self, rows: torch.Tensor) -> None:
        """Fit mean and covariance of each position to (N, C, h*w) rows, one per image."""
        self.take(fit_cheapest(rows), len(rows))

    def extend(self, rows: torch.Tensor) -> None:
        """Fit to the images of the present fit, of the low-rank form, and those of (M, C, h*w) rows."""
        present = self.gaussian.value
        assert present.rows is not None
        earlier = present.rows.permute(1, 2, 0) + present.mean  # (P, N, C) -> (N, C, P), no longer centred
        self.fit(torch.cat([earlier, rows.to(earlier)]))

    def take(self, gaussian: Gaussian, images: int) -> None:
        """Set fitted Gaussians as the model's statistics and log the form of their covariances."""
        forms = {
            "factor": "Cholesky factors",
            "low_rank": f"low-rank, since {images} images are few for {self.n_features} features",
            "inverse": "inverse covariances",
        }
        logger.info("Padim: the covariances are kept as %s", forms[gaussian.form])
        self.gaussian.set(gaussian)
        self.images = images

    def score(self, embedding: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W): Mahalanobis distances, upsampled and smoothed."""
        return self.from_distances(distance(embedding, self.gaussian.value), image_size)

    @staticmethod
    def from_distances(distances: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W) of distances (B, 1, h, w)."""
        maps = smooth_upsample(distances, image_size, sigma=BLUR_SIGMA, mode="bilinear")
        return maps.amax(dim=(-3, -2, -1)), maps


class Padim(MemoryBankDetector, AnomalibPadim):
    """anomalib's PaDiM with a local backbone, seeded channels, raw scores and a checkpoint that reloads.

    Args:
        backbone: From `load_backbone`, a torch module, or a name whose weights are at hand.
        layers: In any order; the first one's size is the map's size before upsampling.
        pre_trained: For a name: True looks for its weights locally. Ignored for a module.
        n_features: Channels kept of all layers' together; None takes the paper's number for ResNet-18 and WRN-50-2.
        rotations: Only 1. A Gaussian belongs to one position, where a rotated image shows another part of the object.
        seed: Chooses the channels.

    Raises:
        OptionError: An option that cannot work.
        WeightsError: A layer whose weights are missing from the file.
    """

    model_name: ClassVar[str] = "padim"

    @takes_shared_arguments
    def __init__(
        self,
        backbone: str | nn.Module = "resnet18",
        layers: Sequence[str] = ("layer1", "layer2", "layer3"),
        pre_trained: bool = True,
        n_features: int | None = None,
        shared: SharedArguments = DEFAULTS,
        rotations: int = 1,
    ) -> None:
        layers = check_layers("Padim", layers)
        if rotations != 1:
            raise OptionError(
                f"Padim: rotations={rotations!r} cannot work: its Gaussians belong to positions, and a rotated image "
                "shows another part of the object at each. Leave it out, or take Patchcore or Subspace."
            )
        network = self.resolve_backbone(backbone, pre_trained, shared.seed)
        model = PadimModel(network, layers, n_features, shared.seed)
        self.set_up(
            super(AnomalibPadim, self).__init__,
            options={"layers": layers, "n_features": model.n_features},
            backbone=network,
            shared=shared,
        )
        check_map_size("Padim", self.preprocessing.input_size)
        self.model = model
        self._sums: GaussianSums | None = None

    def check_training_images(self, count: int) -> None:
        """Check that there are two images at least: one has no covariance."""
        if count < 2 and not self.adds:
            raise OptionError(
                f"PaDiM needs at least 2 training images to estimate a covariance, got {count}. Add good images."
            )

    def adding_problem(self) -> str | None:
        """Return why no images can be added: a form without the rows, or of an unknown number of images."""
        form = self.model.gaussian.value.form
        if form == "inverse":
            return "has inverse covariances, which do not give its sums exactly: train it again on all images"
        if form == "factor" and not self.model.images:
            return "comes from a checkpoint that does not say of how many images it is: train it again on all images"
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the number of fitted images to the record: with it images can be added later."""
        super().on_save_checkpoint(checkpoint)
        if self.model.images:
            checkpoint[CHECKPOINT_KEY]["images"] = self.model.images

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the number of fitted images; 0 if the checkpoint does not say."""
        super().on_load_checkpoint(checkpoint)
        self.model.images = int(checkpoint.get(CHECKPOINT_KEY, {}).get("images", 0))

    def on_train_start(self) -> None:
        """Discard an earlier fit unless images are added to it, and choose whether to store embeddings or sums."""
        super().on_train_start()
        if self.adds:
            present = self.model.gaussian.value
            self._sums = GaussianSums.of(present, self.model.images) if present.form == "factor" else None
            return
        images, features = getattr(self._datamodule, "training_samples", 0), self.model.n_features
        height, width = self.patch_grid
        size = 4 * images * features * height * width
        self._sums = GaussianSums() if size > MAX_EMBEDDING_BYTES and images > 2 * features else None
        if self._sums is not None:
            smaller = size * 2 * features / images
            logger.info("Padim: sums of %.1f GB are kept instead of embeddings of %.1f GB", smaller / 1e9, size / 1e9)

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Store the embeddings of one batch, or add them to the sums."""
        if self._sums is None:
            return super().training_step(batch, *args, **kwargs)
        with torch.no_grad():
            self._sums.add(self.model.rows(self.model.embed(self.model.features(batch.image))))
        return torch.tensor(0.0, requires_grad=True, device=self.device)

    def fit(self) -> None:
        """Fit the Gaussians on the stored embeddings or on their sums."""
        if self._sums is None:
            super().fit()
            return
        try:
            self.model.take(self._sums.fit(), self._sums.count)
        except NotPositiveError as error:
            raise InputError(
                f"PaDiM cannot be fitted: {error}. The features are so large that rounding drowns the regularisation; "
                "check the backbone's weights and the images' normalisation."
            ) from error
        self._sums = None


def _checked_n_features(n_features: int | None, backbone: Backbone, layers: list[str], total: int) -> int:
    if n_features is None:
        n_features = PAPER_N_FEATURES.get(backbone.spec.architecture)
        if n_features is None:
            raise OptionError(
                f"Padim: n_features must be given for {backbone.spec.name}: 1 to {total} for layers "
                f"{', '.join(layers)} (the paper uses 100 with ResNet-18, 550 with Wide ResNet-50-2)."
            )
        n_features = min(n_features, total)
        logger.info("Padim: n_features=%d of %d, as in the paper for %s", n_features, total, backbone.spec.architecture)
    if not isinstance(n_features, int) or not 0 < n_features <= total:
        raise OptionError(
            f"Padim: n_features must be 1 to {total}, the channels of {', '.join(layers)}; got {n_features}."
        )
    return n_features


__all__ = ["Padim", "PadimModel"]
