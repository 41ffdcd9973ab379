"""Nearest neighbours against anomalib's PatchcoreModel and against float64."""

import pytest
import torch

from defectlab.kernels.neighbours import nearest_neighbours, nearest_of_prefixes, squared_norms
from defectlab_runtime.errors import InputError, OptionError


def random(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).relu() + 0.5


def plain(queries: torch.Tensor, bank: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel.__new__(PatchcoreModel)
    torch.nn.Module.__init__(model)
    model.memory_bank = bank
    distances, indices = model.nearest_neighbors(queries, k)
    return distances.reshape(-1, k), indices.reshape(-1, k)


@pytest.mark.parametrize("k", [1, 2, 9])
@pytest.mark.parametrize("bank_rows", [300, 5000])
def test_matches_anomalib(k: int, bank_rows: int) -> None:
    queries, bank = random(1500, 48, 0), random(bank_rows, 48, 1)
    queries[:20] = bank[:20] + 1e-4
    expected, index = plain(queries, bank, k)
    distances, indices = nearest_neighbours(queries, bank, k)
    # Invariant 2: plain loses digits to |x|^2, so the bound grows with |x|.
    bound = 1e-4 * expected + 1e-3 * queries.norm(dim=1, keepdim=True)
    assert bool(((distances - expected).abs() <= bound).all())
    assert (indices == index).float().mean().item() > 0.999


@pytest.mark.parametrize("k", [1, 5])
def test_distances_are_exact_and_ascending(k: int) -> None:
    queries, bank = random(400, 32, 2) + 50, random(2100, 32, 3) + 50
    distances, indices = nearest_neighbours(queries, bank, k)
    true = torch.cdist(queries.double(), bank.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(distances.double(), true.gather(1, indices), rtol=1e-6, atol=0)
    assert bool((distances.diff(dim=1) >= 0).all())
    # Chosen by float32 products: another neighbour may win by what rounding does to |x|^2, here thousands of |x - y|^2.
    excess = distances.double().square() - true.topk(k, largest=False).values.square()
    assert float((excess / queries.norm(dim=1, keepdim=True).square()).max()) <= 2e-6


def test_blocks_batches_and_norms_change_nothing() -> None:
    queries, bank = random(700, 24, 4), random(3000, 24, 5)
    distances, indices = nearest_neighbours(queries, bank, 3)
    small = nearest_neighbours(queries, bank, 3, memory_budget=1, bank_norms=squared_norms(bank))
    assert torch.equal(distances, small[0])
    assert torch.equal(indices, small[1])
    single = torch.cat([nearest_neighbours(query[None], bank, 3)[0] for query in queries[:50]])
    assert torch.equal(single, distances[:50])


@pytest.mark.row("S.2")
@pytest.mark.parametrize("k", [1, 4])
def test_one_pass_serves_every_prefix_of_a_bank(k: int) -> None:
    queries, bank, sizes = random(300, 24, 4), random(5000, 24, 5), [4096, 2, 5000, 700, 2]
    true = torch.cdist(queries.double(), bank.double(), compute_mode="donot_use_mm_for_euclid_dist")
    for size, (distances, indices) in zip(sizes, nearest_of_prefixes(queries, bank, sizes, k), strict=True):
        expected = true[:, :size].topk(min(k, size), largest=False)
        torch.testing.assert_close(distances.double(), expected.values, rtol=1e-5, atol=0)
        assert torch.equal(indices, expected.indices)
    with pytest.raises(OptionError, match=r"1\.\.5000"):
        nearest_of_prefixes(queries, bank, [10, 5001], k)


def test_ties_take_the_lowest_index_and_a_bank_row_is_at_distance_zero() -> None:
    bank = random(100, 8, 6).repeat(30, 1)
    distances, indices = nearest_neighbours(bank[:100], bank, 1)
    assert indices.squeeze(1).tolist() == list(range(100))
    assert not bool(distances.any())


def test_k_above_the_bank_gives_all_of_it() -> None:
    distances, indices = nearest_neighbours(random(4, 6, 7), random(3, 6, 8), 9)
    assert distances.shape == indices.shape == (4, 3)
    assert indices.sort(dim=1).values.tolist() == [[0, 1, 2]] * 4


def test_no_queries_give_empty_results() -> None:
    distances, indices = nearest_neighbours(torch.empty(0, 6), random(3, 6, 8), 2)
    assert distances.shape == indices.shape == (0, 2)


def test_bad_input_is_refused() -> None:
    with pytest.raises(OptionError, match="at least 1"):
        nearest_neighbours(torch.zeros(1, 2), torch.zeros(1, 2), 0)
    with pytest.raises(InputError, match="empty"):
        nearest_neighbours(torch.zeros(1, 2), torch.zeros(0, 2), 1)
    with pytest.raises(InputError, match="same backbone"):
        nearest_neighbours(torch.zeros(1, 2), torch.zeros(4, 3), 1)
