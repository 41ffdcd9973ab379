"""The panel of a run: which images it shows, on what scale, and that it needs the record alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import make_parts
from helpers.models import data, small
from PIL import Image

from defectlab import Detector, Engine, Run
from defectlab.results.run.category_run import category_runs
from defectlab.visualization.overlays import TRUTH
from defectlab.visualization.run_panel import map_scale, run_panel, save_panel, telling_rows
from defectlab_runtime.overlays import CONTOUR
from defectlab_runtime.scores import ScoreRow


def row(name: str, label: int, score: float) -> ScoreRow:
    return ScoreRow(name, "test", "good" if label == 0 else "blot", label, score, int(score > 5))


def trained(root: Path, **options: object) -> Run:
    engine = Engine(max_epochs=1, enable_progress_bar=False, **options)
    engine.train(model=small("patchcore"), datamodule=data(root))
    assert engine.best_model_path is not None
    return Run.open(Path(engine.best_model_path).parents[2])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("panel")
    return trained(make_parts(root / "parts", good=6, bad=6), default_root_dir=root / "results")


def has_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(-1).any())


def test_the_telling_images_are_chosen():
    rows = [row("d", 1, 9.0), row("a", 0, 1.0), row("e", 1, 4.0), row("b", 0, 6.0), row("c", 0, 2.0), row("f", 1, 7.0)]
    assert [(why, rows[place].image_path) for why, place in telling_rows(rows)] == [
        ("a typical good image", "c"),
        ("the highest-scoring good image", "b"),
        ("the lowest-scoring defect", "e"),
        ("a typical defect", "f"),
    ]


def test_fewer_images_make_fewer_rows():
    assert telling_rows([row("a", 1, 1.0)]) == [("the lowest-scoring defect", 0)]
    assert telling_rows([row("a", 0, 1.0)]) == [("the highest-scoring good image", 0)]
    assert telling_rows([]) == []


@pytest.mark.row("4.9")
def test_every_finished_run_has_its_panel(run: Run):
    picture = np.asarray(Image.open(run.folder / "pictures.png"))
    assert picture.shape[1] > 4 * 256
    assert picture.shape[0] > 4 * 256
    assert has_colour(picture, CONTOUR)
    assert has_colour(picture, TRUTH)


def test_it_needs_the_record_alone(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("defectlab.models.loading.restore", lambda *_: pytest.fail("no model is loaded"))
    again = run_panel(run)
    assert np.array_equal(again, np.asarray(Image.open(run.folder / "pictures.png")))


def test_the_scale_is_that_of_the_detector(run: Run):
    low, high, ends = map_scale(run)
    assert (low, high) == pytest.approx(Detector.load(run.folder).map_range, rel=1e-6)
    assert ends == "map, range of the validation images:"


@pytest.mark.parametrize("keep", ["none", "worst"])
def test_the_panel_is_drawn_before_maps_are_dropped(tmp_path: Path, keep: str):
    run = trained(make_parts(tmp_path / "parts", good=6, bad=6), keep_maps=keep)
    assert (run.folder / "pictures.png").is_file()
    assert (run_panel(run) is None) == (keep == "none")


def test_without_masks_nothing_is_called_the_truth(tmp_path: Path):
    run = trained(make_parts(tmp_path / "parts", masks=False))
    assert not has_colour(np.asarray(Image.open(run.folder / "pictures.png")), TRUTH)


def test_a_vanished_image_spares_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = make_parts(tmp_path / "parts")
    run = trained(root)
    shutil.rmtree(root)
    assert save_panel(run) is None


def test_each_category_has_its_rows_at_its_own_thresholds(both: Run):
    panels = [run_panel(one) for one in category_runs(both)]
    together = run_panel(both)
    assert together.shape[0] == sum(panel.shape[0] for panel in panels)
    assert (together[: panels[0].shape[0], : panels[0].shape[1]] == panels[0]).all()
