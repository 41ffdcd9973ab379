"""Small detectors to measure a sample's difficulty with; written for the tests, apart from the library's models."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, laplace
from sklearn.metrics import roc_auc_score

Array = NDArray[np.float64]


def load(root: Path) -> tuple[Array, Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Training images (N, H, W), test images (M, H, W), labels (M,), masks (M, H, W)."""
    train = [np.asarray(Image.open(path), float) for path in sorted((root / "train/good").glob("*.png"))]
    test, labels, masks = [], [], []
    for path in sorted((root / "test").rglob("*.png")):
        kind = path.parent.name
        test.append(np.asarray(Image.open(path), float))
        labels.append(kind != "good")
        mask = np.zeros(test[-1].shape, bool)
        if kind != "good":
            mask = np.asarray(Image.open(root / "ground_truth" / kind / f"{path.stem}_mask.png")) > 0
        masks.append(mask)
    return np.array(train), np.array(test), np.array(labels), np.array(masks)


def trivial_scores(train: Array, test: Array) -> dict[str, Array]:
    """Image scores of detectors that know no feature: distance to the mean pixel, and simple statistics."""
    mean, deviation = train.mean(0), train.std(0)
    difference = np.abs(test - mean)
    scores = {
        "mean pixel, largest": difference.max((1, 2)),
        "mean pixel, average": difference.mean((1, 2)),
        "mean pixel, in deviations": (difference / deviation).max((1, 2)),
        "mean pixel, smoothed": np.array([gaussian_filter(image, 4).max() for image in difference]),
    }
    statistics = {
        "mean": lambda image: image.mean(),
        "deviation": lambda image: image.std(),
        "brightest": lambda image: image.max(),
        "darkest": lambda image: image.min(),
        "high frequencies": lambda image: np.abs(laplace(image)).mean(),
        "sharpest edge": lambda image: np.abs(laplace(image)).max(),
        "brightest spot": lambda image: gaussian_filter(image, 5).max() / image.mean(),
        "darkest spot": lambda image: -gaussian_filter(image, 5).min() / image.mean(),
        "flattest spot": lambda image: -gaussian_filter(np.abs(laplace(image)), 6).min(),
        "busiest spot": lambda image: gaussian_filter(np.abs(laplace(image)), 6).max(),
    }
    for name, statistic in statistics.items():
        known = np.array([statistic(image) for image in train])
        values = np.array([statistic(image) for image in test])
        scores[name] = values
        scores[f"{name}, reversed"] = -values
        scores[f"{name}, to nearest"] = np.abs(values[:, None] - known).min(1)
        scores[f"{name}, to middle"] = np.abs(values - np.median(known))
    return scores


def neighbour_maps(network, train: Array, test: Array, size: int, stride: int = 1) -> Array:
    """Distance of each patch's features (layers 2, 3) to the nearest training patch, (M, size/8, size/8).

    Every `stride`-th training patch is kept.
    """
    import torch
    from torch.nn import functional as F

    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def features(images: Array) -> torch.Tensor:
        rows = []
        for batch in torch.as_tensor(images, dtype=torch.float32).split(8):
            x = F.interpolate(batch[:, None], (size, size), mode="bilinear", antialias=True)  # (B, 1, size, size)
            x = (x.repeat(1, 3, 1, 1) / 255 - mean) / deviation  # (B, 3, size, size)
            x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
            second = network.layer2(network.layer1(x))
            third = F.avg_pool2d(network.layer3(second), 3, 1, 1)
            third = F.interpolate(third, second.shape[-2:], mode="bilinear")
            joined = torch.cat([F.avg_pool2d(second, 3, 1, 1), third], 1)
            rows.append(joined.permute(0, 2, 3, 1))  # (B, C, h, w) -> (B, h, w, C)
        return torch.cat(rows)

    with torch.inference_mode():
        network.eval()
        bank = features(train).flatten(0, 2)[::stride]  # (N, h, w, C) -> (N*h*w, C)
        queries = features(test)
        nearest = torch.full((queries.shape[:3].numel(),), torch.inf)
        flat = queries.flatten(0, 2)  # (M, h, w, C) -> (M*h*w, C)
        for start in range(0, len(flat), 4096):
            part = flat[start : start + 4096]
            for block in bank.split(8192):
                squared = torch.addmm(block.pow(2).sum(1)[None], part, block.T, alpha=-2).min(1).values
                nearest[start : start + 4096] = torch.minimum(nearest[start : start + 4096], squared)
        distance = (nearest + flat.pow(2).sum(1)).clamp(min=0).sqrt()
    return distance.view(queries.shape[:3]).double().numpy()


def image_auroc(labels: NDArray[np.bool_], scores: Array) -> float:
    """Return the area under the ROC curve of image scores."""
    return float(roc_auc_score(labels, scores))


def pixel_auroc(masks: NDArray[np.bool_], maps: Array) -> float:
    """Return the area under the ROC curve of every second pixel, the maps being enlarged and smoothed."""
    factor = masks.shape[1] // maps.shape[1]
    large = [gaussian_filter(m.repeat(factor, 0).repeat(factor, 1), 4)[::2, ::2] for m in maps]
    return float(roc_auc_score(masks[:, ::2, ::2].ravel(), np.array(large).ravel()))
