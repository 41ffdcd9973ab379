"""Which centres can be near which rows: distances along a few directions are lower bounds, at a sixth of the work."""

import torch

from defectlab.kernels.leading import leading_axes

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
