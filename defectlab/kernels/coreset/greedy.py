"""Coreset by exact farthest-first order (k-center greedy, Sener and Savarese, arXiv 1708.00489).

The plain method sweeps all rows after every pick. Here a row keeps the distance to its nearest centre among the
first `seen` ones only: an upper bound, as later centres can but lower it. A row is looked at again only when its
bound says that it could still be the farthest, and then against all the centres it has missed in one matrix product.
That product only filters; a distance that decides is the norm of the difference, as the plain method computes it.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from defectlab.kernels.coreset.cost import DEFAULT_BUDGET, Estimate, coreset_size, estimate, smallest_ratio
from defectlab.kernels.coreset.farthest_first import CoresetSearch
from defectlab_runtime.errors import OptionError

__all__ = ["Estimate", "Transform", "coreset_size", "estimate", "k_center_greedy", "smallest_ratio"]


class Transform(Protocol):
    """Anything that projects rows, e.g. a fitted anomalib SparseRandomProjection."""

    def transform(self, embedding: torch.Tensor, /) -> torch.Tensor:
        """Map rows (N, D) to (N, d')."""
        ...


@torch.no_grad()
def k_center_greedy(
    embedding: torch.Tensor,
    n_samples: int,
    *,
    first: int,
    projection: torch.Tensor | Transform | None = None,
    memory_budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | str | None = None,
    storage: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Pick `n_samples` rows of `embedding` (N, D), each the farthest from those picked before it.

    Returns int64 indices (n_samples,) on `device` in the order picked, `first` leading, so that any
    prefix is the coreset of that size. The picks are those of anomalib's KCenterGreedy for the same rows, first pick
    and projection; among exact ties the lowest index wins. One difference: when only rows at distance 0 are left,
    anomalib repeats index 0, here each row is picked once.

    `projection` is a (d', D) matrix, applied as `embedding @ projection.T`, or an object with `transform`; distances
    are taken between projected rows. `memory_budget` bounds the bytes of a block that is worked on beside the
    projected rows. `progress(done, total)` is called after each round of picks; every pick costs about the same.
    Ctrl-C stops between any two operations.

    Rows may be memory-mapped: float32 rows without projection are never copied. `device` computes (the embedding's own
    by default): rows on the host then stay there and are streamed block by block. `storage=torch.float16` keeps the
    projected rows in half the memory; the order is then that of the rounded rows, no more the plain one.

    Raises:
        OptionError: If `n_samples` is outside 1..N, `first` outside 0..N-1 or `storage` no such type.
        InputError: If the rows hold NaN or infinity.
    """
    _check(embedding, n_samples, first)
    if storage not in (torch.float32, torch.float16, torch.bfloat16):
        raise OptionError(f"k_center_greedy: storage must be torch.float32, float16 or bfloat16, got {storage}.")
    rows = _project(embedding, projection).to(storage)
    device = rows.device if device is None else torch.device(device)
    if n_samples == 1:
        return torch.tensor([first], device=device)
    budget = DEFAULT_BUDGET if memory_budget is None else memory_budget
    search = CoresetSearch(rows, n_samples, budget, device)
    search.start(first)
    while search.count < n_samples:
        search.round()
        if progress is not None:
            progress(search.count, n_samples)
    return search.picks


def _check(embedding: torch.Tensor, n_samples: int, first: int) -> None:
    if embedding.ndim != 2 or not embedding.is_floating_point():
        raise OptionError(
            f"k_center_greedy needs rows of shape (N, D) in floating point, "
            f"got {tuple(embedding.shape)} in {embedding.dtype}."
        )
    n = embedding.shape[0]
    if not 1 <= n_samples <= n:
        raise OptionError(f"k_center_greedy: n_samples must be in 1..{n} (the number of rows), got {n_samples}.")
    if not 0 <= first < n:
        raise OptionError(f"k_center_greedy: first must be a row in 0..{n - 1}, got {first}.")


def _project(embedding: torch.Tensor, projection: torch.Tensor | Transform | None) -> torch.Tensor:
    """Return the projected float32 rows (N, d'), from one product, as blocks could round differently."""
    rows = embedding.float()
    if projection is None:
        return rows.contiguous()
    if not isinstance(projection, torch.Tensor):
        return projection.transform(rows).contiguous()
    if projection.ndim != 2 or projection.shape[1] != rows.shape[1]:
        raise OptionError(
            f"k_center_greedy: the projection must be (d', {rows.shape[1]}), got {tuple(projection.shape)}."
        )
    return rows @ projection.to(rows).T  # (N, D) @ (D, d') -> (N, d')
