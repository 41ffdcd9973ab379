"""Proof, after the fact, that picks of a long farthest-first order are the farthest from their prefix."""

import torch

from defectlab.kernels.partition import product_error

BLOCK = 4096


def checkpoints(begin: int, end: int, count: int) -> list[int]:
    """At most `count` evenly spaced places in begin..end, the last one among them.

    >>> checkpoints(500, 1000, 5)
    [599, 699, 799, 899, 999]
    """
    count = min(count, end - begin)
    return [begin + (end - begin) * number // count - 1 for number in range(1, count + 1)] if count > 0 else []


@torch.no_grad()
def certified(rows: torch.Tensor, order: torch.Tensor, places: list[int]) -> int:
    """How many of the picks `order[place]` are the row of `rows` (N, d) farthest from all picks before them.

    Independent of the search: every row meets every pick in float32 products. Rows that rounding cannot tell from the
    farthest are decided by norms of differences, as plain anomalib takes them; ties go to the lowest index.
    """
    half_norms = torch.cat([part.square().sum(1) for part in rows.split(BLOCK)]).mul_(0.5)
    slack = 8 * product_error(rows.shape[1]) * (half_norms + half_norms.max())
    smallest = torch.full((len(rows),), torch.inf, device=rows.device)
    order = order.to(rows.device)
    good = begin = 0
    for place in places:
        centres = rows[order[begin:place]]
        for part, lowest, norms in zip(rows.split(BLOCK), smallest.split(BLOCK), half_norms.split(BLOCK), strict=True):
            half = torch.addmm(half_norms[order[begin:place]], part, centres.T, alpha=-1).amin(1)  # (b, d) @ (d, m)
            torch.minimum(lowest, half.add_(norms), out=lowest)
        begin = place
        level = (smallest - slack).max()
        candidates = (smallest + slack >= level).nonzero().squeeze(1)
        prefix = rows[order[:place]]
        distances = torch.stack([torch.linalg.norm(prefix - rows[row], dim=1).min() for row in candidates])
        good += int(candidates[distances.argmax()] == order[place])
    return good
