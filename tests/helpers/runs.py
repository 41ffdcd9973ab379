"""Finished runs without any training."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.results.comparison.significance import read_test_scores
from defectlab.results.evaluate import evaluate_run
from defectlab.results.run.arrays import pack_masks
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab_runtime.scores import ScoreRow


def finished(name: str, model: str = "padim", dataset: str = "coins", root: Path | None = None, **values: Any) -> Run:
    """A finished run as the engine leaves it, with metrics that its name and options decide."""
    seed, options = values.pop("seed", 42), values.pop("options", {"layers": ["layer1", "layer2"], "n_features": 100})
    manifest = values.pop("manifest", f"{dataset}-manifest")
    draw = np.random.default_rng(zlib.crc32(f"{name} {model} {dataset}".encode("utf-8", "surrogatepass")))
    metrics = {metric: float(draw.uniform(0.3, 0.99)) for metric in BARE_METRICS} | values.pop("metrics", {})
    threshold = {"value": 1.5, "rule": "f1", "source": "validation", "reason": "highest F1", "oracle": False}
    facts = {"seed": seed, "name": name, "model.name": model, "data.manifest": manifest}
    begun = parts_of_a_record(name, seed, model, options, dataset, manifest)
    run = Run.start(root or paths.results_dir(), name, facts, begun)
    run.advance(
        "finished",
        thresholds={"image": threshold, "pixel": threshold | {"value": 0.75}},
        metrics=metrics,
        metric_reasons={},
        timings={"fit": 12.5, "test": 3.25},
        **values,
    )
    return run


def parts_of_a_record(
    name: str | None = None,
    seed: int = 42,
    model: str = "patchcore",
    options: Mapping[str, Any] | None = None,
    dataset: str = "bottle",
    manifest: str = "a-manifest",
) -> dict[str, Any]:
    """What is known of a run when it begins."""
    return {
        "experiment": {
            "name": name,
            "seed": seed,
            "data": {"root": "data/x", "num_workers": 2, "train_batch_size": 10},
            "backbone": {"name": "resnet18", "weights": "resnet18.pth"},
            "model": {"name": model, "seed": seed, **(options or {})},
            "evaluation": {"pixel_size": "input"},
            "trainer": {"max_epochs": 1},
        },
        "dataset": {
            "name": dataset,
            "root": f"data/{dataset}",
            "counts": {"train": {"good": 3}, "validation": {"good": 3, "hole": 2}, "test": {"good": 3, "hole": 2}},
            "manifest": manifest,
            "has_masks": True,
            "protocol": {
                "test_split_mode": "from_dir",
                "test_split_ratio": None,
                "val_split_mode": "from_test",
                "val_split_ratio": 0.5,
                "validation_is_test": False,
                "test_normal_from": "their own folder",
                "validation_from": "a seeded 50% of the test images",
                "counts": {split: {"good": 3, "anomalous": 2} for split in ("train", "validation", "test")},
            },
        },
        "backbone": {"name": "resnet18", "source": "resnet18.pth", "sha256": "ab" * 32, "kind": "file", "spec": None},
        "preprocessing": {
            "size": [256, 256],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
            "interpolation": "bilinear",
            "hash": "0123456789abcdef",
        },
        "metrics": {},
        "thresholds": {},
        "timings": {},
        "environment": {
            **dict.fromkeys(("defectlab", "anomalib", "torch", "torchvision", "lightning", "timm", "python"), "1.0"),
            "platform": "Linux",
            "device": "cpu",
            "threads": 2,
        },
        "checkpoint": "weights/lightning/model.ckpt",
    }


def set_protocol(run: Run, **changes: Any) -> None:
    """Change how a run's record says that its images were split."""
    dataset = run.record.dataset
    run.update(dataset=dataset.replaced(protocol=dataset.protocol.replaced(**changes)))


def scored(name: str, noise: float, seed: int = 0, count: int = 60, **options) -> Run:
    """A run whose scores are the truth and noise of this size."""
    run = finished(name, **options)
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], count // 2)
    scores = labels + random.normal(0, noise, count)
    rows = [ScoreRow(f"{n:03d}.png", "test", "", int(labels[n]), float(scores[n]), -1) for n in range(count)]
    run.write_scores(rows[::-1] if seed % 2 else rows)  # any order: images are matched by path
    return run


def measured(name: str, noise: float, seed: int = 0, **options) -> Run:
    """A run whose recorded AUROC is that of its scores."""
    run = scored(name, noise, seed, **options)
    found = read_test_scores(run)
    assert found is not None
    area = np.subtract.outer(found.scores[found.labels == 1], found.scores[found.labels == 0]) > 0
    run.update(metrics=run.record.metrics | {"image_AUROC": float(area.mean())})
    return run


def far_best_and_near() -> list[Run]:
    """Three runs: one that is worse than the best, the best, and one that is tied with it."""
    runs = [measured("far", 3.0, 2), measured("best", 0.5, 0), measured("near", 0.55, 1)]
    for run in runs:
        run.update(trivial={"image_F1Score": 0.75, "image_AUPR": 0.6})
    return runs


def run_with_maps(name: str, seed: int, count: int, noise: float, home: Path, draw: int = 0) -> Run:
    """A finished run on `count` test images of 24 px, with maps and masks of 16 px."""
    random = np.random.default_rng(seed + draw)
    kinds = [("good", "scratch", "hole")[n % 3] for n in range(count)]
    run = finished(name, seed=seed, history={"train_loss": [3.0, 2.0, None]})
    labels = np.array([int(kind != "good") for kind in kinds])
    scores = labels + random.normal(0, noise, count)
    folder = home / "images"
    folder.mkdir(exist_ok=True)
    paths_ = [folder / f"{n:04d}.png" for n in range(count)]
    for path in paths_:
        if not path.exists():
            Image.fromarray(np.full((24, 24, 3), 90, np.uint8)).save(path)
    run.write_scores([
        ScoreRow(f"images/{path.name}", "test", kind, int(label), float(score), int(score > 0.5))
        for path, kind, label, score in zip(paths_, kinds, labels, scores, strict=True)
    ])  # fmt: skip
    masks = np.zeros((count, 16, 16), bool)
    masks[labels == 1, 4:8, 4:8] = True
    maps = (masks + random.normal(0, 0.5, masks.shape)).astype(np.float32)
    run.maps_path("test").parent.mkdir()
    np.save(run.maps_path("test"), maps)
    np.save(run.masks_path("test"), pack_masks(masks))
    thresholds = run.record.thresholds
    run.update(
        thresholds={level: chosen.replaced(value=0.5) for level, chosen in thresholds.by_level.items()},
        preprocessing={**Preprocessing(size=(16, 16)).to_dict(), "hash": ""},
        evaluation={"pixel_size": "input", "grid": [16, 16], "mask_reduction": "area"},
    )
    run.update(**evaluate_run(run))
    return run


def with_k_shots(run: Run, means: Mapping[int, tuple[float, float]], images: int = 100, draws: int = 4) -> Run:
    """Put fits with a few images on a run's record: image and pixel AUROC by number, a little apart in each draw."""
    fits = [
        {
            "k": k,
            "draw": draw,
            "seed": 42,
            "images": [] if k == images else [f"train/good/{number:03d}.png" for number in range(k)],
            "metrics": {"image_AUROC": image - 0.001 * (draw % 2), "pixel_AUROC": pixel + 0.001 * (draw % 2)},
            "seconds": 1.5,
        }
        for k, (image, pixel) in means.items()
        for draw in range(1 if k == images else draws)
    ]
    run.update(k_shots={"images": images, "fits": fits, "left_out": {"1": "PaDiM needs two"}, "seconds": 9.0})
    return run
