"""Pairs of rows and centres that may be nearer than the nearest so far, found by one product that loses none."""

import torch

from defectlab.kernels.partition import leading_axes

EXPLAINED_VARIANCE = 0.95  # by the leading directions
PAUSE = 1  # products of whole rows after a short one that passed too many pairs


class PairFilter:
    """|c|^2 / 2 - x.c of up to `size` pairs of a row x and a centre c: |x - c|^2 / 2 up to a constant of the row.

    The room for them is kept: a fresh buffer of this size costs as much in page faults as half a product.
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
        """Return the places (p,) of the row and (p,) of the centre of all pairs whose value is at most `limit` (n,).

        With `above_least` (n,), the value is also at most so much above the row's least one. `rows` is (n, d),
        `centres` (m, d), `half_centre_norms` (m,).
        """
        shape = (len(rows), len(centres))
        products, flags = (room[: shape[0] * shape[1]].view(shape) for room in (self._products, self._flags))
        torch.addmm(half_centre_norms, rows, centres.T, alpha=-1, out=products)  # (n, d) @ (d, m) -> (n, m)
        if above_least is not None:
            limit = torch.minimum(limit, products.amin(1) + above_least)
        row, centre = torch.le(products, limit.unsqueeze(1), out=flags).nonzero(as_tuple=True)
        return row, centre


class LeadingCoordinates:
    """Rows (N, p) of a search on the CPU along p orthonormal directions, and those of them that became centres.

    Along these two vectors are at most as far apart as they are: a short product rules out most pairs, and passes a few
    more than one of whole rows.
    """

    def __init__(self, rows: torch.Tensor, directions: torch.Tensor, n_centres: int, block: int) -> None:
        self.rows = torch.cat([part.float() @ directions for part in rows.split(block)])  # (N, d) @ (d, p) -> (N, p)
        self.half_norms = self.rows.square().sum(1).mul_(0.5)
        self.centres = torch.empty((n_centres, self.rows.shape[1]))
        self.half_centre_norms = torch.empty(n_centres)
        self.paused = 0  # products of whole rows to come

    @classmethod
    def of(cls, rows: torch.Tensor, n_centres: int, block: int) -> "LeadingCoordinates | None":
        """Return the coordinates along the directions that explain nearly all variance; None if those are many."""
        _, directions = leading_axes(rows, EXPLAINED_VARIANCE)
        few = directions.shape[1] <= rows.shape[1] // 4
        return cls(rows, directions, n_centres, block) if few else None

    def add_centre(self, number: int, index: int) -> None:
        """Take the row at `index` as centre `number`."""
        self.centres[number] = self.rows[index]
        self.half_centre_norms[number] = self.half_norms[index]

    def use_for(self, centres: int) -> bool:
        """Whether to filter by the short product: not for few centres, nor in a pause, which is then one shorter."""
        if centres < self.rows.shape[1]:
            return False
        if self.paused:
            self.paused -= 1
            return False
        return True

    def pause(self) -> None:
        """Filter by products of whole rows for a while: as long as rows are far from all centres, short ones pass."""
        self.paused = PAUSE
