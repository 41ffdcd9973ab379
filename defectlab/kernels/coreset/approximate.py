"""Approximate greedy coreset, as in the code of PatchCore's authors (Roth et al., 2022, arXiv:2106.08265)."""

from collections.abc import Callable

import torch

from defectlab_runtime.errors import OptionError

STARTING_POINTS = 10
_EVERY = 64  # picks between two reports of progress


@torch.no_grad()
def approximate_greedy(
    rows: torch.Tensor,
    n_samples: int,
    *,
    generator: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Pick `n_samples` of (N, D) rows, each the farthest by a bound that starts from a few random rows.

    A row's bound is the mean distance to ten rows drawn at random, and from then on never more than the distance to
    any picked row. Each pick takes a pass over all rows. Returns int64 indices (n_samples,) in the order picked: any
    prefix is the coreset of that size. Once all bounds are 0, the remaining rows are picked by index.

    Raises:
        OptionError: `n_samples` is outside 1..N.
    """
    count = len(rows)
    if not 1 <= n_samples <= count:
        raise OptionError(f"coreset: n_samples must be 1 to {count}, got {n_samples}.")
    starts = torch.randperm(count, generator=generator)[:STARTING_POINTS]
    bound = torch.stack([torch.linalg.norm(rows - rows[start], dim=1) for start in starts.tolist()]).mean(dim=0)
    # |x - c|^2 = |x|^2 - 2 x.c + |c|^2: one product a pick; centred rows lose the least to rounding
    centred = rows - rows.mean(dim=0)
    norms = centred.square().sum(dim=1)
    picks = torch.empty(n_samples, dtype=torch.int64)
    for number in range(n_samples):
        pick = int(bound.argmax())
        picks[number] = pick
        squared = torch.addmv(norms, centred, centred[pick], alpha=-2).add_(norms[pick])
        torch.minimum(bound, squared.clamp_min_(0).sqrt_(), out=bound)
        bound[pick] = -1.0  # never again
        if progress is not None and (number + 1) % _EVERY == 0:
            progress(number + 1, n_samples)
    return picks
