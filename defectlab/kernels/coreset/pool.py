"""A pool of rows with known distances, from which the farthest rows are picked one after another."""

import torch


class Pool:
    """Rows (n, d) with their distances `nearest` (n,) to the nearest of all centres; those of picked rows are -1.

    A product of `vectors` rules out most rows that a pick does not bring nearer: `vectors` (n, p) are the rows or their
    coordinates along some orthonormal directions, `half_norms` (n,) half their squared norms, `slack` (n,) a bound of
    the rounding. A centre c can lower the distance of row x only if x.c - |c|^2 / 2 >= |x|^2 / 2 - slack - nearest^2
    / 2, which is kept in `_floor`.
    """

    def __init__(
        self,
        rows: torch.Tensor,
        nearest: torch.Tensor,
        vectors: torch.Tensor,
        half_norms: torch.Tensor,
        slack: torch.Tensor,
    ) -> None:
        self.nearest = nearest
        self._rows = rows
        self._vectors = vectors
        self._half_norms = half_norms
        self._offset = half_norms - slack
        self._floor = self._offset - nearest.square().mul_(0.5)

    def pick(self, level: float) -> int | None:
        """Pick the farthest row, the first among equals, and lower the others' distances; None if it is below `level`.

        Returns its place (0 to n - 1).
        """
        distance, best = self.nearest.max(0)
        if float(distance) < level:
            return None
        place = int(best)
        self.nearest[place] = -1
        self._floor[place] = torch.inf
        products = torch.addmv(-self._half_norms[place], self._vectors, self._vectors[place])
        close = (products >= self._floor).nonzero().squeeze(1)
        if len(close):
            distances = torch.linalg.norm(self._rows[close] - self._rows[place], dim=1)
            lowered = torch.minimum(self.nearest[close], distances)
            self.nearest[close] = lowered
            self._floor[close] = self._offset[close] - lowered.square().mul_(0.5)
        return place
