"""PaDiM's statistics given features, its distances and its whole fit, against plain anomalib."""

from collections.abc import Callable, Iterator

import torch
from anomalib.models.components.stats import MultiVariateGaussian
from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

from benchmarks.inputs import images, resnet18, source
from benchmarks.measure import alternate, peak_mib, relative, timed
from benchmarks.table import Row
from defectlab.backbones.loading import load_backbone
from defectlab.kernels.gaussian.distance import distance
from defectlab.kernels.gaussian.fit import fit_cheapest
from defectlab.models.padim.lightning_model import PadimModel

QUARTER = 4  # plain's Wide ResNet fit is timed on a quarter of the positions: whole, it needs 17 GB


def rows() -> Iterator[Row]:
    """Yield the comparisons."""
    embedding, seconds = _embedding(PadimModel(resnet18(), ["layer1", "layer2", "layer3"], 100, 42), 209)
    yield from _statistics(embedding, f"ResNet-18, 100 features, 209 images of {source()}", seconds)


def wide_rows() -> Iterator[Row]:
    """Yield the comparison with more features than images."""
    wide = load_backbone("wide_resnet50_2", weights="random")
    embedding, _ = _embedding(PadimModel(wide, ["layer1", "layer2", "layer3"], 500, 42), 200, size=128)
    del wide
    yield from _wide(embedding)


def gpu_rows() -> Iterator[Row]:
    """Yield the comparison that needs a GPU."""
    embedding, _ = _embedding(PadimModel(resnet18(), ["layer1", "layer2", "layer3"], 100, 42).cuda(), 209)
    embedding = embedding.cuda()
    plain = MultiVariateGaussian().cuda()
    times = alternate(lambda: plain.fit(embedding), lambda: fit_cheapest(embedding.flatten(2)), repeats=3)
    yield Row("GPU: PaDiM statistics, ResNet-18, 100 features", *times, None, None, _equality(embedding, plain))


def growth_sides(positions: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return both sides of a fit of 100 features, 209 images, at so many positions."""
    drawn = torch.rand(209, 100, 1, positions, generator=torch.Generator().manual_seed(0))
    return lambda: MultiVariateGaussian().fit(drawn), lambda: fit_cheapest(drawn.flatten(2))


def _statistics(embedding: torch.Tensor, name: str, feature_seconds: float) -> Iterator[Row]:
    plain, flat = MultiVariateGaussian(), embedding.flatten(2)  # (N, C, h, w) -> (N, C, P)
    times = alternate(lambda: plain.fit(embedding), lambda: fit_cheapest(flat), repeats=3)
    memory = peak_mib(lambda: plain.fit(embedding)), peak_mib(lambda: fit_cheapest(flat))
    note = f"whole fit with features: {feature_seconds + times[0]:.3g} s against {feature_seconds + times[1]:.3g} s"
    yield Row(f"PaDiM statistics, {name}", *times, *memory, _equality(embedding, plain), note=note, at_least=6)
    some, fitted, stats = embedding[:8], fit_cheapest(flat), [plain.mean, plain.inv_covariance]
    times = alternate(
        lambda: AnomalyMapGenerator.compute_distance(some, stats), lambda: distance(some, fitted), repeats=7
    )
    yield Row("PaDiM distances of 8 images, the same", *times, None, None, _equality(embedding, plain))


def _wide(embedding: torch.Tensor) -> Iterator[Row]:
    """Plain on 1,024 positions, times 4; the factor is checked between 256 and 1,024 positions."""
    plain, flat = MultiVariateGaussian(), embedding.flatten(2)
    quarter = embedding[..., :16, :16].contiguous()
    small = timed(lambda: MultiVariateGaussian().fit(quarter))
    large, plain_mib = 0.0, None

    def fit() -> None:
        nonlocal large
        large = timed(lambda: plain.fit(embedding))

    plain_mib = peak_mib(fit)
    equality = _equality(embedding, plain)
    plain.mean = plain.inv_covariance = torch.empty(0)
    whole = flat.repeat(1, 1, QUARTER)  # (N, C, 4 P)
    ours_mib = peak_mib(lambda: fit_cheapest(whole))
    ours = sorted(timed(lambda: fit_cheapest(whole)) for _ in range(3))[1]
    yield Row(
        "PaDiM statistics, Wide ResNet-50-2 (random weights), 500 features, 200 images",
        large * QUARTER,
        ours,
        None if plain_mib is None else plain_mib * QUARTER,
        ours_mib,
        equality,
        extrapolated=True,
        note=f"plain's seconds and memory at 1,024 positions, times 4; 256 positions times 4: {4 * small / large:.2f} "
        "of those at 1,024",
        at_least=10,
    )


def _embedding(model: PadimModel, count: int, size: int = 256) -> tuple[torch.Tensor, float]:
    """Return embeddings (count, C, h, w) on the CPU, and the seconds that the backbone took."""
    pictures, found = images(count, size), []
    model.eval()
    device = model.idx.device

    def work() -> None:
        with torch.no_grad():
            found.extend(model.embed(model.features(batch.to(device))).cpu() for batch in pictures.split(8))

    seconds = timed(work)
    return torch.cat(found), seconds


def _equality(embedding: torch.Tensor, plain: MultiVariateGaussian) -> str:
    """Say how far apart the distances of the training's images are, most of all those that were fitted."""
    with torch.no_grad():
        some = embedding[:8]
        expected = AnomalyMapGenerator.compute_distance(some, [plain.mean, plain.inv_covariance])
        gaussian = fit_cheapest(embedding.flatten(2))
        return f"distances within {relative(distance(some, gaussian), expected):.0e} relative"
