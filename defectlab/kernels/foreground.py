"""Foreground of images by the first principal component of their features (AnomalyDINO: Damm et al., arXiv:2405.14529).

DINOv2's final patch tokens (layer `norm`) tell an object from its background along one direction. Where that fails is
for `holds_object` to say.
"""

import torch
from torch.nn import functional as F

THRESHOLD = 10.0  # of the first component, in the unit of DINOv2's tokens, as the authors have it
BORDER = 0.2  # share of height and width at each side that is no part of the centre, as the authors have it
MIN_CENTRE = 0.35  # share of the centre that a mask must exceed, as the authors have it
MAX_BORDER_TO_CENTRE = 0.5  # the mask's share of the border over that of the centre: objects end, textures go on


def foreground_masks(embedding: torch.Tensor, threshold: float = THRESHOLD) -> torch.Tensor:
    """Return the foreground (B, h, w) of images with features (B, C, h, w), True where the object is.

    The patches whose coordinate along the image's own first principal axis is above the threshold; the axis points the
    other way if else too little of the image's centre would be foreground. The mask is dilated, then closed, by 3 x 3.
    The axis first points to where its largest entry is positive, as scikit-learn has it.
    """
    batch, _, height, width = embedding.shape
    rows = embedding.flatten(2).transpose(1, 2).double()  # (B, C, h, w) -> (B, h*w, C)
    rows = rows - rows.mean(dim=1, keepdim=True)
    axis = _first_axis(rows)
    largest = axis.abs().argmax(dim=1, keepdim=True)
    axis = axis * axis.gather(1, largest).sign()
    first = (rows @ axis.unsqueeze(2)).reshape(batch, height, width)
    masks = first > threshold
    turned = centre_shares(masks) <= MIN_CENTRE
    masks = torch.where(turned[:, None, None], -first > threshold, masks)
    return _closed(_dilated(masks.float().unsqueeze(1))).squeeze(1) > 0.5


def _first_axis(rows: torch.Tensor) -> torch.Tensor:
    """Return the direction (B, C) of the largest variance of centred rows (B, P, C), of either sign."""
    patches, channels = rows.shape[1:]
    if channels <= patches:
        return torch.linalg.eigh(rows.transpose(1, 2) @ rows).eigenvectors[..., -1]
    coordinates = torch.linalg.eigh(rows @ rows.transpose(1, 2)).eigenvectors[..., -1:]  # (B, P, 1)
    return F.normalize((rows.transpose(1, 2) @ coordinates).squeeze(2), dim=1)


def holds_object(masks: torch.Tensor) -> torch.Tensor:
    """Return for each mask (B, h, w) whether it looks like an object in the middle: (B,).

    Its share of the centre is above `MIN_CENTRE`, its share of the border at most half of that. Masks of textures, and
    of features that do not tell objects from backgrounds, are empty, full or spread evenly.
    """
    inside = centre_shares(masks)
    return (inside > MIN_CENTRE) & (border_shares(masks) <= MAX_BORDER_TO_CENTRE * inside)


def centre_shares(masks: torch.Tensor) -> torch.Tensor:
    """Return the share of the image's centre that is foreground, (B, h, w) -> (B,)."""
    return _centre(masks).double().mean(dim=(1, 2))


def border_shares(masks: torch.Tensor) -> torch.Tensor:
    """Return the share of the image around the centre that is foreground, (B, h, w) -> (B,)."""
    centre = _centre(masks)
    around = masks[0].numel() - centre[0].numel()
    return (masks.double().sum(dim=(1, 2)) - centre.double().sum(dim=(1, 2))) / around


def _centre(masks: torch.Tensor) -> torch.Tensor:
    height, width = masks.shape[-2:]
    rows = slice(int(height * BORDER), int(height * (1 - BORDER)))
    columns = slice(int(width * BORDER), int(width * (1 - BORDER)))
    return masks[:, rows, columns]


def _dilated(masks: torch.Tensor) -> torch.Tensor:
    """Dilate masks (B, 1, h, w) of 0 and 1 by 3 x 3; what lies outside the image counts for nothing."""
    return F.max_pool2d(masks, 3, stride=1, padding=1)


def _closed(masks: torch.Tensor) -> torch.Tensor:
    """Dilate, then erode masks (B, 1, h, w) of 0 and 1."""
    return -_dilated(-_dilated(masks))
