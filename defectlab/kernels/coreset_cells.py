"""Which centres can be near which rows: groups of rows around means, and the triangle inequality.

For a row x of a cell with mean m, a centre c is at least |c - m| - |x - m| away. Patches of one kind of part cluster so
strongly that this leaves a few per cent of all pairs.
"""

from collections.abc import Iterator

import torch

from defectlab.kernels.means import cell_means


class Cells:
    """Cells of `rows` (N, d) on the CPU, and how near the centres found so far come to each.

    `of` (N,) is each row's cell, `radius` (N,) an upper bound of its distance to the cell's mean; `low` (K, n) holds
    lower bounds of the distances from the means to the first `known` of n centres.
    """

    def __init__(
        self, rows: torch.Tensor, half_norms: torch.Tensor, count: int, n_centres: int, error: float, block: int
    ) -> None:
        self.error = error
        self.means = cell_means(rows, count)
        self.half_norms = self.means.square().sum(1).mul_(0.5)
        self.of = torch.empty(len(rows), dtype=torch.int64)
        self.radius = torch.empty(len(rows))
        for begin in range(0, len(rows), block):
            part = slice(begin, begin + block)
            half = torch.addmm(self.half_norms, rows[part].float(), self.means.T, alpha=-1)  # (b, K)
            smallest, self.of[part] = half.min(1)
            squares = 2 * (smallest + half_norms[part]) + self._slack(half_norms[part], self.half_norms.max())
            self.radius[part] = squares.clamp_(min=0).sqrt_()
        self.low = torch.empty(count, n_centres)
        self.centre_of = torch.empty(n_centres, dtype=torch.int64)
        self.known = 0

    def _slack(self, half: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Bound on what rounding does to a squared distance taken from a product."""
        return (half + other) * (8 * self.error)

    def measure(self, picks: torch.Tensor, centres: torch.Tensor, half_norms: torch.Tensor, count: int) -> None:
        """Measure the centres known..count, which are the rows `picks`, against the means."""
        if self.known == count:
            return
        part = slice(self.known, count)
        half = torch.addmm(half_norms[part], self.means, centres[part].T, alpha=-1)  # (K, d) @ (d, new) -> (K, new)
        squares = 2 * (half + self.half_norms[:, None])
        squares -= self._slack(half_norms[part], self.half_norms[:, None])
        self.low[:, part] = squares.clamp_(min=0).sqrt_()
        self.centre_of[part] = self.of[picks[part]]
        self.known = count

    def groups(self, stale: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Split rows by cell: (cell, row indices)."""
        of, order = self.of[stale].sort()
        cells, sizes = torch.unique_consecutive(of, return_counts=True)
        return zip(cells.tolist(), stale[order].split(sizes.tolist()), strict=True)

    def own(self, cell: int, first: int) -> torch.Tensor:
        """Centres picked from a cell's own rows, from the `first` on."""
        return (self.centre_of[first : self.known] == cell).nonzero().squeeze(1).add_(first)

    def near(self, cell: int, first: int, rows: torch.Tensor, nearest: torch.Tensor) -> torch.Tensor:
        """Centres, from the `first` on, that may be nearer to one of a cell's `rows` than its `nearest` so far."""
        reach = float((nearest * (1 + 4 * self.error) + self.radius[rows]).max())
        return (self.low[cell, first : self.known] < reach).nonzero().squeeze(1).add_(first)
