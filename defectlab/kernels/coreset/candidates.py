"""Filters for pairs of a row and a centre that may be closer than the row's nearest centre; none is missed."""

import torch

from defectlab.kernels.partition import leading_axes

EXPLAINED_VARIANCE = 0.95  # by the leading directions
PAUSE = 1  # products of whole rows after a short one that passed too many pairs


class PairFilter:
    """Filter of up to `size` pairs of a row x and a centre c by |c|^2 / 2 - x.c: |x - c|^2 / 2 up to a row constant.

    The buffer for these values is reused: a fresh buffer of this size costs as much in page faults as half a product.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._products = torch.empty(size, device=device)
        self._flags = torch.empty(size, dtype=torch.bool, device=device)

    def pairs(
        self,
        rows: torch.Tensor,
        centres: torch.Tensor,
        half_centre_norms: torch.Tensor,
        limit: torch.Tensor,
        above_least: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the row indices (p,) and centre indices (p,) of all pairs whose value is at most `limit` (n,).

        With `above_least` (n,), the value is also at most `above_least` higher than the smallest value of the row.
        `rows` is (n, d), `centres` (m, d), `half_centre_norms` (m,).
        """
        shape = (len(rows), len(centres))
        products, flags = (room[: shape[0] * shape[1]].view(shape) for room in (self._products, self._flags))
        torch.addmm(half_centre_norms, rows, centres.T, alpha=-1, out=products)  # (n, d) @ (d, m) -> (n, m)
        if above_least is not None:
            limit = torch.minimum(limit, products.amin(1) + above_least)
        row, centre = torch.le(products, limit.unsqueeze(1), out=flags).nonzero(as_tuple=True)
        return row, centre


class LeadingCoordinates:
    """Coordinates (N, p) of the rows of a CPU search along p orthonormal directions, and those of the centres.

    Distances of coordinates never exceed distances of whole rows, so a product of coordinates rules out most pairs; it
    passes a few more than a product of whole rows.
    """

    def __init__(self, rows: torch.Tensor, directions: torch.Tensor, n_centres: int, block: int) -> None:
        self.rows = torch.cat([part.float() @ directions for part in rows.split(block)])  # (N, d) @ (d, p) -> (N, p)
        self.half_norms = self.rows.square().sum(1).mul_(0.5)
        self.centres = torch.empty((n_centres, self.rows.shape[1]))
        self.half_centre_norms = torch.empty(n_centres)
        self.paused = 0  # products of whole rows to come

    @classmethod
    def of(cls, rows: torch.Tensor, n_centres: int, block: int) -> "LeadingCoordinates | None":
        """Build coordinates along the directions that explain `EXPLAINED_VARIANCE`; None if over a quarter."""
        _, directions = leading_axes(rows, EXPLAINED_VARIANCE)
        few = directions.shape[1] <= rows.shape[1] // 4
        return cls(rows, directions, n_centres, block) if few else None

    def add_centre(self, number: int, index: int) -> None:
        """Store the coordinates of the row at `index` as those of centre `number`."""
        self.centres[number] = self.rows[index]
        self.half_centre_norms[number] = self.half_norms[index]

    def use_for(self, centres: int) -> bool:
        """Return whether to filter by coordinates: not for few centres, nor in a pause, which this call shortens."""
        if centres < self.rows.shape[1]:
            return False
        if self.paused:
            self.paused -= 1
            return False
        return True

    def pause(self) -> None:
        """Suspend the coordinate filter for `PAUSE` products: far from all centres, coordinates pass too many pairs."""
        self.paused = PAUSE
