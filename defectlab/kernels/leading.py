"""Lower bounds of distances from a few leading coordinates: a filter that never loses a near pair.

Rows are centred and turned into the principal axes of a sample. The first `kept` coordinates stay; the length of the
rest becomes one more. For two rows, |x_rest - y_rest| is at least ||x_rest| - |y_rest||, so the distance of two such
short rows never exceeds the distance of the rows themselves. Patch features have most of their spread in few
directions: a product of the short rows costs a third, and what it cannot exclude is measured in full.
"""

import torch

SAMPLE = 20_000  # rows from which the axes are found
REST = 0.03  # share of the spread that may lie outside the coordinates kept
STEP = 16
GROUP = 64  # columns whose smallest value is looked at first


def product_error(size: int) -> float:
    """Bound of |computed x.c - true x.c| / (|x| |c|) for vectors of `size` float32 numbers.

    Lightning users lower the precision of products (TF32, bfloat16): the filter then widens instead of failing.
    """
    inputs = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}[torch.get_float32_matmul_precision()]
    if torch.backends.cuda.matmul.allow_tf32:
        inputs = max(inputs, 2.0**-10)
    return inputs + (size + 4) * 2.0**-24


class Leading:
    """Axes of a sample of rows (N, D), and short rows (n, kept + 1) in them; rows of no clear axes stay whole.

    For short rows x and y, |x - y|^2 / 2 is at most |X - Y|^2 / 2 + `slack`, the slack being what rounding can do.
    """

    def __init__(self, rows: torch.Tensor) -> None:
        size = rows.shape[1]
        step = -(-len(rows) // SAMPLE)
        sample = rows[::step].double()
        self.mean = sample.mean(0)  # (D,)
        spread, axes = torch.linalg.eigh((sample - self.mean).T @ (sample - self.mean))
        spread, axes = spread.flip(0).clamp(min=0), axes.flip(1)
        enough = int((spread.cumsum(0) < (1 - REST) * spread.sum()).sum()) + 1
        self.kept = -(-enough // STEP) * STEP
        self.mean, self.axes = self.mean.to(rows.dtype), axes.to(rows.dtype)
        if 2 * self.kept > size:
            self.kept, self.axes = size, axes.new_empty((size, 0), dtype=rows.dtype)
        self._error = 8 * product_error(size)

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the short rows: (n, D) -> (n, kept + 1), or the centred rows (n, D) where nothing can be left out."""
        centred = rows - self.mean
        if not self.axes.shape[1]:
            return centred
        turned = centred @ self.axes  # (n, D) @ (D, D)
        return torch.cat([turned[:, : self.kept], torch.linalg.norm(turned[:, self.kept :], dim=1, keepdim=True)], 1)

    def slack(self, half_norms: torch.Tensor, largest: float) -> torch.Tensor:
        """Bound of the rounding in |x - y|^2 / 2, (n,), from |x|^2 / 2 (n,) and the largest |y|^2 / 2 of short rows.

        Centring rounds to the digits of the rows as they are, and so counts their mean.
        """
        mean = 0.5 * float(self.mean.double().square().sum())
        return (half_norms + largest) * self._error + 2.0**-20 * (mean * (half_norms + largest)).sqrt()


def group_minima(values: torch.Tensor) -> torch.Tensor:
    """Smallest of every `GROUP` neighbouring columns: (n, t) -> (n, t / GROUP); t must be divisible by `GROUP`."""
    n, t = values.shape
    return values.view(n, t // GROUP, GROUP).amin(2)


def places_of(minima: torch.Tensor, values: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
    """Column of the smallest value of some rows (m,), or of each; `minima` are those of the values (n, t).

    torch finds a minimum many times faster than its place on CPU: so only the best group of each row is looked through.
    """
    n, groups = minima.shape
    rows = torch.arange(n, device=values.device) if rows is None else rows
    group = minima[rows].argmin(1)  # (m,)
    inside = values.view(n, groups, GROUP)[rows, group]  # (m, GROUP)
    return group * GROUP + inside.argmin(1)


def pairs_below(minima: torch.Tensor, values: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of the values (n, t) that are at most `limit` (n,): two (p,), in the order of the rows."""
    n, groups = minima.shape
    row, group = (minima <= limit.unsqueeze(1)).nonzero(as_tuple=True)
    inside = values.view(n, groups, GROUP)[row, group]  # (m, GROUP)
    hit, member = (inside <= limit[row].unsqueeze(1)).nonzero(as_tuple=True)
    return row[hit], group[hit] * GROUP + member
