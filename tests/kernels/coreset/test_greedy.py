"""Coreset order against anomalib's KCenterGreedy on the same rows, first pick and projection."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from defectlab.kernels.coreset import cost
from defectlab.kernels.coreset.farthest_first import CoresetSearch
from defectlab.kernels.coreset.greedy import k_center_greedy
from defectlab.kernels.projection import sparse_projection
from defectlab_runtime.errors import InputError, OptionError


def plain_order(rows: torch.Tensor, n_samples: int, first: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Picks of anomalib's own class: `rows` are taken as already projected, its random first pick is replaced."""
    from anomalib.models.components.sampling import k_center_greedy as module

    sampler = module.KCenterGreedy(rows, sampling_ratio=1.0)
    sampler.coreset_size = n_samples
    monkeypatch.setattr(sampler.model, "fit", torch.nn.Identity())
    monkeypatch.setattr(sampler.model, "transform", torch.nn.Identity())
    monkeypatch.setattr(module, "tqdm", lambda steps, **_: steps)
    monkeypatch.setattr(module.torch, "randint", lambda **_: torch.tensor([first]))
    try:
        return sampler.select_coreset_idxs()
    finally:
        monkeypatch.undo()


def clustered(n: int, d: int, seed: int, spread: float = 0.1, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(12, d, generator=generator)
    noise = torch.randn(n, d, generator=generator) * spread
    return centres[torch.randint(0, 12, (n,), generator=generator)] + noise + offset


@pytest.mark.parametrize(
    ("rows", "n_samples"),
    [
        (clustered(3000, 24, 0), 600),
        (clustered(3000, 24, 1, spread=1e-3, offset=30.0), 500),
        (torch.randn(2500, 5, generator=torch.Generator().manual_seed(2)), 2500),
        (torch.randn(40, 1, generator=torch.Generator().manual_seed(3)), 40),
        (clustered(4000, 64, 4).relu(), 1),
        (clustered(4000, 64, 5).relu(), 2),
    ],
    ids=["clusters", "far-from-origin", "all-rows", "one-number", "one-pick", "two-picks"],
)
def test_picks_equal_anomalibs(rows: torch.Tensor, n_samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    picks = k_center_greedy(rows, n_samples, first=7)
    assert picks.tolist() == plain_order(rows, n_samples, 7, monkeypatch)


def test_exact_ties_go_to_the_lowest_index(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every number is a small integer: distances tie in hundreds, exactly.
    rows = torch.randint(0, 4, (3000, 4), generator=torch.Generator().manual_seed(0)).float()
    picks = k_center_greedy(rows, 256, first=11).tolist()
    distinct = len(rows.unique(dim=0))
    assert picks[:distinct] == plain_order(rows, 256, 11, monkeypatch)[:distinct]
    assert len(set(picks)) == 256


@pytest.mark.parametrize("pool", [16, 200])
def test_small_blocks_and_tiles_change_nothing(pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(2000, 16, 6)
    expected = k_center_greedy(rows, 300, first=0)
    assert torch.equal(k_center_greedy(rows, 300, first=0, memory_budget=1), expected)
    monkeypatch.setattr(cost, "MAX_POOL", pool)
    monkeypatch.setattr(cost, "TILE", 32)
    assert torch.equal(k_center_greedy(rows, 300, first=0), expected)


@pytest.fixture
def small_cells(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Cells and leading directions from a few rows and picks on, as for many; call it after `plain_order`."""

    def patch() -> None:
        monkeypatch.setattr(cost, "ROWS_PER_CELL", 100)
        monkeypatch.setattr(cost, "MIN_CELLS", 1)
        monkeypatch.setattr(cost, "MIN_PICKS", 1)
        monkeypatch.setattr(cost, "PICKS_PER_CELL", 1)
        monkeypatch.setattr(cost, "MAX_POOL", 200)

    return patch


@pytest.mark.parametrize(
    ("rows", "n_samples", "leading"),
    [
        (clustered(3000, 96, 20), 600, True),
        (clustered(3000, 96, 21, spread=1e-3, offset=30.0), 400, True),
        (clustered(3000, 96, 22).mul(8).round(), 400, True),
        (torch.randn(3000, 24, generator=torch.Generator().manual_seed(23)), 500, False),
        (torch.ones(2000, 70).index_fill(0, torch.arange(0, 2000, 9), 3.0), 300, True),
    ],
    ids=["clusters", "far-from-origin", "near-ties", "no-clusters", "two-kinds"],
)
def test_cells_and_leading_directions_change_no_pick(
    rows: torch.Tensor, n_samples: int, leading: bool, small_cells: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = k_center_greedy(rows, n_samples, first=7)
    distinct = min(n_samples, len(rows.unique(dim=0)))
    assert expected[:distinct].tolist() == plain_order(rows, distinct, 7, monkeypatch)
    small_cells()
    search = CoresetSearch(rows, n_samples, 2**28)
    assert search.cells is not None
    assert (search.leading is not None) == leading
    assert torch.equal(k_center_greedy(rows, n_samples, first=7), expected)


def test_cells_leave_few_pairs_of_clustered_rows(
    small_cells: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, pairs = clustered(6000, 96, 24, spread=0.02), 0
    lower = CoresetSearch._measure

    def counted(search: CoresetSearch, index: torch.Tensor, found: torch.Tensor, which: torch.Tensor) -> None:
        nonlocal pairs
        pairs += len(index) * len(which)
        lower(search, index, found, which)

    monkeypatch.setattr(CoresetSearch, "_measure", counted)
    expected = k_center_greedy(rows, 800, first=0)
    without, pairs = pairs, 0
    small_cells()
    assert torch.equal(k_center_greedy(rows, 800, first=0), expected)
    assert pairs < without / 2


def test_rows_on_disk_are_not_copied_and_half_storage_gives_the_order_of_the_rounded_rows(tmp_path: Path) -> None:
    rows = clustered(3000, 32, 25)
    np.save(tmp_path / "rows.npy", rows.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "rows.npy", mmap_mode="r+"))
    assert CoresetSearch(mapped, 10, 2**20).rows.data_ptr() == mapped.data_ptr()
    assert torch.equal(k_center_greedy(mapped, 200, first=1, device="cpu"), k_center_greedy(rows, 200, first=1))
    rounded = k_center_greedy(rows, 200, first=1, storage=torch.float16)
    assert torch.equal(rounded, k_center_greedy(rows.half().float(), 200, first=1))
    with pytest.raises(OptionError, match="float16"):
        k_center_greedy(rows, 200, first=1, storage=torch.float64)


def test_heavy_ties_beyond_the_block_are_picked_like_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.eye(3).repeat(400, 1)  # 1200 rows, three kinds
    rows[1::7] *= 2
    picks = k_center_greedy(rows, 8, first=5, memory_budget=1).tolist()
    distinct = len(rows.unique(dim=0))
    assert picks[:distinct] == plain_order(rows, 8, 5, monkeypatch)[:distinct]
    assert len(set(picks)) == 8


def test_equal_rows_are_each_picked_once() -> None:
    assert k_center_greedy(torch.ones(50, 8), 50, first=3).tolist() == [3, *[i for i in range(50) if i != 3]]


@pytest.mark.row("S.2")
def test_any_prefix_is_the_smaller_coreset() -> None:
    rows = clustered(1500, 20, 8)
    assert torch.equal(k_center_greedy(rows, 400, first=2)[:90], k_center_greedy(rows, 90, first=2))


def test_projection_as_matrix_and_as_object_agree_with_anomalib(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(1500, 100, 9)
    matrix = sparse_projection(1500, 100, generator=torch.Generator().manual_seed(1))

    class Projector:
        def transform(self, embedding: torch.Tensor) -> torch.Tensor:
            return embedding @ matrix.T

    expected = plain_order(rows @ matrix.T, 200, 4, monkeypatch)
    assert k_center_greedy(rows, 200, first=4, projection=matrix).tolist() == expected
    assert k_center_greedy(rows, 200, first=4, projection=Projector()).tolist() == expected


def test_lowered_product_precision_still_gives_the_exact_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(1500, 32, 10)
    expected = plain_order(rows, 300, 0, monkeypatch)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        picks = k_center_greedy(rows, 300, first=0).tolist()
    finally:
        torch.set_float32_matmul_precision(before)
    assert picks == expected


def test_progress_ends_at_the_total_and_ctrl_c_passes() -> None:
    rows, calls = clustered(800, 8, 11), []
    state = torch.random.get_rng_state()
    k_center_greedy(rows, 100, first=0, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (100, 100)
    assert calls == sorted(calls)
    assert torch.equal(torch.random.get_rng_state(), state)

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        k_center_greedy(rows, 100, first=0, progress=stop)


@pytest.mark.parametrize(("n_samples", "first"), [(0, 0), (11, 0), (5, 10), (5, -1)])
def test_impossible_arguments_are_refused(n_samples: int, first: int) -> None:
    with pytest.raises(OptionError, match=r"must be"):
        k_center_greedy(torch.zeros(10, 3), n_samples, first=first)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_rows_that_are_not_finite_are_refused(bad: float) -> None:
    rows = torch.zeros(10, 3)
    rows[4, 1] = bad
    with pytest.raises(InputError, match="NaN, infinity"):
        k_center_greedy(rows, 5, first=0)


def test_projection_of_another_width_is_refused() -> None:
    with pytest.raises(OptionError, match=r"\(d', 3\)"):
        k_center_greedy(torch.zeros(10, 3), 5, first=0, projection=torch.zeros(2, 4))


@pytest.mark.real
@pytest.mark.skipif("DEFECTLAB_REAL" not in os.environ, reason="DEFECTLAB_REAL names no folder of real images")
def test_picks_on_real_patches_equal_anomalibs(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision
    from PIL import Image

    root = Path(os.environ["DEFECTLAB_REAL"])
    network = torchvision.models.resnet18()
    network.load_state_dict(torch.load(root / "weights" / "resnet18.pth", weights_only=True))
    stem = torch.nn.Sequential(*list(network.eval().children())[:6])  # up to layer2
    files = sorted((root / "mvtec_bottle_512" / "train" / "good").iterdir())[:6]
    pixels = [np.asarray(Image.open(file).convert("RGB").resize((256, 256))) for file in files]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1  # (B, H, W, 3) -> (B, 3, H, W)
    with torch.no_grad():
        features = torch.nn.functional.avg_pool2d(stem(images), 3, 1, 1)
    rows = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])  # (B, C, h, w) -> (B*h*w, C)
    assert k_center_greedy(rows, 300, first=77).tolist() == plain_order(rows, 300, 77, monkeypatch)
