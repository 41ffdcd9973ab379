"""Which centres can be near which rows: groups of rows around means, and the triangle inequality.

For a row x of a cell with mean m, a centre c is at least |c - m| - |x - m| away. Patches of one kind of part cluster so
strongly that this leaves a few per cent of all pairs.
"""

from collections.abc import Iterator

import torch

from defectlab.kernels.partition import cell_means, leading_axes


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


HELD = 0.95  # share of the variance that the directions hold
MANY = 0.02  # share of pairs they may leave: each costs as much as 30 in a product
PAUSE = 1  # products without them after one that left too many


class Leading:
    """Rows (N, d) of a search on the CPU along p orthonormal directions, and those of them that became centres."""

    def __init__(self, rows: torch.Tensor, directions: torch.Tensor, n_centres: int, block: int) -> None:
        self.rows = torch.cat([part.float() @ directions for part in rows.split(block)])  # (N, d) @ (d, p) -> (N, p)
        self.half_norms = self.rows.square().sum(1).mul_(0.5)
        self.centres = torch.empty((n_centres, self.rows.shape[1]))
        self.half_centre_norms = torch.empty(n_centres)
        self.pause = 0

    def add(self, number: int, index: int) -> None:
        """Take a row as the centre of this number."""
        self.centres[number] = self.rows[index]
        self.half_centre_norms[number] = self.half_norms[index]

    def near(
        self,
        index: torch.Tensor,
        which: torch.Tensor,
        nearest: torch.Tensor,
        slack: torch.Tensor,
        products: torch.Tensor,
        flags: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Pairs (row, centre) of rows `index` (n,) and centres `which` (m,) that may be nearer than `nearest` (n,).

        None if those are too many, as while rows are far from all centres, or if so few centres are not worth it.
        `products` and `flags` (n, m) are room to work in.
        """
        if len(which) < self.rows.shape[1]:
            return None
        if self.pause:
            self.pause -= 1
            return None
        centres = self.centres[which].T
        torch.addmm(self.half_centre_norms[which], self.rows[index], centres, alpha=-1, out=products)
        limit = nearest.square().mul_(0.5) - self.half_norms[index] + 4 * slack
        row, centre = torch.le(products, limit.unsqueeze(1), out=flags).nonzero(as_tuple=True)
        if len(row) > MANY * products.numel():
            self.pause = PAUSE
            return None
        return row, centre


def leading_directions(rows: torch.Tensor) -> torch.Tensor | None:
    """Orthonormal directions (d, p) that hold nearly all the variance of `rows`; None if p is not far below d."""
    _, axes = leading_axes(rows, HELD)
    return axes if axes.shape[1] <= rows.shape[1] // 4 else None
