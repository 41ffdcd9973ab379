"""What every model keeps, whatever it is: one tiny training, and what must hold of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import make_parts
from helpers.models import EPOCHS, MORE, SMALL, data, small

from defectlab import Detector, Engine
from defectlab.data import auxiliary_images
from defectlab.models.registry import MODELS
from defectlab.results.run.run import Run

LONG = {"efficient_ad"}  # 256 px are its least
BATCHES = {"efficient_ad": 1, "draem": 2}  # DRAEM sees few simulated defects in a small training: more steps
NAMES = [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in SMALL | MORE]


@dataclass
class Fitted:
    name: str
    model: Any
    run: Run
    detector: Detector


def train(name: str, root: Path, results: Path, epochs: int, **options: Any) -> tuple[Any, Run]:
    model = small(name, **options)
    engine = Engine(
        max_epochs=epochs, check_val_every_n_epoch=epochs, default_root_dir=results, enable_progress_bar=False
    )
    engine.train(model=model, datamodule=data(root, train_batch_size=BATCHES.get(name, 3)))
    return model, Run.open(model.run_folder)


@pytest.fixture(autouse=True, scope="module")
def few_generated_images() -> Iterator[None]:
    """A set as small as it can be for tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auxiliary_images, "IMAGES_PER_KIND", 1)
        patch.setattr(auxiliary_images, "IMAGE_SIZE", 64)
        yield


@pytest.fixture(scope="module", params=NAMES)
def fitted(request: pytest.FixtureRequest, parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    model, run = train(request.param, parts, tmp_path_factory.mktemp("results"), EPOCHS.get(request.param, 1))
    return Fitted(request.param, model, run, Detector.load(run.folder))


@pytest.mark.row("3.12")
def test_every_model_is_under_contract():
    assert set(MODELS) == set(SMALL | MORE)


class TestContract:
    def test_scores_and_maps_are_finite_and_the_run_is_finished(self, fitted: Fitted):
        assert fitted.run.status == "finished"
        for split in ("validation", "test"):
            rows = fitted.run.scores(split)
            assert rows
            assert all(math.isfinite(row.score) for row in rows)
            assert np.isfinite(fitted.run.maps(split)).all()
            assert fitted.run.maps(split).shape == (len(rows), *fitted.model.preprocessing.input_size)
        losses = fitted.run.record.history.get("train_loss", [])
        assert len(losses) == (0 if MODELS[fitted.name].epochs else EPOCHS.get(fitted.name, 1))
        assert all(loss is not None for loss in losses)

    def test_it_is_better_than_chance_on_an_easy_sample(self, fitted: Fitted):
        rows = fitted.run.scores()
        bad, good = ([row.score for row in rows if row.label == label] for label in (1, 0))
        auroc = np.mean([[b > g for g in good] for b in bad])
        assert auroc > 0.75
        assert fitted.run.record.metrics["pixel_AUROC"] > 0.6

    def test_the_reloaded_one_gives_equal_scores_at_any_batch(self, fitted: Fitted):
        rows = fitted.run.scores("test")
        paths = [row.image_path for row in rows]
        own = [prediction.score for prediction in fitted.detector.predict(paths, batch_size=4)]
        assert own == [row.score for row in rows]
        alone = [prediction.score for prediction in fitted.detector.predict(paths, batch_size=1)]
        assert alone == pytest.approx(own, rel=1e-5)

    def test_images_without_masks_give_image_metrics(self, fitted: Fitted, tmp_path: Path):
        root = make_parts(tmp_path / "unmasked", train=1, masks=False)
        engine = Engine(default_root_dir=tmp_path, enable_progress_bar=False)
        (metrics,) = engine.test(model=fitted.model, datamodule=data(root))
        assert metrics["image_AUROC"] is not None
        assert metrics["pixel_AUROC"] is None

    def test_good_images_alone_of_an_odd_size(self, fitted: Fitted, tmp_path: Path):
        size = ODD.get(fitted.name, (75, 90))
        root = make_parts(tmp_path / "good", train=4, good=2, bad=0)
        _, run = train(fitted.name, root, tmp_path, 1, image_size=size)
        assert run.status == "finished"
        assert run.record.metrics["image_AUROC"] is None
        rows = run.scores()
        assert all(math.isfinite(row.score) for row in rows)
        again = Detector.load(run.folder)
        assert again.model.preprocessing.input_size == size
        assert again.predict(rows[0].image_path)[0].score == pytest.approx(rows[0].score, rel=1e-5)


ODD = {"efficient_ad": (263, 290)}
