"""A run's curves as pictures, from its record alone."""

import numpy as np
import pytest
from helpers.runs import finished, run_with_maps

from defectlab.results.curves import by_kind
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.visualization.charts import confusion_figure, cumulative_figure, histogram, roc_figure, training_figure
from defectlab_runtime.errors import InputError
from defectlab_runtime.scores import ScoreRow


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


@pytest.mark.row("3.20")
def test_the_confusion_has_false_alarms_in_a_column_of_their_own_and_shares_rise_to_one():
    run = run_with_maps("one", 42, 30, 0.6, paths.project_root())
    rows = run.scores("test")
    kinds = by_kind(rows, 0.5)
    axis = confusion_figure(kinds, "").axes[0]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["called good", "defect found", "false_defect"]
    shown = np.array([int(text.get_text()) for text in axis.texts]).reshape(len(kinds), 3)
    for kind, (good, found, false) in zip(kinds, shown, strict=True):
        above = sum(row.score > 0.5 for row in rows if row.defect == kind.defect)
        assert (good, found, false) == (kind.count - above, above * (kind.label == 1), above * (kind.label == 0))
    good = [row.score for row in rows if row.label == 0]
    line, _, threshold = cumulative_figure(good, [1.0], 0.5, "").axes[0].get_lines()
    assert list(line.get_ydata()) == pytest.approx([(n + 1) / len(good) for n in range(len(good))])
    assert list(line.get_xdata()) == sorted(good)
    assert list(threshold.get_xdata()) == [0.5, 0.5]


@pytest.mark.parametrize(
    "scores", [(1.0, np.nextafter(1, 2)), (5e300, 5e300), (0.0, 0.0), (np.nan, np.inf), (1e-9, 2e-9)]
)
def test_scores_too_close_to_be_parted_are_drawn(scores: tuple[float, float]):
    assert histogram(scores[:1], scores[1:], 1.0, "").startswith("<svg")
