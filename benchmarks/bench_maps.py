"""Upsampling and blur of anomaly maps, against plain anomalib."""

from collections.abc import Iterator

import torch
from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

from benchmarks.measure import alternate, peak_mib, relative
from benchmarks.table import Row
from defectlab.kernels.maps import smooth_upsample


def rows() -> Iterator[Row]:
    """Yield the comparisons."""
    yield _row("cpu", 8, 64, 256, at_least=20)
    yield _row("cpu", 8, 32, 256, at_least=20)
    yield _row("cpu", 1, 64, 512, at_least=20)


def gpu_rows() -> Iterator[Row]:
    """Yield the comparison that needs a GPU."""
    yield _row("cuda", 32, 64, 256)


def _row(device: str, batch: int, grid: int, size: int, at_least: float | None = None) -> Row:
    generator = AnomalyMapGenerator().to(device)
    scores = torch.rand(batch, 1, grid, grid, generator=torch.Generator().manual_seed(0)).to(device)

    def plain() -> torch.Tensor:
        return generator.smooth_anomaly_map(generator.up_sample(scores, (size, size)))

    def ours() -> torch.Tensor:
        return smooth_upsample(scores, (size, size))

    times = alternate(plain, ours, repeats=15)
    memory = (peak_mib(plain), peak_mib(ours)) if device == "cpu" else (None, None)
    name = f"map upsampling and blur, {batch} maps, {grid} x {grid} to {size} x {size}"
    name = name if device == "cpu" else f"GPU: {name}"
    return Row(name, *times, *memory, f"{relative(ours(), plain()):.0e} relative", at_least=at_least)
