"""Settings of a small sweep."""

from pathlib import Path
from typing import Any

LAYERS = [["layer2", "layer3"], ["layer1", "layer2"]]


GRID = [
    {
        "model.name": "patchcore",
        "model.layers": LAYERS,
        "model.coreset_sampling_ratio": [0.05, 0.2],
        "model.num_neighbors": [1, 3],
    },
    {"model.name": "padim", "model.layers": LAYERS, "model.n_features": [7, 20]},
]


def settings(root: Path, **more: Any) -> dict[str, Any]:
    return {
        "data": {"root": str(root), "num_workers": 0, "train_batch_size": 3, "eval_batch_size": 4},
        "backbone": {"name": "resnet18", "weights": "random"},
        "model": {"image_size": [64, 64]},
        "trainer": {"accelerator": "cpu"},
        "grid": GRID,
        "checkpoints": "none",
    } | more
