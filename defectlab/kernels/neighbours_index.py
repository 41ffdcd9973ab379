"""An index of a memory bank for many exact nearest-neighbour searches on the CPU.

Rows lie in cells around means. A query at distance r from a mean is at least r less the cell's radius away from every
row of the cell: patches of one kind of part cluster so strongly that this leaves about a tenth of all pairs. Of those,
products of coordinates along a few principal axes (`kernels.partition`) rule out all but a few, which are measured in
full.
"""

import torch

from defectlab.kernels.linalg import over_chunks
from defectlab.kernels.neighbours import check_search, nearest_neighbours, squared_norms
from defectlab.kernels.partition import cell_means, leading_axes, product_error

EXPLAINED_VARIANCE = 0.98  # by the principal axes of short rows
ROWS_PER_CELL = 128
MIN_ROWS = 2048  # of a bank, from which an index saves more than it costs
BUDGET = 64 * 2**20  # bytes of working memory
MAX_PAIRS = 2**16  # collected before they are measured
BATCH_SIZE = 1024  # pairs measured at once
MIN_QUERIES = 2048  # in a thread: each visits every cell, and the interpreter lets one thread in at a time


class NeighboursIndex:
    """Index of a memory bank (M, D), float32 on the CPU, which must not be changed while the index is in use.

    `nearest` returns the nearest row by the norm of the difference itself, among equals the lowest index, whatever the
    batch, the cells and the axes. `neighbours_of_rows` searches for the neighbours of each of the bank's own rows once.
    """

    def __init__(self, bank: torch.Tensor) -> None:
        check_search(bank, bank, 1)
        self.bank = bank
        distinct, first = _distinct(bank)
        self._mean, axes = leading_axes(distinct, EXPLAINED_VARIANCE)
        # Turning a row costs as much as what it saves unless it comes out clearly shorter.
        self._axes = axes if 3 * axes.shape[1] <= 2 * axes.shape[0] else None
        short, half_norms = self._shortened(distinct)
        self._largest = float(half_norms.max())
        means = cell_means(short, max(1, len(short) // ROWS_PER_CELL))
        cell = torch.addmm(means.square().sum(1).mul_(0.5), short, means.T, alpha=-1).argmin(1)
        order = cell.sort(stable=True).indices
        counts = torch.bincount(cell, minlength=len(means))
        self._means, sizes = means[counts > 0], counts[counts > 0].tolist()
        self._half_mean_norms = self._means.square().sum(1).mul_(0.5)
        self._index = first[order].split(sizes)
        cells = short[order].split(sizes)
        self._short = [rows.T.contiguous() for rows in cells]  # (d, m) each
        self._half_norms = [rows.square().sum(1).mul_(0.5) for rows in cells]
        radii = [torch.linalg.norm(rows - mean, dim=1).max() for rows, mean in zip(cells, self._means, strict=True)]
        self._radius = torch.stack(radii).mul_(1 + 2.0**-16)
        self._neighbours: torch.Tensor | None = None
        self._norms: torch.Tensor | None = None

    @staticmethod
    def is_worthwhile(bank: torch.Tensor) -> bool:
        """Return whether an index saves time: for a float32 bank on the CPU with at least `MIN_ROWS` rows."""
        return bank.device.type == "cpu" and bank.dtype == torch.float32 and len(bank) >= MIN_ROWS

    @torch.no_grad()
    def nearest(self, queries: torch.Tensor, *, memory_budget: int = BUDGET) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the distance to, and the index of, the nearest row of the bank for each query: (Q, D) -> (Q,), (Q,).

        NaN in gives NaN out.
        """
        check_search(queries, self.bank, 1)
        # A query at NaN or infinity passes no comparison: it keeps this first measure.
        distances = torch.linalg.norm(queries - self.bank[0], dim=1)
        indices = torch.zeros(len(queries), dtype=torch.int64)
        threads = torch.get_num_threads()
        per_query = 4 * (2 * queries.shape[1] + len(self._radius) * 4) * threads
        block = min(max(1, memory_budget // per_query), max(MIN_QUERIES, -(-len(queries) // threads)))

        def search(part: slice) -> None:
            _Search(self, queries[part], distances[part], indices[part]).run()

        over_chunks(search, len(queries), block, queries.device)
        return distances, indices

    @torch.no_grad()
    def neighbours_of_rows(self, rows: torch.Tensor, k: int) -> torch.Tensor:
        """Return the `k` bank rows nearest to each given bank row, including itself: (n,) -> (n, min(k, M)).

        Results are cached; a row is searched for again only for a larger `k` than before.
        """
        k = min(k, len(self.bank))
        with torch.inference_mode(False):  # what is kept must be open to writing later
            if self._norms is None:
                self._norms = squared_norms(self.bank)
            if self._neighbours is None or self._neighbours.shape[1] < k:
                self._neighbours = torch.full((len(self.bank), k), -1)
        missing = rows[self._neighbours[rows, 0] < 0].unique()
        if len(missing):
            most = self._neighbours.shape[1]
            self._neighbours[missing] = nearest_neighbours(self.bank[missing], self.bank, most, bank_norms=self._norms)[
                1
            ]
        return self._neighbours[rows, :k]

    def _shortened(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return centred rows along the axes (n, d), and half the squared norms (n,) of the full centred rows."""
        centred = rows - self._mean
        half_norms = torch.linalg.vector_norm(centred, dim=1).square_().mul_(0.5)
        return (centred if self._axes is None else centred @ self._axes), half_norms

    def _slack(self, half_norms: torch.Tensor) -> torch.Tensor:
        """Return bounds (n,) of rounding errors of |x - y|^2 / 2 of short rows and of the full distance combined."""
        return (half_norms + self._largest) * (8 * product_error(self.bank.shape[1]))


class _Search:
    """Search for a block of queries (q, D): `distances` and `indices` (q,) of the best rows so far change in place."""

    def __init__(
        self, bank: NeighboursIndex, queries: torch.Tensor, distances: torch.Tensor, indices: torch.Tensor
    ) -> None:
        self.index = bank
        self.queries = queries
        self.distances = distances
        self.indices = indices
        self.short, full = bank._shortened(queries)
        self.slack = bank._slack(full)
        self.half_norms = self.short.square().sum(1).mul_(0.5)

    def run(self) -> None:
        """Run the search: set `distances` and `indices` in place to those of the nearest rows."""
        # |x - m|^2 / 2 - |x|^2 / 2 of queries and means: (C, d) @ (d, q) -> (C, q)
        half = torch.addmm(self.index._half_mean_norms.unsqueeze(1), self.index._means, self.short.T, alpha=-1)
        self._own_cells(half.argmin(0))
        low = half.add_(self.half_norms - self.slack).mul_(2).clamp_(min=0).sqrt_()
        low -= self.index._radius.unsqueeze(1)
        self._near_cells(low)

    def _own_cells(self, own: torch.Tensor) -> None:
        """Measure each query's row of the smallest bound in the cell with the nearest mean."""
        order = own.sort(stable=True).indices
        sizes = torch.bincount(own, minlength=len(self.index._radius)).tolist()
        best = [
            self.index._index[cell][self._bounds(cell, queries).argmin(1)]
            for cell, queries in enumerate(order.split(sizes))
            if len(queries)
        ]
        if best:
            self._measure(order, torch.cat(best))

    def _near_cells(self, low: torch.Tensor) -> None:
        """Measure all rows that may be as near as the best so far; `low` (C, q) bounds distances to a cell's rows."""
        limit = self._limit()
        cell, query = (low <= (limit + self.half_norms).mul_(2).clamp_(min=0).sqrt_()).nonzero(as_tuple=True)
        sizes = torch.bincount(cell, minlength=len(low)).tolist()
        rows, places, waiting = [query[:0]], [query[:0]], 0
        for number, queries in enumerate(query.split(sizes)):
            if not len(queries):
                continue
            close = self._bounds(number, queries) <= limit.index_select(0, queries).unsqueeze(1)
            row, place = close.nonzero(as_tuple=True)
            rows.append(queries[row])
            places.append(self.index._index[number][place])
            waiting += len(row)
            if waiting > MAX_PAIRS:
                self._measure(torch.cat(rows), torch.cat(places))
                rows, places, waiting, limit = [query[:0]], [query[:0]], 0, self._limit()
        self._measure(torch.cat(rows), torch.cat(places))

    def _bounds(self, cell: int, queries: torch.Tensor) -> torch.Tensor:
        """Return |x - y|^2 / 2 - |x|^2 / 2 of some short queries (n,) and all short rows of a cell: (n, m)."""
        short = self.short.index_select(0, queries)
        return torch.addmm(self.index._half_norms[cell], short, self.index._short[cell], alpha=-1)

    def _limit(self) -> torch.Tensor:
        """Return the limits (q,) that the `_bounds` of rows at most as far as the best so far do not exceed."""
        return self.distances.square().mul_(0.5).add_(self.slack).sub_(self.half_norms)

    def _measure(self, row: torch.Tensor, place: torch.Tensor) -> None:
        """Measure pairs (p,) of queries and bank rows in full, and keep the nearer, among equals the lowest index."""
        for part, other in zip(row.split(BATCH_SIZE), place.split(BATCH_SIZE), strict=True):
            difference = self.queries.index_select(0, part).sub_(self.index.bank.index_select(0, other))
            found = torch.linalg.norm(difference, dim=1)
            nearer = part[found < self.distances.index_select(0, part)]
            self.distances.scatter_reduce_(0, part, found, "amin")
            self.indices[nearer] = len(self.index.bank)
            equal = found == self.distances.index_select(0, part)
            self.indices.scatter_reduce_(0, part[equal], other[equal], "amin")


def _distinct(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distinct rows (m, D) and the lowest index (m,) of each, so that copies are not measured."""
    distinct, inverse = rows.unique(dim=0, return_inverse=True)
    if len(distinct) == len(rows):
        return rows, torch.arange(len(rows))
    first = torch.full((len(distinct),), len(rows)).scatter_reduce_(0, inverse, torch.arange(len(rows)), "amin")
    return distinct, first
