"""Cells of rows around means, which bound by the triangle inequality which centres can be near which rows.

For a row x of a cell with mean m, a centre c is at least |c - m| - |x - m| away. Patches of one kind of part cluster so
strongly that this leaves a few per cent of all pairs.
"""

from collections.abc import Iterator

import torch

from defectlab.kernels.partition import cell_means


class Cells:
    """Cells of `rows` (N, d) on the CPU, and how near the centres picked so far come to each.

    `of` (N,) is each row's cell, and `radius` (N,) an upper bound of its distance to the cell's mean. Of n centres the
    first `known` are measured: `low` (K, n) holds lower bounds of their distances from the means, `cell_of_centre` (n,)
    the cells that they were picked from.
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
        self.cell_of_centre = torch.empty(n_centres, dtype=torch.int64)
        self.known = 0

    def _slack(self, half_norms: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Return a bound of the rounding error of a squared distance that is computed from a product."""
        return (half_norms + others) * (8 * self.error)

    def add_centres(self, picks: torch.Tensor, centres: torch.Tensor, half_norms: torch.Tensor, count: int) -> None:
        """Compute the distance bounds of the first `count` centres that are not `known` yet to the cell means."""
        if self.known == count:
            return
        part = slice(self.known, count)
        half = torch.addmm(half_norms[part], self.means, centres[part].T, alpha=-1)  # (K, d) @ (d, new) -> (K, new)
        squares = 2 * (half + self.half_norms[:, None])
        squares -= self._slack(half_norms[part], self.half_norms[:, None])
        self.low[:, part] = squares.clamp_(min=0).sqrt_()
        self.cell_of_centre[part] = self.of[picks[part]]
        self.known = count

    def groups(self, index: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Group row indices by cell and return an iterator over pairs (cell, indices)."""
        of, order = self.of[index].sort()
        cells, sizes = torch.unique_consecutive(of, return_counts=True)
        return zip(cells.tolist(), index[order].split(sizes.tolist()), strict=True)

    def own(self, cell: int, first: int) -> torch.Tensor:
        """Return the centres, from the `first` on, that were picked from a cell's own rows."""
        return (self.cell_of_centre[first : self.known] == cell).nonzero().squeeze(1).add_(first)

    def near(self, cell: int, first: int, index: torch.Tensor, nearest: torch.Tensor) -> torch.Tensor:
        """Return the centres, from the `first` on, that may be nearer to one of a cell's rows than its `nearest`."""
        farthest = float((nearest * (1 + 4 * self.error) + self.radius[index]).max())
        return (self.low[cell, first : self.known] < farthest).nonzero().squeeze(1).add_(first)
