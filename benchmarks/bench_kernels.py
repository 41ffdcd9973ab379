"""Ratios of the kernels to plain anomalib in one process: alternating, medians, with the equality beside each.

    python benchmarks/bench_kernels.py                         # small made-up rows, about a minute
    python benchmarks/bench_kernels.py --rows features.pt      # a (N, D) float32 tensor of real patches

Where plain would take long, its first picks are timed and multiplied: those lines say "extrapolated".
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from defectlab.evaluation.metrics import curve_auroc, sorted_curve
from defectlab.kernels.coreset import k_center_greedy
from defectlab.kernels.gaussian import fit_gaussian, mahalanobis
from defectlab.kernels.maps import smooth_upsample
from defectlab.kernels.neighbours import nearest_neighbours, squared_norms
from defectlab.kernels.projection import sparse_projection


@dataclass(frozen=True)
class Line:
    """One comparison: median seconds of plain and ours, and how far apart the results are."""

    name: str
    plain: float
    ours: float
    equality: str

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.plain / self.ours


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call; with one thread its processor time, which other people's work does not disturb."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    begin = clock()
    work()
    return clock() - begin


def alternate(plain: Callable[[], Any], ours: Callable[[], Any], repeats: int = 5) -> tuple[float, float]:
    """Median seconds of each, after one warm-up, in turn so that both meet the same load."""
    plain(), ours()
    times = [(seconds(plain), seconds(ours)) for _ in range(repeats)]
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


def made_up_rows(n: int, d: int) -> torch.Tensor:
    """Clustered rows, not negative, as patches are."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(200, 20, generator=generator)
    latent = centres[torch.randint(0, 200, (n,), generator=generator)] + 0.3 * torch.randn(n, 20, generator=generator)
    noise = 0.3 * torch.randn(n, d, generator=generator)
    return (latent @ torch.randn(20, d, generator=generator) + noise).relu_()


def bench_coreset(rows: torch.Tensor, ratio: float, plain_picks: int = 100) -> Line:
    """K-center greedy, both from the same projected rows; plain's first picks are timed and multiplied."""
    from anomalib.models.components import KCenterGreedy

    n_samples = int(len(rows) * ratio)
    matrix = sparse_projection(len(rows), rows.shape[1], generator=torch.Generator().manual_seed(1))
    picks = torch.empty(0)

    def ours() -> None:
        nonlocal picks
        picks = k_center_greedy(rows, n_samples, first=0, projection=matrix)

    sampler = KCenterGreedy(rows, sampling_ratio=1.0)
    sampler.features = rows @ matrix.T
    count = min(plain_picks, n_samples)
    order: list[int] = []

    def plain() -> None:
        sampler.reset_distances()
        index = torch.tensor(0)
        order[:] = [0]
        for _ in range(count - 1):
            sampler.update_distances(index)
            index = sampler.get_new_idx()
            sampler.min_distances.scatter_(0, index.reshape(1, 1), 0.0)
            order.append(int(index))

    plain_seconds, our_seconds = alternate(plain, ours, repeats=3)
    equal = sum(int(a == b) for a, b in zip(order, picks[:count].tolist(), strict=True))
    extrapolated = "" if count == n_samples else ", plain extrapolated"
    name = f"coreset {n_samples} of {len(rows)} x {matrix.shape[0]} ({n_samples / our_seconds:.0f} picks/s"
    name += f", plain {count / plain_seconds:.1f})"
    return Line(name, plain_seconds * n_samples / count, our_seconds, f"{equal} of {count} picks equal{extrapolated}")


def bench_neighbours(queries: torch.Tensor, bank: torch.Tensor, k: int) -> Line:
    """Nearest neighbours in a bank."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel.__new__(PatchcoreModel)
    torch.nn.Module.__init__(model)
    model.memory_bank = bank
    norms = squared_norms(bank)
    plain_seconds, our_seconds = alternate(
        lambda: model.nearest_neighbors(queries, k), lambda: nearest_neighbours(queries, bank, k, bank_norms=norms)
    )
    expected = model.nearest_neighbors(queries, k)[0].reshape(len(queries), k)
    difference = (nearest_neighbours(queries, bank, k)[0] - expected).abs()
    bound = 1e-4 * expected + 1e-3 * queries.norm(dim=1, keepdim=True)
    name = f"{k} neighbours of {len(queries)} in {len(bank)} x {bank.shape[1]}"
    return Line(name, plain_seconds, our_seconds, f"{float((difference / bound).max()):.1e} of the allowed difference")


def bench_gaussian(embedding: torch.Tensor) -> list[Line]:
    """PaDiM's statistics of (N, C, h, w), and the distance of the first images to them."""
    from anomalib.models.components.stats import MultiVariateGaussian
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

    fitted = MultiVariateGaussian()
    rows = embedding.flatten(2)  # (N, C, h, w) -> (N, C, P)
    times = alternate(lambda: fitted.fit(embedding), lambda: fit_gaussian(rows), repeats=3)
    mean, inverse = fit_gaussian(rows)
    worst = (inverse - fitted.inv_covariance).abs().amax((1, 2)) / fitted.inv_covariance.abs().amax((1, 2))
    shape = " x ".join(str(side) for side in embedding.shape)
    lines = [Line(f"Gaussian fit {shape}", *times, f"{float(worst.max()):.1e} relative")]
    some, stats = embedding[:8], [mean, inverse]
    times = alternate(
        lambda: AnomalyMapGenerator.compute_distance(some, stats), lambda: mahalanobis(some, mean, inverse)
    )
    expected = AnomalyMapGenerator.compute_distance(some, stats)
    difference = ((mahalanobis(some, mean, inverse) - expected) / expected).abs().max()
    return [*lines, Line("Mahalanobis, 8 images", *times, f"{float(difference):.1e} relative")]


def bench_maps() -> Line:
    """Upsampling and blur."""
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

    generator = AnomalyMapGenerator()
    scores = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))

    def plain() -> torch.Tensor:
        return generator.smooth_anomaly_map(generator.up_sample(scores, (256, 256)))

    times = alternate(plain, lambda: smooth_upsample(scores, (256, 256)))
    difference = ((smooth_upsample(scores, (256, 256)) - plain()) / plain()).abs().max()
    return Line("map upsampling and blur, 8 x 256 x 256", *times, f"{float(difference):.1e} relative")


def bench_pixel_auroc() -> Line:
    """Pixel AUROC of 10 maps."""
    from torchmetrics.functional.classification import binary_auroc

    random = np.random.default_rng(0)
    masks = random.random((10, 256, 256)) < 0.05
    maps = (random.random((10, 256, 256)) * 0.7 + 0.3 * masks).astype(np.float32)
    scores, labels = torch.from_numpy(maps).flatten(), torch.from_numpy(masks).flatten().int()
    times = alternate(lambda: binary_auroc(scores, labels), lambda: curve_auroc(sorted_curve(maps, masks)), repeats=3)
    ours, plain = curve_auroc(sorted_curve(maps, masks)).value, float(binary_auroc(scores, labels))
    return Line("pixel AUROC, 10 x 256 x 256", *times, f"{abs((ours or 0.0) - plain):.1e} apart")


def table(lines: list[Line]) -> str:
    """Render the comparisons, one a line."""
    rows = [
        f"{line.name:<70} {line.plain:>9.3f} s {line.ours:>9.3f} s {line.ratio:>7.1f}x  {line.equality}"
        for line in lines
    ]
    return "\n".join([f"{'':<70} {'plain':>11} {'ours':>11} {'ratio':>8}  equality", *rows])


def main() -> None:
    """Run all comparisons and print the table."""
    parser = argparse.ArgumentParser(description="Ratios of DefectLab's kernels to plain anomalib.")
    parser.add_argument("--rows", help="file of a (N, D) float32 tensor of patches; made up by default")
    parser.add_argument(
        "--embedding", help="file of a (N, C, h, w) float32 tensor for the Gaussian; made up by default"
    )
    parser.add_argument("--ratio", type=float, default=0.1, help="coreset ratio")
    parser.add_argument("--threads", type=int, help="1: processor time on one thread, for a shared machine")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows = torch.load(arguments.rows, weights_only=True) if arguments.rows else made_up_rows(20_000, 128)
    if arguments.embedding:
        embedding = torch.load(arguments.embedding, weights_only=True)
    else:
        embedding = made_up_rows(50 * 784, 64).reshape(50, 28, 28, 64).permute(0, 3, 1, 2).contiguous()
    bank = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: len(rows) // 10]]
    queries = rows[:2048] + 0.01
    lines = [
        bench_coreset(rows, arguments.ratio),
        bench_neighbours(queries, bank, 1),
        bench_neighbours(queries[:256], bank, 9),
        *bench_gaussian(embedding),
        bench_maps(),
        bench_pixel_auroc(),
    ]
    print(table(lines))


if __name__ == "__main__":
    main()
