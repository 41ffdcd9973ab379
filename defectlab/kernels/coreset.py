"""Coreset by exact farthest-first order (k-center greedy, Sener and Savarese, arXiv 1708.00489).

The plain method sweeps all rows after every pick. Here a row keeps the distance to its nearest centre among the
first `seen` ones only: an upper bound, as later centres can but lower it. A row is looked at again only when its
bound says that it could still be the farthest, and then against all the centres it has missed in one matrix product.
That product only filters; a distance that decides is the norm of the difference, as the plain method computes it.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import torch

from defectlab.errors import InputError, OptionError
from defectlab.kernels.coreset_plan import (
    DEFAULT_BUDGET,
    TILE,
    Estimate,
    block_rows,
    coreset_size,
    estimate,
    smallest_ratio,
)

logger = logging.getLogger(__name__)

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
) -> torch.Tensor:
    """Pick `n_samples` rows of `embedding` (N, D), each the farthest from those picked before it.

    Returns int64 indices (n_samples,) on the embedding's device in the order picked, `first` leading, so that any
    prefix is the coreset of that size. The picks are those of anomalib's KCenterGreedy for the same rows, first pick
    and projection; among exact ties the lowest index wins. One difference: when only rows at distance 0 are left,
    anomalib repeats index 0, here each row is picked once.

    `projection` is a (d', D) matrix, applied as `embedding @ projection.T`, or an object with `transform`; distances
    are taken between projected rows. `memory_budget` bounds the bytes of working memory beside the projected rows.
    `progress(done, total)` is called after each round of picks. Ctrl-C stops between any two operations.

    Raises:
        OptionError: If `n_samples` is outside 1..N or `first` outside 0..N-1.
        InputError: If the rows hold NaN or infinity.
    """
    _check(embedding, n_samples, first)
    rows = _project(embedding, projection)
    if n_samples == 1:
        return torch.tensor([first], device=rows.device)
    budget = DEFAULT_BUDGET if memory_budget is None else memory_budget
    search = _Search(rows, n_samples, budget)
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
    """Rows (N, d') in float32, projected by one product as plain does: blocks could round otherwise."""
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


def _product_error(size: int) -> float:
    """Bound of |computed x.c - true x.c| / (|x| |c|) for vectors of `size` float32 numbers.

    Lightning users lower the precision of products (TF32, bfloat16): the filter then widens instead of failing.
    """
    inputs = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}[torch.get_float32_matmul_precision()]
    if torch.backends.cuda.matmul.allow_tf32:
        inputs = max(inputs, 2.0**-10)
    return inputs + (size + 4) * 2.0**-24


class _Search:
    """State of one farthest-first run over `rows` (N, d).

    `nearest[i]` is the plain distance from row i to the nearest of the first `seen[i]` picks, -1 once i is picked.
    """

    def __init__(self, rows: torch.Tensor, n_samples: int, budget: int) -> None:
        n, size = rows.shape
        self.rows = rows
        self.block = block_rows(size, budget)
        logger.debug("coreset: blocks of %d rows, %d centres (%d MiB budget)", self.block, TILE, budget >> 20)
        self.half_norms = torch.cat([part.pow(2).sum(1) for part in rows.split(self.block * 4)]).mul_(0.5)  # (N,)
        largest = float(self.half_norms.max())
        if not largest < 1e37:
            raise InputError(
                "The patch features hold NaN, infinity or values too large for float32. "
                "Check the backbone's weights and the images' normalisation."
            )
        # Bound on what rounding can do to |x - c|^2 / 2, in the product and in the plain distance together.
        self.slack = (self.half_norms + largest) * (4 * _product_error(size))
        self.nearest = torch.full((n,), torch.inf, device=rows.device)
        self.seen = torch.zeros(n, dtype=torch.int64, device=rows.device)
        self.centres = rows.new_empty((n_samples, size))
        self.half_centre_norms = rows.new_empty(n_samples)
        self.picks = torch.empty(n_samples, dtype=torch.int64, device=rows.device)
        self.count = 0
        # Kept for the whole run: a fresh buffer of this size costs as much in page faults as half a product.
        self.products = rows.new_empty(self.block * TILE)
        self.flags = torch.empty(self.block * TILE, dtype=torch.bool, device=rows.device)

    def start(self, first: int) -> None:
        """Pick `first` and measure all rows against it."""
        self._add(first)
        for part, nearest in zip(self.rows.split(self.block), self.nearest.split(self.block), strict=True):
            nearest.copy_(torch.linalg.norm(part - self.rows[first], dim=1))
        self.seen += 1
        self.nearest[first] = -1

    def _add(self, index: int) -> None:
        self.picks[self.count] = index
        self.centres[self.count] = self.rows[index]
        self.half_centre_norms[self.count] = self.half_norms[index]
        self.count += 1

    def round(self) -> None:
        """Refresh the rows that could be the farthest, then pick among them while none outside can compete."""
        free = len(self.nearest) - self.count
        level = float(self.nearest.topk(min(self.block, free), sorted=False).values.min())
        if level == 0 and float(self.nearest.max()) == 0:
            self._pick_copies()
            return
        # All rows outside the pool lie strictly below the level, so that ties cannot hide there.
        pool = (self.nearest >= level).nonzero().squeeze(1)
        self._refresh(pool, level)
        pool = pool[self.nearest[pool] >= level]
        if len(pool) > 2 * self.block:
            # Ties beyond what a round may hold in memory: the first farthest row is certain, and alone.
            best = pool[self.nearest[pool].argmax()]
            self._add(int(best))
            self.nearest[best] = -1
        elif len(pool):
            self._pick_from(pool, level)

    def _pick_copies(self) -> None:
        """Every row left equals a pick: take them by index."""
        rest = (self.nearest >= 0).nonzero().squeeze(1)[: len(self.picks) - self.count]
        self.picks[self.count :] = rest
        self.count = len(self.picks)

    def _refresh(self, pool: torch.Tensor, level: float) -> None:
        """Bring rows of the pool up to all picks, or until their distance falls below the level."""
        stale = pool[self.seen[pool] < self.count]
        if not len(stale):
            return
        stale = stale[self.seen[stale].argsort()]
        for chunk in stale.split(self.block):
            index = chunk
            rows = self.rows[index]
            done = int(self.seen[index[0]])
            while done < self.count and len(index):
                # A row that has already seen some of these centres meets them again: its minimum stays.
                end = min(done + TILE, self.count)
                self._lower(index, rows, done, end)
                self.seen[index] = end
                kept = self.nearest[index] >= level
                if not bool(kept.all()):
                    index, rows = index[kept], rows[kept]
                done = end

    def _lower(self, index: torch.Tensor, rows: torch.Tensor, begin: int, end: int) -> None:
        """Lower `nearest[index]` by the plain distances to the centres begin..end."""
        centres = self.centres[begin:end]
        # |c|^2/2 - x.c is |x - c|^2 / 2 up to a constant of the row.
        shape = (len(index), end - begin)
        half = self.products[: shape[0] * shape[1]].view(shape)
        torch.addmm(self.half_centre_norms[begin:end], rows, centres.T, alpha=-1, out=half)  # (n, d) @ (d, m) -> (n, m)
        slack = self.slack[index]
        limit = self.nearest[index].square().mul_(0.5) - self.half_norms[index] + slack
        limit = torch.minimum(limit, half.amin(1) + 2 * slack).unsqueeze(1)
        close = torch.le(half, limit, out=self.flags[: half.numel()].view(shape))
        row, centre = close.nonzero(as_tuple=True)
        for part, other in zip(row.split(self.block), centre.split(self.block), strict=True):
            distance = torch.linalg.norm(rows[part] - centres[other], dim=1)
            self.nearest.scatter_reduce_(0, index[part], distance, "amin")

    def _pick_from(self, pool: torch.Tensor, level: float) -> None:
        """Pick the farthest of the pool, all of whose distances are current, while it reaches the level."""
        rows, nearest, half_norms = self.rows[pool], self.nearest[pool], self.half_norms[pool]
        offset = half_norms - self.slack[pool]
        floor = offset - nearest.square().mul_(0.5)  # a centre lowers a row only if x.c - |c|^2/2 is at least this
        while self.count < len(self.picks):
            distance, best = nearest.max(0)
            if float(distance) < level:
                break
            self._add(int(pool[best]))
            nearest[best] = -1
            floor[best] = torch.inf
            centre = rows[best]
            close = (torch.addmv(-half_norms[best], rows, centre) >= floor).nonzero().squeeze(1)
            if len(close):
                lower = torch.minimum(nearest[close], torch.linalg.norm(rows[close] - centre, dim=1))
                nearest[close] = lower
                floor[close] = offset[close] - lower.square().mul_(0.5)
        self.nearest[pool] = nearest
        self.seen[pool] = self.count
