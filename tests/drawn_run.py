"""A finished run on any number of test images, with maps, masks and pictures, without any training."""

from pathlib import Path

import numpy as np
from finished import finished
from PIL import Image

from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.results.evaluate import evaluate_run
from defectlab.results.run.arrays import pack_masks
from defectlab.results.run.record import Run
from defectlab.results.run.scores import ScoreRow


def drawn_run(name: str, seed: int, count: int, noise: float, home: Path, draw: int = 0) -> Run:
    """A finished run on so many test images, with maps and masks of 16 px, its images 24 px."""
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
    thresholds = run.record["thresholds"]
    run.update(
        thresholds={level: {**chosen, "value": 0.5, "reason": "highest F1"} for level, chosen in thresholds.items()},
        preprocessing={**Preprocessing(size=(16, 16)).to_dict(), "hash": ""},
    )
    run.update(**evaluate_run(run))
    return run
