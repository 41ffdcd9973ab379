"""PatchCore's search and scoring against plain anomalib: the same bank, the same patches."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.table import Row

BATCH, GRID, INPUT = 8, (32, 32), (256, 256)


def alternate(plain: Callable[[], Any], ours: Callable[[], Any], repeats: int = 3) -> tuple[float, float]:
    """Median seconds of each, after one warm-up, in turn so that both meet the same load."""
    times: dict[Callable[[], Any], list[float]] = {plain: [], ours: []}
    for _ in range(repeats + 1):
        for work, seconds in times.items():
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
    return statistics.median(times[plain][1:]), statistics.median(times[ours][1:])


def made_up_patches(n: int, size: int, seed: int) -> torch.Tensor:
    """Patches of clusters, with most of their spread in a few directions, as a backbone's are: (n, size)."""
    shape, draws = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    centres, axes = torch.randn(200, 40, generator=shape), torch.randn(40, size, generator=shape) / 6
    latent = centres[torch.randint(0, 200, (n,), generator=draws)] + 0.5 * torch.randn(n, 40, generator=draws)
    return (latent @ axes + 0.1 * torch.randn(n, size, generator=draws)).relu_()


def bench_scoring(bank: torch.Tensor, patches: torch.Tensor, what: str, k: int = 9) -> list[Row]:
    """Time the search of the nearest row, and all of the scoring of a batch of images (search, weights, maps)."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel as Plain

    from defectlab import load_backbone
    from defectlab.models.patchcore import PatchcoreModel

    network = load_backbone("resnet18", weights="random")
    model = PatchcoreModel(network, ["layer2", "layer3"], 0.1, k, 42)
    plain = Plain(backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False, num_neighbors=k)
    model.memory_bank, plain.memory_bank = bank, bank
    images = patches.reshape(-1, *GRID, patches.shape[1]).permute(0, 3, 1, 2).contiguous()  # (B, C, h, w)

    def score_plainly() -> tuple[torch.Tensor, torch.Tensor]:
        distances, locations = plain.nearest_neighbors(patches, n_neighbors=1)
        distances, locations = distances.reshape(len(images), -1), locations.reshape(len(images), -1)
        scores = plain.compute_anomaly_score(distances, locations, patches)
        maps = plain.anomaly_map_generator(distances.reshape(len(images), 1, *GRID), INPUT)
        return scores, maps

    rows = []
    size = f"{len(bank):,} x {bank.shape[1]}"
    with torch.inference_mode():
        seconds = alternate(lambda: plain.nearest_neighbors(patches, 1), lambda: model.nearest_neighbors(patches, 1))
        expected, found = plain.nearest_neighbors(patches, 1)[0], model.nearest_neighbors(patches, 1)[0]
        share = float(((found - expected).abs() / (1e-4 * expected + 1e-3 * patches.norm(dim=1))).max())
        equal = f"{share:.1g} of the allowed difference"
        rows.append(Row(f"nearest row, {what}, bank {size}", *seconds, None, None, equal, at_least=3))
        seconds = alternate(score_plainly, lambda: model.score(images, INPUT))
        difference = max(
            float(((ours - theirs).abs() / theirs.abs().amax()).max())
            for ours, theirs in zip(model.score(images, INPUT), score_plainly(), strict=True)
        )
        equal = f"scores and maps {difference:.1g} of the largest apart"
        rows.append(Row(f"search and scoring, {what}, bank {size}", *seconds, None, None, equal, at_least=3))
    return rows


def bench_neighbours(bank: torch.Tensor | None = None, patches: torch.Tensor | None = None) -> list[Row]:
    """Compare on real patches where they are given, else on made-up ones: `BATCH` images of 1,024 patches."""
    what = f"{BATCH} images, real patches"
    if bank is None or patches is None:
        what = f"{BATCH} images, made-up patches"
        bank, patches = made_up_patches(21_401, 384, 1), made_up_patches(BATCH * GRID[0] * GRID[1], 384, 2)
    return bench_scoring(bank, patches, what)
