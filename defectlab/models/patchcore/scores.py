"""Other ways than the paper's from distances in PatchCore's memory bank to scores of images and patches.

Quadra calls the paper's `amazon` and `own_neighbours` `anomalib`, after what anomalib did in its first years.
"""

from collections.abc import Callable

import torch

Scores = tuple[torch.Tensor, torch.Tensor]


def own_neighbours(distances: torch.Tensor) -> Scores:
    """Re-weight the farthest patch's distance by a soft-max over its own nearest bank patches; one leaves it as it is.

    Args:
        distances: (B, P, k) from each patch to its `k` nearest ones in the bank, nearest first.

    Returns:
        Scores (B,) of images, and of patches (B, P): the distance to the nearest one.
    """
    nearest = distances[..., 0]
    score, farthest = nearest.max(dim=1)
    if distances.shape[-1] == 1:
        return score, nearest
    place = farthest[:, None, None].expand(-1, 1, distances.shape[-1])  # (B,) -> (B, 1, k)
    around = distances.gather(1, place).squeeze(1)  # (B, P, k) -> (B, k)
    return (1 - torch.softmax(around, dim=1).amax(dim=1)) * score, nearest


def mean_distances(distances: torch.Tensor) -> Scores:
    """Take the mean distance to the `k` nearest bank patches, the highest for an image, as amazon-science does.

    Its code means squared distances (faiss's L2); these are not squared, so that scores stay distances as elsewhere.

    Args:
        distances: (B, P, k) from each patch to its `k` nearest ones in the bank.

    Returns:
        Scores (B,) of images and (B, P) of patches.
    """
    per_patch = distances.mean(dim=-1)
    return per_patch.amax(dim=1), per_patch


def top_mean(per_patch: torch.Tensor, share: float) -> torch.Tensor:
    """Return the mean of the largest scores of an image's patches, as AnomalyDINO does (arXiv:2405.14529).

    Args:
        per_patch: (B, P) scores of patches.
        share: In (0, 1]: the largest int(share * P) are taken, at least one.
    """
    count = max(1, int(per_patch.shape[1] * share))
    return per_patch.topk(count, dim=1).values.mean(dim=1)


PATCH_SCORES: dict[str, Callable[[torch.Tensor], Scores]] = {
    "amazon": mean_distances,
    "own_neighbours": own_neighbours,
}
