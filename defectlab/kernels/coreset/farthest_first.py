"""Farthest-first search in which a row is measured against most centres only when it could be the next pick.

Every row keeps an upper bound of its distance to the nearest centre. A round refreshes the rows with the largest
bounds against the centres that they have missed, of which the triangle inequality leaves few, and then picks among
them while no row outside can compete.
"""

import logging

import torch

from defectlab.kernels.coreset import cost
from defectlab.kernels.coreset.candidates import LeadingCoordinates, PairFilter
from defectlab.kernels.coreset.cells import Cells
from defectlab.kernels.coreset.pool import Pool
from defectlab.kernels.partition import product_error
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

MAX_FRONT = 65_536  # rows per round
MAX_NEAR_SHARE = 0.3  # of the centres, above which a cell's rows are measured together with all others
MAX_PAIR_SHARE = 0.02  # of pairs that a product of leading coordinates may pass: each costs as much as 30 in a product


class CoresetSearch:
    """One farthest-first run over `rows` (N, d), which may lie on another device than the one that computes.

    What holds between two rounds, for every row i and the `count` centres picked so far:

    - `nearest[i]` is at least the plain distance to the nearest of all centres, and at most that to the nearest of the
      first `seen[i]` centres: with `seen[i] == count` it is the distance itself, else an upper bound.
    - A picked row has `nearest[i] == -1`. It is never measured again.
    - `picks[:count]`, `centres[:count]` and `half_centre_norms[:count]` are the indices, the rows and half the squared
      norms of the centres, in the order picked.
    """

    def __init__(self, rows: torch.Tensor, n_samples: int, budget: int, device: torch.device | None = None) -> None:
        n, size = rows.shape
        self.rows = rows
        self.device = rows.device if device is None else device
        self.block = cost.block_rows(size, budget)
        self.tile = cost.TILE
        self.half_norms = torch.cat([self._load(part).square().sum(1) for part in rows.split(self.block)]).mul_(0.5)
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
        self.front = self.block  # rows that the next round looks at
        self.cells: Cells | None = None
        self.leading: LeadingCoordinates | None = None
        cells = cost.cell_count(n, n_samples, self.device)
        if cells:
            self.cells = Cells(rows, self.half_norms, cells, n_samples, error, self.block)
            self.leading = LeadingCoordinates.of(rows, n_samples, self.block)
        logger.debug("coreset: blocks of %d rows (%d MiB budget), %d cells", self.block, budget >> 20, cells)
        self.filter = PairFilter(self.block * self.tile, self.device)

    def _load(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.to(self.device, torch.float32, non_blocking=True)

    def _load_rows(self, index: torch.Tensor) -> torch.Tensor:
        """Return the rows (n, d) of an index (n,) in float32 on the computing device."""
        return self._load(self.rows[index.to(self.rows.device)])

    def start(self, first: int) -> None:
        """Pick row `first` and measure the distances of all rows to that row."""
        self._add_centre(first, self._load(self.rows[first]))
        for part, nearest in zip(self.rows.split(self.block), self.nearest.split(self.block), strict=True):
            nearest.copy_(torch.linalg.norm(self._load(part) - self.centres[0], dim=1))
        self.seen += 1
        self.nearest[first] = -1

    def _add_centre(self, index: int, row: torch.Tensor) -> None:
        self.picks[self.count] = index
        self.centres[self.count] = row
        self.half_centre_norms[self.count] = self.half_norms[index]
        if self.leading is not None:
            self.leading.add_centre(self.count, index)
        self.count += 1

    def round(self) -> None:
        """Refresh the rows that could be the farthest, then pick among them while no other row can compete.

        `level` separates the rows in the round (bounds of at least `level`) from all others: while the farthest row
        reaches it, no row outside the round can be farther or tie.
        """
        left = len(self.nearest) - self.count
        level = float(self.nearest.topk(min(self.front, left), sorted=False).values.min())
        if level == 0 and float(self.nearest.max()) == 0:
            self._pick_copies()
            return
        by_cell = self.cells is not None and self.count >= cost.PICKS_PER_CELL * len(self.cells.means)
        index = (self.nearest >= level).nonzero().squeeze(1)
        self._refresh(index, level, by_cell)
        index = index[self.nearest[index] >= level]
        self.front = self._next_front(len(index)) if by_cell else self.block
        if len(index) > self.block:
            level = float(self.nearest[index].topk(self.block, sorted=False).values.min())
            index = index[self.nearest[index] >= level]
        if len(index) > 2 * self.block:
            self._pick_first(index)
        elif len(index):
            self._pick_from(index, level)

    def _next_front(self, survivors: int) -> int:
        """Return how many rows the next round examines, so that about one block of candidates remains after it."""
        factor = min(2.0, max(0.5, self.block / max(1, survivors)))
        return int(min(MAX_FRONT, max(self.block, self.front * factor)))

    def _pick_copies(self) -> None:
        """Pick the remaining rows in the order of their indices, as each equals a centre."""
        rest = (self.nearest >= 0).nonzero().squeeze(1)[: len(self.picks) - self.count]
        self.picks[self.count :] = rest
        self.count = len(self.picks)

    def _pick_first(self, index: torch.Tensor) -> None:
        """Pick only the first of the farthest rows, where more rows tie than a round may hold in memory."""
        best = index[self.nearest[index].argmax()]
        self._add_centre(int(best), self._load(self.rows[best.to(self.rows.device)]))
        self.nearest[best] = -1

    def _pick_from(self, index: torch.Tensor, level: float) -> None:
        """Pick the farthest of the rows at `index` (with current distances) repeatedly, while it reaches the level."""
        rows, slack = self._load_rows(index), self.slack[index]
        if self.leading is None or self.leading.paused:
            pool = Pool(rows, self.nearest[index], rows, self.half_norms[index], slack)
        else:
            leading = self.leading.rows[index]
            pool = Pool(rows, self.nearest[index], leading, self.leading.half_norms[index], 4 * slack)
        while self.count < len(self.picks):
            place = pool.pick(level)
            if place is None:
                break
            self._add_centre(int(index[place]), rows[place])
        self.nearest[index] = pool.nearest
        self.seen[index] = self.count

    def _refresh(self, index: torch.Tensor, level: float, by_cell: bool) -> None:
        """Measure rows against the centres that they have missed, until all are seen or a bound is below `level`."""
        stale = index[self.seen[index] < self.count]
        if by_cell and len(stale):
            stale = self._refresh_by_cell(stale, level)
        if len(stale):
            stale = stale[self.seen[stale].argsort()]
            for chunk in stale.split(self.block):
                self._catch_up(chunk, torch.arange(int(self.seen[chunk[0]]), self.count, device=self.device), level)

    def _refresh_by_cell(self, stale: torch.Tensor, level: float) -> torch.Tensor:
        """Measure rows against the centres in their own cell, then against those that may be near to it.

        Returns the rows for which the triangle inequality rules out too few centres.
        """
        assert self.cells is not None
        self.cells.add_centres(self.picks, self.centres, self.half_centre_norms, self.count)
        rest = [stale[:0]]
        for cell, group in self.cells.groups(stale):
            for index in group.split(self.block):
                own = self.cells.own(cell, int(self.seen[index].min()))
                for some in own.split(self.tile):
                    self._measure(index, self._load_rows(index), some)
                    index = index[self.nearest[index] >= level]
                if not len(index):
                    continue
                first = int(self.seen[index].min())
                near = self.cells.near(cell, first, index, self.nearest[index])
                if len(near) > MAX_NEAR_SHARE * (self.count - first):
                    rest.append(index)
                elif len(near):
                    self._catch_up(index, near, level)
                else:
                    self.seen[index] = self.count
        return torch.cat(rest)

    def _catch_up(self, index: torch.Tensor, centres: torch.Tensor, level: float) -> None:
        """Measure rows against `centres`, the only ones that may lower their bounds, in the order picked.

        Rows whose bound falls below the level stop there. A row that has seen some of the centres meets them again.
        """
        rows = self._load_rows(index)
        for begin in range(0, len(centres), self.tile):
            some = centres[begin : begin + self.tile]
            self._measure(index, rows, some)
            if begin + self.tile >= len(centres):
                break
            self.seen[index] = int(some[-1]) + 1
            above = self.nearest[index] >= level
            if not bool(above.all()):
                index, rows = index[above], rows[above]
        self.seen[index] = self.count

    def _measure(self, index: torch.Tensor, rows: torch.Tensor, centres: torch.Tensor) -> None:
        """Lower the bounds of `rows` (n, d) at `index` (n,) by the plain distances to `centres` (m,)."""
        if not len(index) or not len(centres):
            return
        slack, half_squares = self.slack[index], self.nearest[index].square().mul_(0.5)
        pairs = None
        if self.leading is not None and self.leading.use_for(len(centres)):
            short, norms = self.leading.centres[centres], self.leading.half_centre_norms[centres]
            limit = half_squares - self.leading.half_norms[index] + 4 * slack
            pairs = self.filter.pairs(self.leading.rows[index], short, norms, limit)
            if len(pairs[0]) > MAX_PAIR_SHARE * len(index) * len(centres):
                self.leading.pause()
                pairs = None
        vectors = self.centres[centres]
        if pairs is None:
            limit = half_squares - self.half_norms[index] + slack
            pairs = self.filter.pairs(rows, vectors, self.half_centre_norms[centres], limit, above_least=2 * slack)
        for row, centre in zip(*(each.split(self.block) for each in pairs), strict=True):
            distance = torch.linalg.norm(rows[row] - vectors[centre], dim=1)
            self.nearest.scatter_reduce_(0, index[row], distance, "amin")
