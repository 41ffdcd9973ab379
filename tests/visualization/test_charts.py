"""A run's curves as pictures, from its record alone."""

import numpy as np
import pytest
from helpers.runs import finished

from defectlab.results.run.run import Run
from defectlab.results.run.scores import ScoreRow
from defectlab.utils.errors import InputError
from defectlab.visualization.charts import roc_figure, training_figure


@pytest.fixture
def run() -> Run:
    run = finished("a", history={"train_loss": [0.5, 0.1, None], "val_good_loss": [0.4, 0.2, 0.1]})
    draw = np.random.default_rng(0)
    rows = [ScoreRow(f"{n}.png", "test", "", n % 2, draw.normal() + n % 2, -1) for n in range(40)]
    run.write_scores(rows)
    return run


def drawn(monkeypatch: pytest.MonkeyPatch, figure, run: Run):
    """The matplotlib axes behind a picture."""
    kept = []
    monkeypatch.setattr("defectlab.visualization.charts.to_image", lambda canvas: kept.append(canvas) or "picture")
    assert figure(run) == "picture"
    return kept[0].axes[0]


def test_losses_are_drawn_epoch_by_epoch(run: Run, monkeypatch: pytest.MonkeyPatch):
    train, good = drawn(monkeypatch, training_figure, run).get_lines()
    assert (train.get_label(), good.get_label()) == ("train loss", "val good loss")
    np.testing.assert_array_equal(train.get_xdata(), [1, 2])  # an epoch without a loss has no point
    np.testing.assert_array_equal(good.get_ydata(), [0.4, 0.2, 0.1])


def test_the_roc_has_its_area_the_diagonal_and_the_threshold(run: Run, monkeypatch: pytest.MonkeyPatch):
    curve, chance, threshold = drawn(monkeypatch, roc_figure, run).get_lines()
    area = np.trapezoid(curve.get_ydata(), curve.get_xdata())
    assert curve.get_label() == f"AUROC {area:.4f}"
    np.testing.assert_array_equal(chance.get_ydata(), [0, 1])
    rows = run.scores("test")
    shares = [np.mean([row.score > 1.5 for row in rows if row.label == label]) for label in (0, 1)]
    assert [float(threshold.get_xdata()[0]), float(threshold.get_ydata()[0])] == pytest.approx(shares)


def test_they_are_pictures_of_the_asked_size(run: Run):
    assert training_figure(run).size == (1100, 550)
    assert roc_figure(run).size == (880, 880)


def test_what_cannot_be_drawn_is_said():
    bare = finished("b")
    with pytest.raises(InputError, match="no losses"):
        training_figure(bare)
    with pytest.raises(InputError, match="good and anomalous"):
        roc_figure(bare)
