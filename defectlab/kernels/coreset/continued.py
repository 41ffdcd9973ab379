"""A coreset that goes on from centres that are there: farthest-first picks among new rows."""

from collections.abc import Callable

import torch

from defectlab.kernels.neighbours import nearest_neighbours


def continue_greedy(
    rows: torch.Tensor,
    centres: torch.Tensor,
    n_samples: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[torch.Tensor, float]:
    """Return which of new rows (N, C) join the centres (M, C), in the order picked, and the new rows' covering radius.

    Each pick is the row that is farthest from all centres and picks. The radius is the distance of the farthest row
    from the nearest of centres and picks: at most twice what any `n_samples` centres among the new rows could reach,
    since the picks and the farthest row lie at least so far apart (Gonzalez, 1985). Rows that the old centres were
    picked from lie as near as before. So for any query the distance to the nearest centre or pick differs from that to
    the nearest of all rows, old and new, by at most the larger of the two radii; and from that to a coreset of all rows
    picked anew by at most the largest of these two and its own radius.
    """
    rows = rows.float()
    nearest = nearest_neighbours(rows, centres.float(), 1)[0].squeeze(1)
    picks = torch.empty(n_samples, dtype=torch.int64)
    for number in range(n_samples):
        pick = int(nearest.argmax())
        picks[number] = pick
        nearest = torch.minimum(nearest, torch.linalg.vector_norm(rows - rows[pick], dim=1))
        nearest[pick] = -1  # picked once, also where equal rows are left
        if progress is not None:
            progress(number + 1, n_samples)
    return picks, max(0.0, float(nearest.max()))
