"""SubspaceAD's torch model: a principal subspace of good patches, and squared distances to it (arXiv:2602.23013)."""

import logging
from collections.abc import Sequence

import torch
from anomalib.models.components.base import DynamicBufferMixin
from torch.nn import functional as F

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.kernels.maps import smooth_upsample
from defectlab.kernels.subspace import PatchSums, residuals, subspace_size
from defectlab.models.checks import BLUR_SIGMA
from defectlab.models.model_parts import FourParts
from defectlab.models.patchcore.scores import top_mean
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)


class SubspaceModel(FourParts, DynamicBufferMixin):
    """SubspaceAD's features, embed, fit and score; see `Subspace` for the options.

    Attributes:
        mean: (C,) of the good patches, float32.
        complement: (C, C - k) axes outside the subspace of k directions, float32.
        sums: Of the good patches, from which the fit comes; None before a fit, and for a checkpoint without them.
        explained: Share of the variance that the subspace of the last fit holds.
    """

    mean: torch.Tensor
    complement: torch.Tensor

    def __init__(
        self,
        backbone: Backbone,
        layers: Sequence[str],
        explained_variance: float,
        n_components: int | None,
        top_share: float,
    ) -> None:
        super().__init__()
        self.layers = list(layers)
        self.explained_variance = explained_variance
        self.n_components = n_components
        self.top_share = top_share
        self.feature_extractor = FeatureExtractor(backbone, layers)
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("complement", torch.empty(0))
        self.sums: PatchSums | None = None
        self.explained = 0.0

    def embed(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Bring the layers to the first one's size (bilinear) and join them: (B, C, h, w)."""
        size = features[self.layers[0]].shape[-2:]
        resized = [
            one if one.shape[-2:] == size else F.interpolate(one, size=size, mode="bilinear", align_corners=False)
            for one in (features[layer] for layer in self.layers)
        ]
        return torch.cat(resized, dim=1)

    @staticmethod
    def rows(embedding: torch.Tensor) -> torch.Tensor:
        """Reshape embeddings to patches: (N, C, h, w) -> (N*h*w, C)."""
        return embedding.permute(0, 2, 3, 1).flatten(0, 2)

    def fit(self, sums: PatchSums) -> None:
        """Fit the subspace to the sums of good patches.

        Raises:
            InputError: The subspace would be everything, so that nothing could lie outside it.
        """
        variances, axes = sums.principal_axes()
        size = self.size_of(variances)
        device = self.complement.device
        self.mean = sums.mean.float().to(device)
        self.complement = axes[:, size:].float().contiguous().to(device)
        self.sums = sums
        self.explained = float(variances[:size].sum() / variances.sum()) if size else 0.0
        logger.info("Subspace: %s", self.summary)

    def size_of(self, variances: torch.Tensor) -> int:
        """Return how many of the principal axes with these variances (C,) the subspace has.

        Raises:
            InputError: All of them.
        """
        size, channels = subspace_size(variances, self.explained_variance, self.n_components), len(variances)
        if size == channels:
            raise InputError(
                f"Subspace: {self._asked} takes all {channels} directions of the features, and nothing lies outside "
                "them: every score would be 0. Lower explained_variance, or give n_components."
            )
        if self.n_components is not None and size != self.n_components:
            logger.warning(
                "Subspace: %d directions instead of n_components=%d: further ones have no variance, or equal variance",
                size,
                self.n_components,
            )
        return size

    @property
    def size(self) -> int:
        """Number of directions of the fitted subspace."""
        channels, outside = self.complement.shape
        return channels - outside

    @property
    def summary(self) -> str:
        """The fit in words: directions, and the share of the variance that they hold."""
        patches = "" if self.sums is None else f" of {self.sums.count} patches"
        return f"{self.size} of {len(self.mean)} directions hold {self.explained:.4f} of the variance{patches}"

    @property
    def _asked(self) -> str:
        if self.n_components is not None:
            return f"n_components={self.n_components}"
        return f"explained_variance={self.explained_variance}"

    def score(self, embedding: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W): squared distances to the subspace, upsampled and smoothed."""
        if not self.complement.numel():
            raise ValueError("The subspace is empty: fit the model or load a checkpoint first.")
        batch, _, height, width = embedding.shape
        found = residuals(self.rows(embedding), self.mean, self.complement)  # (B*h*w,)
        return self.from_residuals(found.reshape(batch, 1, height, width), image_size)

    def from_residuals(self, found: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W) of squared distances (B, 1, h, w)."""
        maps = smooth_upsample(found, image_size, sigma=BLUR_SIGMA, mode="bilinear")
        return top_mean(maps.flatten(1), self.top_share), maps
