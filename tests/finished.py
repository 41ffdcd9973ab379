"""Finished runs without any training."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.results.run.record import Run
from defectlab.utils import paths

FOLDERS = {"padim": "Padim", "patchcore": "Patchcore", "cflow": "Cflow"}


def finished(name: str, model: str = "padim", dataset: str = "coins", root: Path | None = None, **values: Any) -> Run:
    """A finished run as the engine leaves it, with metrics that its name and options decide."""
    seed, options = values.pop("seed", 42), values.pop("options", {"layers": ["layer1", "layer2"], "n_features": 100})
    manifest = values.pop("manifest", f"{dataset}-manifest")
    draw = np.random.default_rng(zlib.crc32(f"{name} {model} {dataset}".encode()))
    metrics = {metric: float(draw.uniform(0.3, 0.99)) for metric in BARE_METRICS} | values.pop("metrics", {})
    threshold = {"value": 1.5, "rule": "f1", "source": "validation", "oracle": False}
    facts = {"seed": seed, "name": name, "model.name": model, "data.manifest": manifest}
    run = Run.start(root or paths.results_dir(), FOLDERS[model], dataset, name, facts, {})
    run.advance(
        "finished",
        experiment={
            "name": name,
            "seed": seed,
            "data": {"root": "data/x", "num_workers": 2, "train_batch_size": 10},
            "backbone": {"name": "resnet18", "weights": "resnet18.pth"},
            "model": {"name": model, "seed": seed, **options},
            "evaluation": {"pixel_size": "input"},
            "trainer": {"max_epochs": 1},
        },
        dataset={
            "name": dataset,
            "root": f"data/{dataset}",
            "manifest": manifest,
            "protocol": {
                "validation_is_test": False,
                "validation_from": "a seeded 50% of the test images",
                "test_normal_from": "their own folder",
                "counts": {split: {"good": 3, "anomalous": 2} for split in ("train", "validation", "test")},
            },
        },
        backbone={"name": "resnet18", "source": "resnet18.pth", "sha256": "ab" * 32},
        thresholds={"image": threshold, "pixel": threshold | {"value": 0.75}},
        metrics=metrics,
        metric_reasons={},
        timings={"fit": 12.5, "test": 3.25},
        environment={"device": "cpu"},
        checkpoint="weights/lightning/model.ckpt",
        **values,
    )
    return run
