"""PatchCore's torch model: a bank of patches of good images, and distances to it (Roth et al., arXiv:2106.08265)."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from anomalib.models.image.patchcore.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.patchcore.torch_model import PatchcoreModel as AnomalibPatchcoreModel
from torch import nn

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.kernels.coreset.approximate import approximate_greedy
from defectlab.kernels.coreset.cost import coreset_size, estimate
from defectlab.kernels.coreset.greedy import k_center_greedy
from defectlab.kernels.maps import smooth_upsample
from defectlab.kernels.neighbours import nearest_neighbours
from defectlab.kernels.neighbours_index import NeighboursIndex
from defectlab.kernels.projection import sparse_projection
from defectlab.models.checks import BLUR_SIGMA
from defectlab.models.model_parts import FourParts
from defectlab.models.patchcore.scores import PATCH_SCORES
from defectlab.utils.progress import progress_bar
from defectlab.utils.seeds import generator

logger = logging.getLogger(__name__)

SAMPLINGS = ("coreset", "amazon", "random")
SCORES = ("anomalib", *PATCH_SCORES)


class PatchcoreModel(FourParts, AnomalibPatchcoreModel):
    """PatchCore's features, embed, fit and score. State-dict keys are plain anomalib's."""

    feature_extractor: FeatureExtractor  # type: ignore[assignment]

    def __init__(
        self,
        backbone: Backbone,
        layers: Sequence[str],
        coreset_sampling_ratio: float,
        num_neighbors: int,
        seed: int,
        bank_sampling: str = "coreset",
        score_computation: str = "anomalib",
        compress_memory_bank: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.tiler = None
        self.backbone = backbone.spec.architecture
        self.layers = list(layers)
        self.coreset_sampling_ratio = coreset_sampling_ratio
        self.num_neighbors = num_neighbors
        self.bank_sampling = bank_sampling
        self.score_computation = score_computation
        self.seed = seed
        self.feature_extractor = FeatureExtractor(backbone, layers)
        self.feature_pooler = nn.AvgPool2d(3, 1, 1)
        self.anomaly_map_generator = AnomalyMapGenerator()
        self.register_buffer("memory_bank", torch.empty(0))
        if compress_memory_bank:
            self.register_buffer("projection", torch.empty(0))  # (d', C) once it is fitted
        self.embedding_store: list[torch.Tensor] = []
        self.picks = torch.empty(0, dtype=torch.int64)  # of the last fit: which rows the bank is
        self._index: NeighboursIndex | None = None  # of the bank that was searched last

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (B, 3, H, W) to features (B, C, h, w) of each layer."""
        return self.feature_extractor(images.type(self.memory_bank.dtype))

    def embed(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Average 3x3, bring the layers to the first one's size (bilinear) and join them: (B, C, h, w)."""
        return self.generate_embedding({layer: self.feature_pooler(feature) for layer, feature in features.items()})

    def rows(self, embedding: torch.Tensor) -> torch.Tensor:
        """Reshape embeddings for `fit`: (N, C, h, w) -> (N*h*w, C)."""
        return self.reshape_embedding(embedding)

    def fit(self, rows: torch.Tensor) -> None:
        """Keep some of (N, C) patches as memory bank, in the order picked: the coreset, or as many at random."""
        self.set_memory_bank(rows, self.order(rows, coreset_size(len(rows), self.coreset_sampling_ratio)))

    def order(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        """Return which of (N, C) patches a bank of `size` keeps, in the order picked: any prefix is a smaller bank."""
        n_patches, n_features = rows.shape
        if self.bank_sampling == "random":
            logger.info("Memory bank: %d of %d patches at random", size, n_patches)
            return torch.randperm(n_patches, generator=generator(self.seed, "random bank"))[:size]
        projection = self._random_projection(rows)
        cost = estimate(n_patches, len(projection), size, device=str(rows.device))
        logger.info(
            "Coreset: %d of %d patches with %d numbers each; about %.0f s and %.1f GB",
            size, n_patches, n_features, cost.seconds, cost.bytes / 1e9,
        )  # fmt: skip
        with progress_bar("Coreset", size) as progress:
            if self.bank_sampling == "amazon":
                draws = generator(self.seed, "coreset starting points")
                return approximate_greedy(rows.float() @ projection.T, size, generator=draws, progress=progress)
            first = int(torch.randint(n_patches, (1,), generator=generator(self.seed, "coreset first pick")))
            return k_center_greedy(rows.float(), size, first=first, projection=projection, progress=progress)

    def _random_projection(self, rows: torch.Tensor) -> torch.Tensor:
        drawn = sparse_projection(*rows.shape, generator=generator(self.seed, "coreset projection"))
        return drawn.to(rows.device)

    def set_memory_bank(self, rows: torch.Tensor, picks: torch.Tensor) -> None:
        """Set the picked ones of (N, C) patches as memory bank, projected if the bank is compressed."""
        if self.compresses:
            self.projection = self._random_projection(rows).to(rows)
        self.memory_bank = self.compressed(rows[picks.to(rows.device)])
        self.picks = picks.cpu()

    @property
    def compresses(self) -> bool:
        """Whether patches are compared after the projection that the coreset was picked by."""
        return hasattr(self, "projection")

    def compressed(self, patches: torch.Tensor) -> torch.Tensor:
        """Return patches (n, C) as the memory bank has them: (n, d') where it is compressed, else as they are."""
        return patches @ self.projection.T if self.compresses else patches

    def nearest_neighbors(self, embedding: torch.Tensor, n_neighbors: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return distances and bank rows of the nearest patches; (Q,) each for one neighbour, else (Q, k)."""
        bank = self.memory_bank
        if n_neighbors == 1 and NeighboursIndex.is_worthwhile(bank) and not torch.jit.is_tracing():
            return self.index().nearest(embedding.float())
        distances, indices = nearest_neighbours(embedding.float(), bank.float(), n_neighbors)
        return (distances.squeeze(1), indices.squeeze(1)) if n_neighbors == 1 else (distances, indices)

    def index(self) -> NeighboursIndex:
        """Return the bank's index, made once for each bank: about half a second for 21,401 rows of 384."""
        if self._index is None or self._index.bank is not self.memory_bank:
            self._index = NeighboursIndex(self.memory_bank)
        return self._index

    def _around(self, rows: torch.Tensor, k: int) -> torch.Tensor:
        """Return the `k` bank rows nearest to each of some bank rows (n,): (n, k); a prepared bank keeps them."""
        if self._index is not None and self._index.bank is self.memory_bank and not torch.jit.is_tracing():
            return self._index.neighbours_of_rows(rows, k)
        return self.nearest_neighbors(self.memory_bank[rows], n_neighbors=k)[1]

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self._index = None  # the bank may be filled in place
        super()._load_from_state_dict(*args, **options)

    def score(self, embedding: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,), the farthest patch's distance re-weighted, and maps (B, 1, H, W)."""
        if not self.memory_bank.numel():
            raise ValueError("The memory bank is empty: fit the model or load a checkpoint first.")
        batch, _, height, width = embedding.shape
        patches = self.compressed(self.reshape_embedding(embedding))
        if self.score_computation != "anomalib":
            k = min(self.num_neighbors, len(self.memory_bank))
            found, _ = nearest_neighbours(patches.float(), self.memory_bank.float(), k)
            scores, per_patch = PATCH_SCORES[self.score_computation](found.reshape(batch, -1, k))  # (B*h*w, k)
            return scores, self.maps(per_patch.reshape(batch, 1, height, width), image_size)
        distances, locations = self.nearest_neighbors(patches, n_neighbors=1)
        distances, locations = distances.reshape(batch, -1), locations.reshape(batch, -1)  # (B*h*w,) -> (B, h*w)
        (scores,) = self.image_scores(distances, locations, patches, [self.num_neighbors])
        return scores, self.maps(distances.reshape(batch, 1, height, width), image_size)

    def image_scores(
        self, distances: torch.Tensor, locations: torch.Tensor, patches: torch.Tensor, neighbours: Sequence[int]
    ) -> list[torch.Tensor]:
        """Return scores (B,) for each number of `neighbours`, from one search for the most of them.

        The farthest patch's distance is re-weighted as in `compute_anomaly_score` of plain anomalib.

        Args:
            distances: (B, h*w) distances of each patch to its nearest one in the bank.
            locations: (B, h*w) which one that is.
            patches: (B*h*w, C) the patches themselves.
            neighbours: Numbers of bank patches that re-weight.
        """
        images = torch.arange(len(distances), device=distances.device)
        farthest = distances.argmax(dim=1)
        score = distances[images, farthest]
        most = min(max(neighbours), len(self.memory_bank))
        if most == 1:
            return [score for _ in neighbours]
        patch = patches.reshape(len(distances), distances.shape[1], -1)[images, farthest]  # (B*h*w, C) -> (B, C)
        support = self._around(locations[images, farthest], most)  # (B, most)
        to_support = self.euclidean_dist(patch.unsqueeze(1), self.memory_bank[support]).squeeze(1)  # (B, most)
        return [score if k == 1 else (1 - torch.softmax(to_support[:, :k], dim=1)[:, 0]) * score for k in neighbours]

    @staticmethod
    def maps(distances: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
        """Return maps (B, 1, H, W) of distances (B, 1, h, w)."""
        return smooth_upsample(distances, image_size, sigma=BLUR_SIGMA, mode="nearest")
