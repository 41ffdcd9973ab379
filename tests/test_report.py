"""The report: its facts against scikit-learn, and the file as a browser would get it."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from finished import finished
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve
from small import data, small

from defectlab import Engine
from defectlab.cli import main
from defectlab.evaluation.metrics import sorted_curve
from defectlab.results.facts import by_kind, pr_points, roc_points, where_it_fails
from defectlab.results.record import Run, ScoreRow

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.random(300) < 0.4
SCORES = (RANDOM.normal(size=300) + LABELS).round(1)


def test_curves_equal_scikit_learn():
    fpr, tpr = roc_points(sorted_curve(SCORES, LABELS))
    expected = roc_curve(LABELS, SCORES, drop_intermediate=False)
    assert fpr.tolist() == pytest.approx(expected[0].tolist())
    assert tpr.tolist() == pytest.approx(expected[1].tolist())
    recall, precision = pr_points(sorted_curve(SCORES, LABELS))
    p, r, _ = precision_recall_curve(LABELS, SCORES)
    assert precision[::-1].tolist() == pytest.approx(p[:-1].tolist())
    assert recall[::-1].tolist() == pytest.approx(r[:-1].tolist())


def test_a_curve_of_very_many_points_is_thinned_and_keeps_its_area():
    labels = RANDOM.random(200_000) < 0.02
    scores = RANDOM.normal(size=labels.size) + 2 * labels
    fpr, tpr = roc_points(sorted_curve(scores, labels))
    assert fpr.size < 2000
    assert auc(fpr, tpr) == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)


def rows() -> list[ScoreRow]:
    kinds = {"good": (0, [1, 2, 3, 6]), "scratch": (1, [5, 7]), "hole": (1, [2.5, 9]), "": (-1, [4])}
    return [
        ScoreRow(f"{kind}{n}.png", "test", kind, label, score, -1)
        for kind, (label, scores) in kinds.items()
        for n, score in enumerate(scores)
    ]


def test_kinds_are_counted_apart_and_compared_with_the_good():
    kinds = {kind.defect: kind for kind in by_kind(rows(), 4.5)}
    assert {name: (kind.count, kind.flagged) for name, kind in kinds.items()} == {
        "good": (4, 1), "scratch": (2, 2), "hole": (2, 1), "": (1, 0),
    }  # fmt: skip
    assert kinds["scratch"].auroc == pytest.approx(roc_auc_score([0, 0, 0, 0, 1, 1], [1, 2, 3, 6, 5, 7]))
    assert kinds["good"].auroc is None
    averages = [kind.mean_score for kind in by_kind(rows(), None)]
    assert averages == sorted(averages)


def test_where_it_fails_is_ordered():
    found = where_it_fails(rows(), 4.5, count=2)
    names = {title: [rows()[index].image_path for index in indices] for title, indices in found.items()}
    assert names == {
        "Good images that score highest": ["good3.png", "good2.png"],
        "Defects that score lowest": ["hole0.png", "scratch0.png"],
        "Closest to the threshold": ["0.png", "scratch0.png"],
    }


class Page(HTMLParser):
    """Headings and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href") and not value.startswith("#")]


def test_a_report_is_one_file_that_fetches_nothing(parts: Path, capsys: pytest.CaptureFixture[str]):
    folders = []
    for seed in (1, 2):
        model = small("padim", seed=seed)
        Engine(enable_progress_bar=False).train(model=model, datamodule=data(parts))
        folders.append(str(model.run_folder))
    assert main(["report", *folders]) == 0
    text = Path(folders[0]).parents[2].joinpath("report.html").read_text()
    page = Page()
    page.feed(text)
    # each run: 2 good, 2 bad, and 4 close to the threshold, four pictures each
    assert len(page.sources) == 2 * 8 * 4
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    for needle in ("pixel ROC", "By kind", "2 runs on parts", "blot", "Closest to the threshold"):
        assert needle in text
    assert main(["report", folders[0], "--output", "one.html"]) == 0
    assert "1 run on parts" in (Path(folders[0]).parents[3] / "one.html").read_text()


def test_a_run_without_scores_cannot_be_reported(capsys: pytest.CaptureFixture[str]):
    assert main(["report", str(finished("empty").folder)]) == 2
    assert "no test scores" in capsys.readouterr().err
    assert Run.open("results/Padim/coins/empty").status == "finished"
