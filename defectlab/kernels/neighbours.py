"""Exact nearest neighbours of patches in a memory bank."""

from collections.abc import Sequence

import torch

from defectlab_runtime.errors import InputError, OptionError

DEFAULT_BUDGET = 16 * 2**20  # bytes of working memory: larger blocks leave the cache and gain nothing
MAX_TILE = 2048  # bank rows per product
GROUP = 64  # columns whose smallest value is looked at first


def squared_norms(rows: torch.Tensor) -> torch.Tensor:
    """Return the squared length of each row, (M, D) -> (M,); pass it as `bank_norms` if one bank serves many calls."""
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
    return nearest_of_prefixes(queries, bank, [len(bank)], k, memory_budget=memory_budget, bank_norms=bank_norms)[0]


@torch.no_grad()
def nearest_of_prefixes(
    queries: torch.Tensor,
    ordered_bank: torch.Tensor,
    sizes: Sequence[int],
    k: int,
    *,
    memory_budget: int | None = None,
    bank_norms: torch.Tensor | None = None,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Find the `k` nearest rows among the first `size` rows of `ordered_bank` (M, D), for every one of `sizes`.

    A coreset in the order picked holds every smaller one as its beginning: one pass over the bank serves them all, at
    about the price of the largest. Returns for each size, in the order given, what `nearest_neighbours(queries,
    ordered_bank[:size], k)` returns: distances and indices, (Q, min(k, size)) each. With the largest `k` that is
    asked for, the first columns serve every smaller one.

    Raises:
        OptionError: If `k` is below 1 or a size is outside 1..M.
        InputError: If the bank is empty or the shapes do not fit.
    """
    check_search(queries, ordered_bank, k)
    ends = sorted(set(sizes))
    if not ends or ends[0] < 1 or ends[-1] > len(ordered_bank):
        raise OptionError(
            f"nearest_of_prefixes: sizes must be in 1..{len(ordered_bank)}, the rows of the bank, got {list(sizes)}."
        )
    norms = squared_norms(ordered_bank[: ends[-1]]) if bank_norms is None else bank_norms
    found = {
        end: (
            queries.new_empty((len(queries), min(k, end))),
            torch.empty((len(queries), min(k, end)), dtype=torch.int64, device=queries.device),
        )
        for end in ends
    }
    tile = min(MAX_TILE, ends[-1])
    budget = DEFAULT_BUDGET if memory_budget is None else memory_budget
    block = max(1, budget // (queries.element_size() * (tile + 2 * min(k, ends[-1]) * queries.shape[1])))
    for begin in range(0, len(queries), block):
        part = slice(begin, min(begin + block, len(queries)))
        nearest = _search_block(queries[part], ordered_bank, norms, k, tile, ends)
        for end, index in zip(ends, nearest, strict=True):
            distances, indices = found[end]
            distances[part], indices[part] = _measure(queries[part], ordered_bank, index)
    return [found[size] for size in sizes]


def check_search(queries: torch.Tensor, bank: torch.Tensor, k: int) -> None:
    """Check that `queries`, `bank` and `k` allow a nearest-neighbour search.

    Raises:
        OptionError: `k` is below 1.
        InputError: The bank is empty or the shapes do not fit.
    """
    if k < 1:
        raise OptionError(f"nearest_neighbours: k must be at least 1, got {k!r}.")
    if bank.ndim != 2 or queries.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise InputError(
            f"nearest_neighbours needs queries (Q, D) and a bank (M, D) with one D, "
            f"got {tuple(queries.shape)} and {tuple(bank.shape)}. Were both made with the same backbone and layers?"
        )
    if len(bank) == 0:
        raise InputError("The memory bank is empty. Fit the model, or load a checkpoint of a fitted one.")


def _search_block(
    queries: torch.Tensor, bank: torch.Tensor, norms: torch.Tensor, k: int, tile: int, ends: Sequence[int]
) -> list[torch.Tensor]:
    """Return indices (q, min(k, end)) of the nearest of the first `end` bank rows, for each of the rising `ends`."""
    best, index = queries.new_empty((len(queries), 0)), torch.empty(0)
    found = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        for begin in range(start, end, tile):
            part = slice(begin, min(begin + tile, end))
            partial = torch.addmm(norms[part], queries, bank[part].T, alpha=-2)  # (q, D) @ (D, t) -> (q, t)
            if k == 1:
                values, places = _smallest(partial)
            else:
                values, places = partial.topk(min(k, partial.shape[1]), dim=1, largest=False)
            places = places + begin
            if best.shape[1]:
                values, places = torch.cat([best, values], 1), torch.cat([index, places], 1)
                values, order = values.topk(min(k, values.shape[1]), dim=1, largest=False)
                places = places.gather(1, order)
            best, index = values, places
        found.append(index)
    return found


def _smallest(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the minimum of each row and its first position, (q, t) -> (q, 1) twice.

    On CPU torch finds a minimum many times faster than its position: only the best group of columns is searched.
    """
    q, t = values.shape
    if values.device.type != "cpu" or t % GROUP or not q:
        smallest, place = values.min(1, keepdim=True)
        return smallest, place
    groups = values.view(q, t // GROUP, GROUP)
    group = groups.amin(2).argmin(1)  # (q, t / GROUP) -> (q,)
    inside = groups[torch.arange(q), group].argmin(1)
    place = (group * GROUP + inside).unsqueeze(1)
    return values.gather(1, place), place


def _measure(queries: torch.Tensor, bank: torch.Tensor, found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distances to the bank rows `found` (q, k), ascending, and the indices in that order."""
    if found.shape[1] == 1:
        return torch.linalg.norm(queries - bank[found[:, 0]], dim=1, keepdim=True), found
    distances = torch.linalg.norm(queries.unsqueeze(1) - bank[found], dim=2)  # (q, 1, D) - (q, k, D) -> (q, k)
    distances, order = distances.sort(dim=1)
    return distances, found.gather(1, order)
