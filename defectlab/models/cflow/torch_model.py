"""CFlow's torch model: a conditional normalising flow for each layer (Gudovskiy et al., 2021, arXiv:2107.12571)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from anomalib.data import InferenceBatch
from anomalib.models.image.cflow.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.cflow.torch_model import CflowModel as AnomalibCflowModel
from anomalib.models.image.cflow.utils import cflow_head, positional_encoding_2d
from torch import nn
from torch.nn import functional as F

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.kernels.flow.coupling import Coupling, flow_log_likelihood, permutation_of
from defectlab.kernels.flow.grid import GridFlow, checksum
from defectlab.models.feature_scaling import feature_scaling
from defectlab.models.model_parts import evaluating
from defectlab.utils.seeds import seeded

# Positions scored at a time. They are independent of each other, so the numbers only limit memory.
CPU_COLUMNS, GPU_COLUMNS = 512, 65536
MAX_CACHED_GRIDS = 256 * 2**20  # bytes per layer; a larger grid is prepared again for each batch


class CflowModel(AnomalibCflowModel):
    """CFlow's features, embed, fit and score. State-dict keys are plain anomalib's."""

    encoder: FeatureExtractor  # type: ignore[assignment]
    decoders: nn.ModuleList

    def __init__(
        self,
        backbone: Backbone,
        layers: Sequence[str],
        *,
        fiber_batch_size: int,
        decoder: str,
        condition_vector: int,
        coupling_blocks: int,
        clamp_alpha: float,
        permute_soft: bool,
        seed: int,
        scale_features: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.backbone = backbone.spec.architecture
        self.fiber_batch_size = fiber_batch_size
        self.condition_vector = condition_vector
        self.dec_arch = decoder
        self.pool_layers = list(layers)
        self.encoder = FeatureExtractor(backbone, layers)
        self.pool_dims = self.encoder.out_dims
        self.scaling = feature_scaling(dict(zip(layers, self.pool_dims, strict=True)), scale_features)
        with seeded(seed, "cflow decoders"):
            self.decoders = nn.ModuleList(
                cflow_head(condition_vector, coupling_blocks, clamp_alpha, n_features, permute_soft)
                for n_features in self.pool_dims
            )
        self.anomaly_map_generator = AnomalyMapGenerator(pool_layers=self.pool_layers)
        self._grid_cache: dict[int, tuple[Any, GridFlow]] = {}
        self._flats: list[nn.Parameter] = []  # while it trains, one for each decoder

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map images (B, 3, H, W) to features (B, C, h, w) of each layer."""
        return self.encoder(images)

    def embed(self, features: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Return the layers' features in order, each (B, C, h, w): every layer has a flow of its own."""
        scaled = self.scaling(features)
        return [scaled[layer].detach() for layer in self.pool_layers]

    def tie(self) -> list[nn.Parameter]:
        """Make each decoder's trained tensors views of one flat tensor; return these tensors, which get the gradients.

        An optimiser that steps on one tensor in place of fifty small ones does the same in half the time.
        """
        self._flats = []
        for decoder in self.decoders:
            tensors = _trained(decoder)
            flat = nn.Parameter(torch.cat([tensor.detach().flatten() for tensor in tensors]))
            for tensor, part in zip(tensors, flat.detach().split([t.numel() for t in tensors]), strict=True):
                tensor.data = part.view_as(tensor)
            self._flats.append(flat)
        return self._flats

    def untie(self) -> None:
        """Undo `tie` for gradients: the decoders' own tensors receive them again."""
        self._flats = []

    def fit(self, embedding: list[torch.Tensor], random: torch.Generator) -> Iterator[torch.Tensor]:
        """Yield the losses (F,) of one fiber batch after another; the caller steps the optimiser on each mean.

        A fiber is one position's feature vector. Their order is drawn from `random`; as in plain anomalib the last
        batch of a layer holds the remainder.
        """
        flats: Sequence[nn.Parameter | None] = self._flats or [None] * len(embedding)
        for decoder, feature, flat in zip(self.decoders, embedding, flats, strict=True):
            channels, positions = feature.shape[1], feature.shape[2] * feature.shape[3]
            blocks = couplings(decoder)
            if flat is not None and flat.data_ptr() != blocks[0].scale.data_ptr():
                raise RuntimeError("CFlow's decoders were moved or replaced since `tie`: call it again.")
            encoding = self._encoding(feature).T.contiguous()  # (P, h*w) -> (h*w, P)
            fibers = feature.permute(0, 2, 3, 1).reshape(-1, channels)  # (B, C, h, w) -> (B*h*w, C)
            n_batches = max(1, len(fibers) // self.fiber_batch_size)  # a last short batch of images is one fiber batch
            order = torch.randperm(len(fibers), generator=random).to(fibers.device)
            for number in range(n_batches):
                last = number == n_batches - 1
                start = number * self.fiber_batch_size
                chosen = order[start : None if last else start + self.fiber_batch_size]
                found = flow_log_likelihood(fibers[chosen], encoding[chosen % positions], blocks, flat)
                yield -F.logsigmoid(found / channels)

    def log_likelihoods(self, embedding: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the log-likelihood per feature at each position of each layer, (B, h, w)."""
        columns = CPU_COLUMNS if embedding[0].device.type == "cpu" else GPU_COLUMNS
        return [
            self._grid_flow(number, feature).log_likelihood(feature, columns=columns) / feature.shape[1]
            for number, feature in enumerate(embedding)
        ]

    @torch.no_grad()
    def _grid_flow(self, number: int, feature: torch.Tensor) -> GridFlow:
        """Return a layer's flow, prepared for the grid of its features; cached while the weights stay the same."""
        decoder: Any = self.decoders[number]
        key = (feature.shape[-2:], feature.device, feature.dtype, checksum(decoder.parameters()))
        cached_key, cached = self._grid_cache.get(number, (None, None))
        if cached is not None and cached_key == key:
            return cached
        prepared = GridFlow(self._encoding(feature), couplings(decoder))
        if prepared.nbytes <= MAX_CACHED_GRIDS:
            self._grid_cache[number] = key, prepared
        return prepared

    def score(self, embedding: list[torch.Tensor], image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores (B,) and maps (B, 1, H, W).

        The maxima that normalise likelihoods and map are taken per image, as in plain anomalib at batch size 1.
        Anomalib's maxima over the batch make an image's score depend on the other images of the batch.
        """
        layer_maps = []
        for log_likelihood in self.log_likelihoods(embedding):
            likelihood = torch.exp(log_likelihood - log_likelihood.amax(dim=(-2, -1), keepdim=True)).unsqueeze(1)
            layer_maps.append(F.interpolate(likelihood, size=image_size, mode="bilinear", align_corners=True))
        total = torch.stack(layer_maps).sum(dim=0)
        maps = total.amax(dim=(-3, -2, -1), keepdim=True) - total
        return maps.amax(dim=(-3, -2, -1)), maps

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Score images (B, 3, H, W)."""
        with torch.no_grad():
            features = self.features(images)
        return self.scored(features, (images.shape[-2], images.shape[-1]))

    @torch.no_grad()
    def scored(self, features: dict[str, torch.Tensor], image_size: tuple[int, int]) -> InferenceBatch:
        """Score images by their features (B, C, h, w) of each layer."""
        with evaluating(self.decoders):
            scores, maps = self.score(self.embed(features), image_size)
        return InferenceBatch(pred_score=scores, anomaly_map=maps)

    def _encoding(self, feature: torch.Tensor) -> torch.Tensor:
        """Return the position encodings (P, h*w) of a layer's features (B, C, h, w)."""
        return positional_encoding_2d(self.condition_vector, *feature.shape[-2:]).flatten(1).to(feature.device)


def _trained(decoder: Any) -> list[torch.Tensor]:
    """Return a decoder's parameters in the order of a flat gradient (`kernels.flow.trained_tensors`)."""
    blocks = list(decoder.module_list)
    subnets = [tensor for block in blocks for layer in (0, 2) for tensor in block.subnet[layer].parameters()]
    return [*(block.global_scale for block in blocks), *(block.global_offset for block in blocks), *subnets]


def couplings(decoder: Any) -> list[Coupling]:
    """Return the blocks of one of anomalib's decoders; the tensors are the decoder's own."""
    return [
        Coupling(
            w1=block.subnet[0].weight,
            b1=block.subnet[0].bias,
            w2=block.subnet[2].weight,
            b2=block.subnet[2].bias,
            scale=block.global_scale.flatten(),
            offset=block.global_offset.flatten(),
            order=(order := permutation_of(block.w_perm)),
            rotation=block.w_perm if order is None else None,
            clamp=block.clamp,
        )
        for block in decoder.module_list
    ]
