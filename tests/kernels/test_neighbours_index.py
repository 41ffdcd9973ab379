"""A prepared bank against float64 and against the plain search."""

from collections.abc import Callable

import pytest
import torch

from defectlab.kernels import neighbours_index
from defectlab.kernels.neighbours import nearest_neighbours
from defectlab.kernels.neighbours_index import NeighboursIndex
from defectlab.kernels.partition import leading_axes

Rows = Callable[[int, int, int], torch.Tensor]


def random(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).relu() + 0.5


def clustered(n: int, d: int, seed: int) -> torch.Tensor:
    draws, shape = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(7)
    centres = 3 * torch.randn(20, d, generator=shape)
    return centres[torch.randint(20, (n,), generator=draws)] + 0.2 * low_rank(n, d, seed)


def low_rank(n: int, d: int, seed: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    axes = torch.randn(12, d, generator=torch.Generator().manual_seed(100))
    return torch.randn(n, 12, generator=draws) @ axes + 0.3 * torch.randn(n, d, generator=draws)


@pytest.mark.parametrize("rows", [random, low_rank, clustered])
@pytest.mark.parametrize("offset", [0.0, 50.0])
@pytest.mark.parametrize("size", [1, 70, 5003])
def test_a_prepared_bank_finds_the_nearest_row_itself(rows: Rows, offset: float, size: int) -> None:
    queries, bank = rows(500, 64, 2) + offset, rows(size, 64, 3) + offset
    bank[size // 2 :] = bank[: size - size // 2].clone()  # every row twice: the lower index wins
    queries[:50] = bank[torch.arange(50) % size]
    queries[50, 3] = torch.nan
    prepared = NeighboursIndex(bank)
    distances, indices = prepared.nearest(queries)
    true, place = torch.cdist(queries.double(), bank.double(), compute_mode="donot_use_mm_for_euclid_dist").min(1)
    known = torch.arange(500) != 50
    assert bool(distances[50].isnan())
    torch.testing.assert_close(distances[known].double(), true[known], rtol=1e-5, atol=1e-6)
    assert int(indices[known].max()) < max(1, size - size // 2)
    assert float((indices == place)[known].float().mean()) > 0.99
    small = prepared.nearest(queries, memory_budget=1)
    assert torch.equal(small[0][known], distances[known])
    assert torch.equal(small[1][known], indices[known])


def test_cells_leave_few_pairs_and_short_rows_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, measured = 0, 0
    bounds, take = neighbours_index._Search._bounds, neighbours_index._Search._measure

    def counted_bounds(search: neighbours_index._Search, cell: int, queries: torch.Tensor) -> torch.Tensor:
        nonlocal looked
        found = bounds(search, cell, queries)
        looked += found.numel()
        return found

    def counted_take(search: neighbours_index._Search, row: torch.Tensor, place: torch.Tensor) -> None:
        nonlocal measured
        measured += len(row)
        take(search, row, place)

    monkeypatch.setattr(neighbours_index._Search, "_bounds", counted_bounds)
    monkeypatch.setattr(neighbours_index._Search, "_measure", counted_take)
    queries, bank = clustered(500, 64, 2), clustered(5000, 64, 3)
    distances, indices = NeighboursIndex(bank).nearest(queries)
    expected = nearest_neighbours(queries, bank, 1)
    assert torch.equal(distances, expected[0].squeeze(1))
    assert torch.equal(indices, expected[1].squeeze(1))
    assert looked < 0.3 * len(queries) * len(bank)
    assert measured < 20 * len(queries)


def test_a_row_that_is_there_a_thousand_times_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = torch.cat([random(1000, 16, 0), random(1, 16, 1).expand(3000, -1)])
    taken: list[int] = []
    take = neighbours_index._Search._measure
    monkeypatch.setattr(
        neighbours_index._Search, "_measure", lambda self, row, place: (taken.append(len(row)), take(self, row, place))
    )
    distances, indices = NeighboursIndex(bank).nearest(bank[2000:2100] + 1e-3)
    assert indices.tolist() == [1000] * 100
    torch.testing.assert_close(distances, torch.full((100,), 4e-3), rtol=1e-3, atol=0)
    assert sum(taken) <= 400


def test_queries_far_from_all_the_bank_holds() -> None:
    """Most of such a query lies outside the leading axes: what rounding does to it counts there too."""
    bank = low_rank(2000, 96, 3)
    outside = torch.linalg.qr(torch.randn(96, 96, generator=torch.Generator().manual_seed(9)))[0]
    queries = bank[:300] + 1e4 * outside[torch.arange(300) % 96]
    true, _ = torch.cdist(queries.double(), bank.double(), compute_mode="donot_use_mm_for_euclid_dist").min(1)
    torch.testing.assert_close(NeighboursIndex(bank).nearest(queries)[0].double(), true, rtol=1e-6, atol=0)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours_index, "MIN_QUERIES", 50)
    queries, prepared = clustered(301, 48, 2), NeighboursIndex(clustered(1500, 48, 3))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = prepared.nearest(queries)
        torch.set_num_threads(2)
        two = prepared.nearest(queries)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


def test_neighbours_of_bank_rows_are_searched_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, asked = random(1500, 24, 4), []
    prepared, search = NeighboursIndex(bank), nearest_neighbours

    def noted(queries: torch.Tensor, *args: object, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(len(queries))
        return search(queries, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(neighbours_index, "nearest_neighbours", noted)
    rows = torch.tensor([3, 700, 3, 1499])
    with torch.inference_mode():
        first = prepared.neighbours_of_rows(rows, 5)
    assert torch.equal(first, search(bank[rows], bank, 5)[1])
    assert torch.equal(prepared.neighbours_of_rows(torch.tensor([700, 8]), 3), search(bank[[700, 8]], bank, 3)[1])
    assert torch.equal(prepared.neighbours_of_rows(rows, 7), search(bank[rows], bank, 7)[1])
    assert asked == [3, 1, 3]
    assert prepared.neighbours_of_rows(rows, 2000).shape == (4, 1500)


def test_axes_are_left_out_only_where_little_lies_in_them() -> None:
    mean, axes = leading_axes(low_rank(3000, 128, 0) + 5, 0.8)
    assert axes.shape == (128, 16)
    torch.testing.assert_close(axes.T @ axes, torch.eye(16), rtol=0, atol=1e-5)
    torch.testing.assert_close(mean, torch.full((128,), 5.0), rtol=0, atol=0.5)
    assert leading_axes(random(3000, 128, 0), 0.99)[1].shape == (128, 128)
