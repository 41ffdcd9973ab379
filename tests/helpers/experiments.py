"""A small experiment."""

from pathlib import Path

from defectlab.experiment import Experiment

SMALL = {
    "backbone": {"name": "resnet18", "weights": "random"},
    "model": {"name": "padim", "layers": ["layer1"], "n_features": 10, "image_size": [64, 64]},
    "trainer": {"enable_progress_bar": False},
}


def experiment(parts: Path, **sections) -> Experiment:
    return Experiment.from_dict({"data": {"root": str(parts), "num_workers": 0}, **SMALL, **sections})
