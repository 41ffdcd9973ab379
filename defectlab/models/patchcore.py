"""PatchCore: distance to the nearest patch of a coreset of good ones (Roth et al., 2022, arXiv:2106.08265)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from anomalib import PrecisionType
from anomalib.data import InferenceBatch
from anomalib.models.image.patchcore.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.patchcore.lightning_model import Patchcore as AnomalibPatchcore
from anomalib.models.image.patchcore.torch_model import PatchcoreModel as AnomalibPatchcoreModel
from torch import nn

from defectlab.backbones import Backbone, FeatureExtractor
from defectlab.errors import OptionError, unknown_name
from defectlab.kernels.coreset import coreset_size, estimate, k_center_greedy
from defectlab.kernels.maps import smooth_upsample
from defectlab.kernels.neighbours import nearest_neighbours
from defectlab.kernels.prepared_bank import PreparedBank
from defectlab.kernels.projection import sparse_projection
from defectlab.models.base import BLUR_SIGMA, MemoryBankDetector, check_layers, check_map_size
from defectlab.models.checkpoint import CHECKPOINT_KEY
from defectlab.options import check_range, check_whole, checked_options
from defectlab.progress import progress_bar
from defectlab.seeds import generator

logger = logging.getLogger(__name__)

SAMPLINGS = ("coreset", "random")


@dataclass(frozen=True)
class BankOrigin:
    """Where each row of a memory bank comes from, (M,) each: its image in the manifest, its patch in the image.

    Patches are numbered row by row in a grid of `grid` = (height, width) patches over the model's input.
    """

    images: torch.Tensor
    patches: torch.Tensor
    grid: tuple[int, int]


class PatchcoreModel(AnomalibPatchcoreModel):
    """The four parts of PatchCore. State-dict keys are plain anomalib's."""

    feature_extractor: FeatureExtractor  # type: ignore[assignment]

    def __init__(
        self,
        backbone: Backbone,
        layers: Sequence[str],
        coreset_sampling_ratio: float,
        num_neighbors: int,
        seed: int,
        bank_sampling: str = "coreset",
    ) -> None:
        nn.Module.__init__(self)
        self.tiler = None
        self.backbone = backbone.spec.architecture
        self.layers = list(layers)
        self.coreset_sampling_ratio = coreset_sampling_ratio
        self.num_neighbors = num_neighbors
        self.bank_sampling = bank_sampling
        self.seed = seed
        self.feature_extractor = FeatureExtractor(backbone, layers)
        self.feature_pooler = nn.AvgPool2d(3, 1, 1)
        self.anomaly_map_generator = AnomalyMapGenerator()
        self.register_buffer("memory_bank", torch.empty(0))
        self.embedding_store: list[torch.Tensor] = []
        self.picks = torch.empty(0, dtype=torch.int64)  # of the last fit: which rows the bank is
        self._prepared: PreparedBank | None = None  # of the bank that was searched last

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
        self.keep(rows, self.order(rows, coreset_size(len(rows), self.coreset_sampling_ratio)))

    def order(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        """Return which of (N, C) patches a bank of `size` keeps, in the order picked: any prefix is a smaller bank."""
        n_patches, n_features = rows.shape
        if self.bank_sampling == "random":
            logger.info("Memory bank: %d of %d patches at random", size, n_patches)
            return torch.randperm(n_patches, generator=generator(self.seed, "random bank"))[:size]
        projection = sparse_projection(n_patches, n_features, generator=generator(self.seed, "coreset projection"))
        cost = estimate(n_patches, len(projection), size, device=str(rows.device))
        logger.info(
            "Coreset: %d of %d patches with %d numbers each; about %.0f s and %.1f GB",
            size, n_patches, n_features, cost.seconds, cost.bytes / 1e9,
        )  # fmt: skip
        first = int(torch.randint(n_patches, (1,), generator=generator(self.seed, "coreset first pick")))
        with progress_bar("Coreset", size) as progress:
            return k_center_greedy(
                rows.float(), size, first=first, projection=projection.to(rows.device), progress=progress
            )

    def keep(self, rows: torch.Tensor, picks: torch.Tensor) -> None:
        """Make the picked of (N, C) patches the memory bank."""
        self.memory_bank = rows[picks.to(rows.device)]
        self.picks = picks.cpu()

    def nearest_neighbors(self, embedding: torch.Tensor, n_neighbors: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return distances and bank rows of the nearest patches; (Q,) each for one neighbour, else (Q, k)."""
        bank = self.memory_bank
        if n_neighbors == 1 and PreparedBank.pays(bank) and not torch.jit.is_tracing():
            return self.prepare().nearest(embedding.float())
        distances, indices = nearest_neighbours(embedding.float(), bank.float(), n_neighbors)
        return (distances.squeeze(1), indices.squeeze(1)) if n_neighbors == 1 else (distances, indices)

    def prepare(self) -> PreparedBank:
        """Make the bank ready for many searches, once for each bank: about half a second for 21,401 rows of 384."""
        if self._prepared is None or self._prepared.bank is not self.memory_bank:
            self._prepared = PreparedBank(self.memory_bank)
        return self._prepared

    def _around(self, rows: torch.Tensor, k: int) -> torch.Tensor:
        """Return the `k` bank rows nearest to each of some bank rows (n,): (n, k); a prepared bank keeps them."""
        if self._prepared is not None and self._prepared.bank is self.memory_bank and not torch.jit.is_tracing():
            return self._prepared.around(rows, k)
        return self.nearest_neighbors(self.memory_bank[rows], n_neighbors=k)[1]

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        self._prepared = None  # the bank may be filled in place
        super()._load_from_state_dict(*args, **options)

    def score(self, embedding: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,), the farthest patch's distance re-weighted, and maps (B, 1, H, W)."""
        if not self.memory_bank.numel():
            raise ValueError("The memory bank is empty: fit the model or load a checkpoint first.")
        batch, _, height, width = embedding.shape
        patches = self.reshape_embedding(embedding)
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

    def forward(self, input_tensor: torch.Tensor) -> InferenceBatch:
        """Score images (B, 3, H, W)."""
        scores, maps = self.score(
            self.embed(self.features(input_tensor)), (input_tensor.shape[-2], input_tensor.shape[-1])
        )
        return InferenceBatch(pred_score=scores, anomaly_map=maps)


class Patchcore(MemoryBankDetector, AnomalibPatchcore):
    """anomalib's PatchCore with a local backbone, a seeded coreset, raw scores and a checkpoint that reloads.

    Args:
        backbone: From `load_backbone`, a torch module, or a name whose weights are at hand.
        layers: In any order; the first one's size is the patch grid.
        pre_trained: For a name: True looks for its weights locally. Ignored for a module.
        coreset_sampling_ratio: Share of all training patches kept, in (0, 1].
        num_neighbors: Bank patches that re-weight the image score (maps always use the nearest one).
        bank_sampling: "coreset", or "random": as many patches without choosing, to see what the coreset is worth.
        precision: "float32", or "float16" for backbone and bank (for GPUs).
        image_size: (height, width) or one number; None is 256 x 256.
        center_crop: (height, width) cut out after resizing.
        keep_aspect: Fit the image into `image_size` and pad instead of stretching it.
        seed: Chooses the coreset's first patch and projection.

    Raises:
        OptionError: An option that cannot work.
        WeightsError: A layer whose weights are missing from the file.
    """

    model_name: ClassVar[str] = "patchcore"
    rows_are_patches: ClassVar[bool] = True
    bank_origin: BankOrigin | None = None

    @checked_options
    def __init__(
        self,
        backbone: str | nn.Module = "wide_resnet50_2",
        layers: Sequence[str] = ("layer2", "layer3"),
        pre_trained: bool = True,
        coreset_sampling_ratio: float = 0.1,
        num_neighbors: int = 9,
        precision: str | PrecisionType = PrecisionType.FLOAT32,
        pre_processor: nn.Module | bool = True,
        post_processor: nn.Module | bool = True,
        evaluator: Any = True,
        visualizer: Any = True,
        image_size: int | Sequence[int] | None = None,
        center_crop: int | Sequence[int] | None = None,
        keep_aspect: bool = False,
        seed: int = 42,
        bank_sampling: str = "coreset",
    ) -> None:
        layers = check_layers("Patchcore", layers)
        check_range("Patchcore", "coreset_sampling_ratio", coreset_sampling_ratio, low=0, high=1, open_low=True)
        check_whole("Patchcore", "num_neighbors", num_neighbors, low=1)
        precision = str(getattr(precision, "value", precision)).lower()
        if precision not in ("float32", "float16"):
            raise OptionError(f"Patchcore: precision must be 'float32' or 'float16', got {precision!r}.")
        if bank_sampling not in SAMPLINGS:
            raise OptionError(f"Patchcore: {unknown_name('bank_sampling', str(bank_sampling), SAMPLINGS)}")
        network = self.resolve_backbone(backbone, pre_trained, seed)
        model = PatchcoreModel(network, layers, coreset_sampling_ratio, num_neighbors, seed, bank_sampling)
        self.set_up(
            super(AnomalibPatchcore, self).__init__,
            options={
                "layers": layers,
                "coreset_sampling_ratio": coreset_sampling_ratio,
                "num_neighbors": num_neighbors,
                "precision": precision,
                "seed": seed,
                # left out where it is the usual one: runs from before there was a choice stay the same experiment
                **({} if bank_sampling == "coreset" else {"bank_sampling": bank_sampling}),
            },
            backbone=network,
            image_size=image_size,
            center_crop=center_crop,
            keep_aspect=keep_aspect,
            pre_processor=pre_processor,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )
        check_map_size("Patchcore", self.preprocessing.input_size)
        self.coreset_sampling_ratio = coreset_sampling_ratio
        self.model = model.half() if precision == "float16" else model

    def on_train_start(self) -> None:
        """Forget an earlier fit, and where its bank came from."""
        super().on_train_start()
        self.bank_origin = None

    def fitted_on(self, images: Sequence[int], grid: tuple[int, int]) -> None:
        """Keep where the bank's rows come from."""
        per_image = grid[0] * grid[1]
        places = torch.as_tensor(images, dtype=torch.int32)
        picks = self.model.picks
        self.bank_origin = BankOrigin(places[picks // per_image], (picks % per_image).to(torch.int32), grid)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the bank's origin to the record: a buffer of its own plain anomalib would refuse to load."""
        super().on_save_checkpoint(checkpoint)
        if self.bank_origin is not None:
            checkpoint[CHECKPOINT_KEY]["bank"] = {**vars(self.bank_origin), "grid": list(self.bank_origin.grid)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the bank's origin over; a checkpoint without one leaves none."""
        super().on_load_checkpoint(checkpoint)
        bank = checkpoint.get(CHECKPOINT_KEY, {}).get("bank")
        self.bank_origin = None if bank is None else BankOrigin(**{**bank, "grid": tuple(bank["grid"])})

    def check_training_images(self, count: int) -> None:
        """Refuse a ratio that would keep no patch."""
        shapes = self.model.feature_extractor.feature_shapes(self.preprocessing.map_size)
        _, height, width = shapes[self.model.layers[0]]
        coreset_size(count * height * width, self.coreset_sampling_ratio)


__all__ = ["BankOrigin", "Patchcore", "PatchcoreModel"]
