"""The state of one farthest-first search, see `coreset`.

Every row keeps the distance to the nearest of the centres it has seen: an upper bound. A round refreshes the rows with
the largest bounds against the centres they have missed, of which the triangle inequality leaves few, and then picks
among them while none outside can compete.
"""

import logging

import torch

from defectlab.kernels.coreset import bounds, cost
from defectlab.kernels.coreset.bounds import Leading, leading_directions
from defectlab.kernels.partition import product_error
from defectlab.utils.errors import InputError

logger = logging.getLogger(__name__)

MAX_FRONT = 65_536  # rows per round
USEFUL = 0.3  # a cell that leaves more of the pairs than this hands its rows over to the others


class Search:
    """State of one farthest-first run over `rows` (N, d), which may lie elsewhere than where `device` computes.

    `nearest[i]` is the plain distance from row i to the nearest of the first `seen[i]` picks, -1 once i is picked.
    """

    def __init__(self, rows: torch.Tensor, n_samples: int, budget: int, device: torch.device | None = None) -> None:
        n, size = rows.shape
        self.rows = rows
        self.device = rows.device if device is None else device
        self.block = cost.block_rows(size, budget)
        self.tile = cost.TILE
        self.half_norms = torch.cat([self._moved(part).square().sum(1) for part in rows.split(self.block)]).mul_(0.5)
        largest = float(self.half_norms.max())
        if not largest < 1e37:
            raise InputError(
                "The patch features hold NaN, infinity or values too large for float32. "
                "Check the backbone's weights and the images' normalisation."
            )
        error = product_error(size)
        # Bound on what rounding can do to |x - c|^2 / 2, in the product and in the plain distance together.
        self.slack = (self.half_norms + largest) * (4 * error)
        self.nearest = torch.full((n,), torch.inf, device=self.device)
        self.seen = torch.zeros(n, dtype=torch.int64, device=self.device)
        self.centres = torch.empty((n_samples, size), device=self.device)
        self.half_centre_norms = torch.empty(n_samples, device=self.device)
        self.picks = torch.empty(n_samples, dtype=torch.int64, device=self.device)
        self.count = 0
        self.front = self.block
        self.grouped = False
        self.cells: bounds.Cells | None = None
        self.leading: Leading | None = None
        count = cost.cell_count(n, n_samples, self.device)
        if count:
            self.cells = bounds.Cells(rows, self.half_norms, count, n_samples, error, self.block)
            directions = leading_directions(rows)
            self.leading = None if directions is None else Leading(rows, directions, n_samples, self.block)
        logger.debug(
            "coreset: blocks of %d rows, %d centres (%d MiB budget), %d cells",
            self.block, self.tile, budget >> 20, 0 if self.cells is None else len(self.cells.means),
        )  # fmt: skip
        # Kept for the whole run: a fresh buffer of this size costs as much in page faults as half a product.
        self.products = torch.empty(self.block * self.tile, device=self.device)
        self.flags = torch.empty(self.block * self.tile, dtype=torch.bool, device=self.device)

    def _moved(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.to(self.device, torch.float32, non_blocking=True)

    def _take(self, index: torch.Tensor) -> torch.Tensor:
        """Rows (len(index), d) in float32, where the search computes."""
        return self._moved(self.rows[index.to(self.rows.device)])

    def start(self, first: int) -> None:
        """Pick `first` and measure all rows against it."""
        self._add(first)
        for part, nearest in zip(self.rows.split(self.block), self.nearest.split(self.block), strict=True):
            nearest.copy_(torch.linalg.norm(self._moved(part) - self.centres[0], dim=1))
        self.seen += 1
        self.nearest[first] = -1

    def _add(self, index: int, row: torch.Tensor | None = None) -> None:
        self.picks[self.count] = index
        self.centres[self.count] = self._moved(self.rows[index]) if row is None else row
        self.half_centre_norms[self.count] = self.half_norms[index]
        if self.leading is not None:
            self.leading.add(self.count, index)
        self.count += 1

    def round(self) -> None:
        """Refresh the rows that could be the farthest, then pick among them while none outside can compete."""
        free = len(self.nearest) - self.count
        level = float(self.nearest.topk(min(self.front, free), sorted=False).values.min())
        if level == 0 and float(self.nearest.max()) == 0:
            self._pick_copies()
            return
        # All rows outside the pool lie strictly below the level, so that ties cannot hide there.
        pool = (self.nearest >= level).nonzero().squeeze(1)
        self._refresh(pool, level)
        pool = pool[self.nearest[pool] >= level]
        self.grouped = self.cells is not None and self.count >= cost.PICKS_PER_CELL * len(self.cells.means)
        self._adapt(len(pool))
        if len(pool) > self.block:
            level = float(self.nearest[pool].topk(self.block, sorted=False).values.min())
            pool = pool[self.nearest[pool] >= level]
        if len(pool) > 2 * self.block:
            # Ties beyond what a round may hold in memory: the first farthest row is certain, and alone.
            best = pool[self.nearest[pool].argmax()]
            self._add(int(best))
            self.nearest[best] = -1
        elif len(pool):
            self._pick_from(pool, level)

    def _adapt(self, survivors: int) -> None:
        """Choose the next round's size: in cells large ones cost little, up to as many rows as a pick may sweep."""
        if not self.grouped:
            self.front = self.block
            return
        factor = min(2.0, max(0.5, self.block / max(1, survivors)))
        self.front = int(min(MAX_FRONT, max(self.block, self.front * factor)))

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
        if self.grouped:
            stale = self._refresh_cells(stale, level)
        stale = stale[self.seen[stale].argsort()]
        for chunk in stale.split(self.block) if len(stale) else ():
            self._follow(chunk, torch.arange(int(self.seen[chunk[0]]), self.count, device=self.device), level)

    def _refresh_cells(self, stale: torch.Tensor, level: float) -> torch.Tensor:
        """Show rows first the centres of their own cell, then those that may be near; returns rows with too many."""
        assert self.cells is not None
        self.cells.measure(self.picks, self.centres, self.half_centre_norms, self.count)
        rest = [stale[:0]]
        for cell, group in self.cells.groups(stale):
            for chunk in group.split(self.block):
                first = int(self.seen[chunk].min())
                own = self.cells.own(cell, first)
                index = chunk
                for some in own.split(self.tile):
                    self._lower(index, self._take(index), some)
                    index = index[self.nearest[index] >= level]
                if not len(index):
                    continue
                first = int(self.seen[index].min())
                near = self.cells.near(cell, first, index, self.nearest[index])
                if len(near) > USEFUL * (self.count - first):
                    rest.append(index)
                elif len(near):
                    self._follow(index, near, level)
                else:
                    self.seen[index] = self.count
        return torch.cat(rest)

    def _follow(self, index: torch.Tensor, centres: torch.Tensor, level: float) -> None:
        """Show rows the centres that could be near them, in the order picked, until they fall below the level."""
        rows = self._take(index)
        # A row that has already seen some of these centres meets them again: its minimum stays.
        for begin in range(0, len(centres), self.tile):
            some = centres[begin : begin + self.tile]
            self._lower(index, rows, some)
            if begin + self.tile >= len(centres):
                break
            self.seen[index] = int(some[-1]) + 1
            kept = self.nearest[index] >= level
            if not bool(kept.all()):
                index, rows = index[kept], rows[kept]
            if not len(index):
                return
        self.seen[index] = self.count

    def _lower(self, index: torch.Tensor, rows: torch.Tensor, which: torch.Tensor) -> None:
        """Lower `nearest[index]` by the plain distances to centres."""
        if not len(index) or not len(which):
            return
        shape = (len(index), len(which))
        half = self.products[: shape[0] * shape[1]].view(shape)
        flags = self.flags[: half.numel()].view(shape)
        nearest, slack, centres = self.nearest[index], self.slack[index], self.centres[which]
        close = None if self.leading is None else self.leading.near(index, which, nearest, slack, half, flags)
        if close is None:
            # |c|^2/2 - x.c is |x - c|^2 / 2 up to a constant of the row.
            torch.addmm(self.half_centre_norms[which], rows, centres.T, alpha=-1, out=half)  # (n, d) @ (d, m) -> (n, m)
            limit = nearest.square().mul_(0.5) - self.half_norms[index] + slack
            limit = torch.minimum(limit, half.amin(1) + 2 * slack).unsqueeze(1)
            row, centre = torch.le(half, limit, out=flags).nonzero(as_tuple=True)
        else:
            row, centre = close
        for part, other in zip(row.split(self.block), centre.split(self.block), strict=True):
            distance = torch.linalg.norm(rows[part] - centres[other], dim=1)
            self.nearest.scatter_reduce_(0, index[part], distance, "amin")

    def _pick_from(self, pool: torch.Tensor, level: float) -> None:
        """Pick the farthest of the pool, all of whose distances are current, while it reaches the level."""
        rows, nearest = self._take(pool), self.nearest[pool]
        # A centre lowers a row only if x.c - |c|^2/2 is at least the floor, along the leading directions as well.
        if self.leading is None or self.leading.pause:
            vectors, half_norms, offset = rows, self.half_norms[pool], self.half_norms[pool] - self.slack[pool]
        else:
            vectors, half_norms = self.leading.rows[pool], self.leading.half_norms[pool]
            offset = half_norms - 4 * self.slack[pool]
        floor = offset - nearest.square().mul_(0.5)
        while self.count < len(self.picks):
            distance, best = nearest.max(0)
            if float(distance) < level:
                break
            nearest[best] = -1
            floor[best] = torch.inf
            centre = rows[best]
            self._add(int(pool[best]), centre)
            close = (torch.addmv(-half_norms[best], vectors, vectors[best]) >= floor).nonzero().squeeze(1)
            if len(close):
                lower = torch.minimum(nearest[close], torch.linalg.norm(rows[close] - centre, dim=1))
                nearest[close] = lower
                floor[close] = offset[close] - lower.square().mul_(0.5)
        self.nearest[pool] = nearest
        self.seen[pool] = self.count
