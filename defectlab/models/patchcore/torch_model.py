"""PatchCore's torch model: a bank of patches of good images, and distances to it (Roth et al., arXiv:2106.08265)."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from anomalib.models.image.patchcore.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.patchcore.torch_model import PatchcoreModel as AnomalibPatchcoreModel
from torch import nn
from torch.nn import functional as F

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.kernels.coreset.approximate import approximate_greedy
from defectlab.kernels.coreset.continued import continue_greedy
from defectlab.kernels.coreset.cost import coreset_size, estimate
from defectlab.kernels.coreset.greedy import k_center_greedy
from defectlab.kernels.foreground import foreground_masks
from defectlab.kernels.maps import smooth_upsample
from defectlab.kernels.neighbours import nearest_neighbours
from defectlab.kernels.neighbours_index import NeighboursIndex
from defectlab.kernels.projection import sparse_projection
from defectlab.models.checks import BLUR_SIGMA
from defectlab.models.model_parts import FourParts
from defectlab.models.patchcore.scores import PATCH_SCORES, top_mean
from defectlab.utils.progress import progress_bar
from defectlab.utils.seeds import generator

logger = logging.getLogger(__name__)

SAMPLINGS = ("coreset", "amazon", "random")
SCORES = ("anomalib", *PATCH_SCORES)
DISTANCES = ("euclidean", "cosine")


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
        distance: str = "euclidean",
        neighbourhood: int = 3,
        top_share: float | None = None,
        foreground_mask: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.tiler = None
        self.backbone = backbone.spec.architecture
        self.layers = list(layers)
        self.coreset_sampling_ratio = coreset_sampling_ratio
        self.num_neighbors = num_neighbors
        self.bank_sampling = bank_sampling
        self.score_computation = score_computation
        self.distance = distance
        self.top_share = top_share
        self.seed = seed
        self.feature_extractor = FeatureExtractor(backbone, layers)
        self.feature_pooler = nn.AvgPool2d(neighbourhood, 1, neighbourhood // 2)
        self.anomaly_map_generator = AnomalyMapGenerator()
        self.register_buffer("memory_bank", torch.empty(0))
        if compress_memory_bank:
            self.register_buffer("projection", torch.empty(0))  # (d', C) once it is fitted
        if foreground_mask:
            self.register_buffer("masks_background", torch.tensor(False))  # whether the fit found that masks work
        self.embedding_store: list[torch.Tensor] = []
        self.picks = torch.empty(0, dtype=torch.int64)  # of the last fit: which rows the bank is
        self._index: NeighboursIndex | None = None  # of the bank that was searched last

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (B, 3, H, W) to features (B, C, h, w) of each layer."""
        return self.feature_extractor(images.type(self.memory_bank.dtype))

    def embed(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Average each patch with its neighbours, join the layers at the first one's size (bilinear): (B, C, h, w).

        Without the average for a `neighbourhood` of 1.
        """
        return self.generate_embedding({layer: self.feature_pooler(feature) for layer, feature in features.items()})

    def rows(self, embedding: torch.Tensor) -> torch.Tensor:
        """Reshape embeddings for `fit`: (N, C, h, w) -> (N*h*w, C)."""
        return self.reshape_embedding(embedding)

    def fit(self, rows: torch.Tensor, foreground: torch.Tensor | None = None) -> None:
        """Keep some of (N, C) patches as memory bank, in the order picked: the coreset, or as many at random.

        Where all are kept, in their own order. `foreground` (N,): the others are no part of the choice.
        """
        kept = None if foreground is None else foreground.nonzero().squeeze(1)
        rows = rows if kept is None else rows[kept]
        size = coreset_size(len(rows), self.coreset_sampling_ratio)
        self.set_memory_bank(rows, torch.arange(size) if size == len(rows) else self.order(rows, size))
        self.picks = self.picks if kept is None else kept.cpu()[self.picks]

    def extend(self, rows: torch.Tensor, foreground: torch.Tensor | None = None) -> str:
        """Let as large a share of (N, C) new patches join the bank as is kept of patches; return a text of the result.

        They are picked farthest-first from the bank that is there (`continue_greedy`, which states what that bounds);
        with `bank_sampling="random"` at random. `foreground` (N,): the others are no part of the choice.
        """
        kept = torch.arange(len(rows)) if foreground is None else foreground.nonzero().squeeze(1).cpu()
        new, before = self.comparable(rows[kept.to(rows.device)]), len(self.memory_bank)
        size = coreset_size(len(new), self.coreset_sampling_ratio)
        with progress_bar("Coreset", size) as progress:
            if size == len(new):
                picks = torch.arange(size)
            elif self.bank_sampling == "random":
                picks = torch.randperm(len(new), generator=generator(self.seed, "random bank"))[:size]
            else:
                picks, _ = continue_greedy(new, self.memory_bank, size, progress=progress)
        self.memory_bank = torch.cat([self.memory_bank, new[picks.to(new.device)].to(self.memory_bank)])
        self.picks = kept[picks]
        radius = float(self.measured(self.nearest_neighbors(new, n_neighbors=1)[0]).max())
        text = (
            f"{size} of {len(new)} new patches joined the {before} of the bank; no new patch is farther than "
            f"{radius:.6g} from it, and no earlier one farther than before"
        )
        logger.info("Memory bank: %s", text)
        return text

    def order(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        """Return which of (N, C) patches a bank of `size` keeps, in the order picked: any prefix is a smaller bank."""
        n_patches, n_features = rows.shape
        if self.bank_sampling == "random":
            logger.info("Memory bank: %d of %d patches at random", size, n_patches)
            return torch.randperm(n_patches, generator=generator(self.seed, "random bank"))[:size]
        rows = self._normalised(rows.float())
        projection = self._random_projection(rows)
        cost = estimate(n_patches, len(projection), size, device=str(rows.device))
        logger.info(
            "Coreset: %d of %d patches with %d numbers each; about %.0f s and %.1f GB",
            size, n_patches, n_features, cost.seconds, cost.bytes / 1e9,
        )  # fmt: skip
        with progress_bar("Coreset", size) as progress:
            if self.bank_sampling == "amazon":
                draws = generator(self.seed, "coreset starting points")
                return approximate_greedy(rows @ projection.T, size, generator=draws, progress=progress)
            first = int(torch.randint(n_patches, (1,), generator=generator(self.seed, "coreset first pick")))
            return k_center_greedy(rows, size, first=first, projection=projection, progress=progress)

    def _random_projection(self, rows: torch.Tensor) -> torch.Tensor:
        drawn = sparse_projection(*rows.shape, generator=generator(self.seed, "coreset projection"))
        return drawn.to(rows.device)

    def set_memory_bank(self, rows: torch.Tensor, picks: torch.Tensor) -> None:
        """Set the picked ones of (N, C) patches as memory bank, in the form in which patches are compared."""
        if self.compresses:
            self.projection = self._random_projection(rows).to(rows)
        self.memory_bank = self.comparable(rows[picks.to(rows.device)])
        self.picks = picks.cpu()

    @property
    def compresses(self) -> bool:
        """Whether patches are compared after the projection that the coreset was picked by."""
        return hasattr(self, "projection")

    def comparable(self, patches: torch.Tensor) -> torch.Tensor:
        """Return patches (n, C) as the memory bank has them: of length 1 for cosines, (n, d') if it is compressed."""
        patches = self._normalised(patches)
        return patches @ self.projection.T if self.compresses else patches

    def _normalised(self, patches: torch.Tensor) -> torch.Tensor:
        return patches if self.distance == "euclidean" else F.normalize(patches.float(), dim=1).to(patches.dtype)

    def measured(self, distances: torch.Tensor) -> torch.Tensor:
        """Return Euclidean distances of comparable patches as the model's own: of unit vectors, 1 - cos = d^2 / 2."""
        return distances if self.distance == "euclidean" else distances.square() / 2

    def foreground(self, embedding: torch.Tensor) -> torch.Tensor | None:
        """Return which patches of images (B, C, h, w) are foreground, (B, h*w); None: no masks are used.

        An image in which none is found is compared whole: without its object it must not pass for a good one.
        """
        if not getattr(self, "masks_background", False):
            return None
        masks = foreground_masks(embedding).flatten(1)
        return masks | ~masks.any(dim=1, keepdim=True)

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
        patches = self.comparable(self.reshape_embedding(embedding))
        foreground = self.foreground(embedding)
        k = 1 if self.score_computation == "anomalib" else min(self.num_neighbors, len(self.memory_bank))
        found, locations = self.nearest_neighbors(patches, n_neighbors=k)
        distances = self.measured(found).reshape(batch, -1, k)  # (B*h*w,) or (B*h*w, k) -> (B, h*w, k)
        if foreground is not None:
            distances = distances * foreground.unsqueeze(2)
        if self.score_computation != "anomalib":
            scores, per_patch = PATCH_SCORES[self.score_computation](distances)
        else:
            per_patch = distances.squeeze(2)
            (scores,) = self.image_scores(per_patch, locations.reshape(batch, -1), patches, [self.num_neighbors])
        if self.top_share is not None:
            scores = top_mean(per_patch, self.top_share)
        return scores, self.maps(per_patch.reshape(batch, 1, height, width), image_size)

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
        to_support = self.measured(self.euclidean_dist(patch.unsqueeze(1), self.memory_bank[support]).squeeze(1))
        return [score if k == 1 else (1 - torch.softmax(to_support[:, :k], dim=1)[:, 0]) * score for k in neighbours]

    @staticmethod
    def maps(distances: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
        """Return maps (B, 1, H, W) of distances (B, 1, h, w)."""
        return smooth_upsample(distances, image_size, sigma=BLUR_SIGMA, mode="nearest")
