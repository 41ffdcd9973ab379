"""Coreset against plain anomalib's k-center greedy, on the same projected rows with the same first pick.

Plain's first picks are timed and multiplied, once a small case is measured whole. Its first 500 picks must be ours; of
the later ones fifty are certified: each is the row farthest from all picks before it.

    python -m benchmarks.bench_coreset      # bottle and ImageNet weights from DEFECTLAB_REAL, made-up images without
"""

import logging
import statistics
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from anomalib.models.components import KCenterGreedy

from benchmarks.certify import certified, checkpoints
from benchmarks.inputs import real, resnet18
from benchmarks.measure import peak_mib, timed
from benchmarks.table import Row, table
from defectlab import Patchcore
from defectlab.data.datasets import load_image
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.kernels.coreset.greedy import k_center_greedy
from defectlab.kernels.projection import sparse_projection

CHECKED = 500
FIRST = 0
LATEST = 8_000  # of the long case, which would take half an hour to certify to its end
_plain: dict[tuple[int, int], tuple[list[int], float, float | None]] = {}


def rows() -> Iterator[Row]:
    """Yield the comparisons: a small case whole, 1 % of bottle."""
    vectors = projected(256)
    small = vectors[::10].contiguous()
    whole = len(small) // 10
    yield _row(small, whole, plain_picks=whole, note=_validated(small, whole))
    yield _row(vectors, len(vectors) // 100, at_least=60)


def tenth_rows() -> Iterator[Row]:
    """Yield 10 % of bottle."""
    vectors = projected(256)
    yield _row(vectors, len(vectors) // 10, at_least=100)


def long_rows() -> Iterator[Row]:
    """Yield the case that took eleven hours; nothing without the real images."""
    if real() is None:
        logging.getLogger(__name__).warning("DEFECTLAB_REAL is not set: no 11-hour case")
        return
    projected.cache_clear()
    yield _long_row(projected(512))


def gpu_rows() -> Iterator[Row]:
    """Yield 10 % of bottle with the rows on the GPU, and streamed from the host."""
    vectors = projected(256)
    yield _row(vectors.cuda(), len(vectors) // 10, name="GPU: ")
    yield _row(vectors.cuda(), len(vectors) // 10, name="GPU, rows on the host: ", ours_from=vectors.pin_memory())


def growth_sides(size: int) -> tuple[Any, Any]:
    """Both sides for picking a tenth of `size` rows."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(200, 300, generator=generator)
    vectors = centres[torch.randint(0, 200, (size,), generator=generator)]
    vectors = vectors + 0.3 * torch.randn(size, 300, generator=generator)
    return (lambda: _plain_picks(vectors, size // 10)), (lambda: k_center_greedy(vectors, size // 10, first=FIRST))


@cache
def projected(size: int) -> torch.Tensor:
    """Patches (N, d') of the training images at `size` pixels, layers 2 and 3 of ResNet-18, as Patchcore projects."""
    files = _files()
    model = Patchcore(backbone=resnet18(), layers=["layer2", "layer3"], image_size=size, visualizer=False).model.eval()
    count, each = len(files) or 24, (size // 8) ** 2
    matrix = sparse_projection(count * each, 384, generator=torch.Generator().manual_seed(1))
    found = torch.empty(count * each, len(matrix))
    preprocessing, drawn = Preprocessing(size=(size, size)), torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for number in range(count):
            if files:
                image = preprocessing.transform()(preprocessing.resize()(load_image(files[number])))
            else:
                coarse = torch.rand(1, 3, size // 8, size // 8, generator=drawn)
                image = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[0]
            embedding = model.rows(model.embed(model.features(image.as_subclass(torch.Tensor)[None])))
            found[number * each : (number + 1) * each] = embedding @ matrix.T
    return found


def _files() -> list[Path]:
    folder = real()
    return sorted((folder / "mvtec_bottle_512" / "train" / "good").glob("*")) if folder else []


def _plain_picks(vectors: torch.Tensor, count: int) -> list[int]:
    """Pick `count` rows with anomalib's own functions, as its `select_coreset_idxs` calls them."""
    sampler = KCenterGreedy(vectors[:2], sampling_ratio=1.0)
    sampler.features, sampler.n_observations = vectors, len(vectors)
    sampler.reset_distances()
    index = torch.tensor(FIRST, device=vectors.device)
    picks = [FIRST]
    for _ in range(count - 1):
        sampler.update_distances(index)
        index = sampler.get_new_idx()
        sampler.min_distances.scatter_(0, index.reshape(1, 1), 0.0)
        picks.append(int(index))
    return picks


def _measured_plain(vectors: torch.Tensor, count: int) -> tuple[list[int], float, float | None]:
    """Plain's first picks, its seconds for them and its peak; measured once for the same rows."""
    key = (len(vectors), count)
    if key not in _plain:
        _plain_picks(vectors, 3)
        picks: list[int] = []
        seconds = timed(lambda: picks.extend(_plain_picks(vectors, count)))
        _plain[key] = picks, seconds, peak_mib(lambda: _plain_picks(vectors, 3))
    return _plain[key]


def _validated(vectors: torch.Tensor, n_samples: int, count: int = CHECKED) -> str:
    """Say how far plain's first picks, multiplied, are from its seconds for all of them."""
    _, whole, _ = _measured_plain(vectors, n_samples)
    first = timed(lambda: _plain_picks(vectors, count)) * n_samples / count
    return f"measured whole; from {count} picks, multiplied, it would have been {first / whole:.2f} of that"


def _row(
    vectors: torch.Tensor,
    n_samples: int,
    *,
    plain_picks: int = CHECKED,
    name: str = "",
    at_least: float | None = None,
    ours_from: torch.Tensor | None = None,
    note: str = "",
) -> Row:
    count = min(plain_picks, n_samples)
    expected, plain_s, plain_mib = _measured_plain(vectors, count)
    order = torch.empty(0)

    def ours() -> None:
        nonlocal order
        source = vectors if ours_from is None else ours_from
        order = k_center_greedy(source, n_samples, first=FIRST, device=vectors.device)

    ours()  # a warm-up
    ours_s = statistics.median(timed(ours) for _ in range(3))
    ours_mib = peak_mib(ours)
    equal = _equality(vectors, order, expected)
    what = f"{name}coreset, {n_samples:,} of {len(vectors):,} x {vectors.shape[1]}"
    note = note or f"plain: {count} picks, {count / plain_s:.1f} a second"
    return Row(what, plain_s * n_samples / count, ours_s, plain_mib, ours_mib, equal, count < n_samples, note, at_least)


def _long_row(vectors: torch.Tensor) -> Row:
    """The case that took eleven hours, run once."""
    n_samples, count = len(vectors) // 10, 20
    begin = time.perf_counter()
    expected = _plain_picks(vectors, count)
    plain_s = (time.perf_counter() - begin) * n_samples / count
    order, ours_s = torch.empty(0), 0.0

    def ours() -> None:
        nonlocal order, ours_s
        begin = time.perf_counter()
        order = k_center_greedy(vectors, n_samples, first=FIRST)
        ours_s = time.perf_counter() - begin

    ours_mib = peak_mib(ours)
    held = vectors.numel() * 4 / 2**20
    equal = _equality(vectors, order, expected, latest=LATEST)
    what = f"coreset, {n_samples:,} of {len(vectors):,} x {vectors.shape[1]}"
    note = f"plain: {count} picks; memory beside the rows' own {held:,.0f} MiB; promised: 600 s"
    return Row(what, plain_s, ours_s, None, ours_mib, equal, True, note)


def _equality(vectors: torch.Tensor, order: torch.Tensor, expected: list[int], latest: int | None = None) -> str:
    same = sum(int(a == b) for a, b in zip(order.tolist(), expected, strict=False))
    text = f"{same} of plain's {len(expected)} picks"
    places = checkpoints(len(expected), min(len(order), latest or len(order)), 50)
    if not places:
        return text
    good = certified(vectors, order, places)
    return f"{text}; {good} of {len(places)} later ones certified, up to pick {places[-1] + 1:,}"


def main() -> None:
    """Print the table, row by row."""
    for row in (*rows(), *tenth_rows(), *long_rows()):
        print(table([row]), flush=True)


if __name__ == "__main__":
    main()
