"""Exact nearest neighbours of patches in a memory bank."""

import torch

from defectlab.errors import InputError, OptionError

DEFAULT_BUDGET = 16 * 2**20  # bytes of working memory: larger blocks leave the cache and gain nothing
MAX_TILE = 2048  # bank rows per product
GROUP = 64  # products whose minimum is taken first, see _smallest


def squared_norms(rows: torch.Tensor) -> torch.Tensor:
    """Squared length of each row, (M, D) -> (M,); pass it as `bank_norms` when one bank serves many calls."""
    return torch.linalg.vector_norm(rows, dim=1).square_()


@torch.no_grad()
def nearest_neighbours(
    queries: torch.Tensor,
    bank: torch.Tensor,
    k: int,
    *,
    memory_budget: int | None = None,
    bank_norms: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the `k` rows of `bank` (M, D) nearest to each row of `queries` (Q, D).

    Returns Euclidean distances (Q, k), ascending, and int64 indices (Q, k); `k` above M gives all M. Neighbours are
    chosen by |y|^2 - 2 x.y from one matrix product a block; the distances of the chosen are then taken as norms of
    differences. They do not lose digits to the size of |x| as anomalib's do, nor change with the batch size.
    Neighbours that tie up to the product's rounding may come in either order. NaN in gives NaN out.

    `memory_budget` bounds the bytes of a block; `bank_norms` (M,) saves recomputing `squared_norms(bank)`.

    Raises:
        OptionError: If `k` is below 1.
        InputError: If the bank is empty or the shapes do not fit.
    """
    _check(queries, bank, k)
    k = min(k, len(bank))
    norms = squared_norms(bank) if bank_norms is None else bank_norms
    distances = queries.new_empty((len(queries), k))
    indices = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)
    tile = max(min(MAX_TILE, len(bank)), 1)
    budget = DEFAULT_BUDGET if memory_budget is None else memory_budget
    block = max(1, budget // (queries.element_size() * (tile + 2 * k * queries.shape[1])))
    for begin in range(0, len(queries), block):
        part = slice(begin, min(begin + block, len(queries)))
        found = _search_block(queries[part], bank, norms, k, tile)
        distances[part], indices[part] = _measure(queries[part], bank, found)
    return distances, indices


def _check(queries: torch.Tensor, bank: torch.Tensor, k: int) -> None:
    if k < 1:
        raise OptionError(f"nearest_neighbours: k must be at least 1, got {k!r}.")
    if bank.ndim != 2 or queries.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise InputError(
            f"nearest_neighbours needs queries (Q, D) and a bank (M, D) with one D, "
            f"got {tuple(queries.shape)} and {tuple(bank.shape)}. Were both made with the same backbone and layers?"
        )
    if len(bank) == 0:
        raise InputError("The memory bank is empty. Fit the model, or load a checkpoint of a fitted one.")


def _search_block(queries: torch.Tensor, bank: torch.Tensor, norms: torch.Tensor, k: int, tile: int) -> torch.Tensor:
    """Indices (q, k) of the nearest bank rows by product, tile by tile."""
    best: torch.Tensor | None = None
    index: torch.Tensor | None = None
    for begin in range(0, len(bank), tile):
        rows = bank[begin : begin + tile]
        partial = torch.addmm(norms[begin : begin + tile], queries, rows.T, alpha=-2)  # (q, D) @ (D, t) -> (q, t)
        if k == 1:
            values, places = _smallest(partial)
        else:
            values, places = partial.topk(min(k, len(rows)), dim=1, largest=False)
        places = places + begin
        if best is None or index is None:
            best, index = values, places
            continue
        values, places = torch.cat([best, values], 1), torch.cat([index, places], 1)
        best, order = values.topk(min(k, values.shape[1]), dim=1, largest=False)
        index = places.gather(1, order)
    assert index is not None
    return index


def _smallest(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimum and its first place in each row, (q, t) -> (q, 1) twice.

    torch finds a minimum many times faster than its place on CPU: so only the best group of each row is looked through.
    """
    q, t = values.shape
    if values.device.type != "cpu" or t % GROUP or not q:
        smallest, place = values.min(1, keepdim=True)
        return smallest, place
    groups = values.view(q, t // GROUP, GROUP)  # (q, t) -> (q, g, GROUP)
    group = groups.amin(2).min(1, keepdim=True).indices  # (q, 1)
    inside = groups[torch.arange(q).unsqueeze(1), group].squeeze(1)  # (q, 1, GROUP) -> (q, GROUP)
    smallest, place = inside.min(1, keepdim=True)
    return smallest, group * GROUP + place


def _measure(queries: torch.Tensor, bank: torch.Tensor, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances to the rows found, ascending, and their indices in that order."""
    if found.shape[1] == 1:
        return torch.linalg.norm(queries - bank[found[:, 0]], dim=1, keepdim=True), found
    distances = torch.linalg.norm(queries.unsqueeze(1) - bank[found], dim=2)  # (q, 1, D) - (q, k, D) -> (q, k)
    distances, order = distances.sort(dim=1)
    return distances, found.gather(1, order)
