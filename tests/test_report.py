"""The report: its facts against scikit-learn, and the file as a browser would get it."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from finished import finished
from PIL import Image
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve
from small import data, small

from defectlab import Engine
from defectlab.cli import main
from defectlab.evaluation.metrics import sorted_curve
from defectlab.preprocessing import Preprocessing
from defectlab.report import write_report
from defectlab.results.evaluate import evaluate_run
from defectlab.results.facts import by_kind, pr_points, roc_points, where_it_fails
from defectlab.results.files import pack_masks
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
    """Headings, tables, and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href") and not value.startswith("#")]
        self._inside = tag
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self._inside == "h2":
            self.headings[-1] += data


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
    # each run: 2 good, 2 bad, and 4 close to the threshold, five pictures each, and the maps' scale
    assert len(page.sources) == 2 * (8 * 5 + 1)
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    for needle in ("pixel ROC", "PRO", "By kind", "2 runs on parts", "blot", "Closest to the threshold", "sd of seeds"):
        assert needle in text
    assert main(["report", folders[0], "--output", "one.html"]) == 0
    one = (Path(folders[0]).parents[3] / "one.html").read_text()
    assert "1 run on parts" in one
    assert "verdict" not in one


def large(name: str, seed: int, count: int, noise: float, home: Path, draw: int = 0) -> Run:
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


def test_a_thousand_test_images_stay_readable_and_several_runs_stand_side_by_side(own_project: Path):
    runs = [large("sharp", seed, 1000, 0.5, own_project) for seed in (0, 1)]
    runs += [large("blunt", 0, 1000, 3.0, own_project), large("almost", 0, 1000, 0.52, own_project, draw=9)]
    text = write_report(runs, own_project / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert len(page.sources) == 4 * (3 * 3 * 5 + 1)
    assert len(text) < 2_500_000
    tables = page.tables
    standings, kinds = tables[0], tables[1]
    assert [row[1] for row in standings[1:]] == ["best", "", "", "tied with the best", "worse", ""]
    assert [row[3] for row in standings[1:4]] == ["sharp", "sharp", "sharp_seed-1"]
    assert standings[-1][3] == "calls every image anomalous"
    assert kinds[0] == ["model", "run", "good", "hole", "scratch"]
    facts = {kind.defect: kind for kind in by_kind(runs[0].scores("test"), 0.5)}
    row = next(row for row in kinds if row[1] == "sharp")
    assert row[2] == f"{facts['good'].flagged} of 334 flagged"
    pixels = next(kind for kind in runs[0].record["per_defect"] if kind["defect"] == "hole")["pixel_AUROC"]
    assert row[3] == f"{facts['hole'].auroc:.3f}; pixels {pixels:.3f}; {facts['hole'].flagged} of 333 caught"
    confusion = next(table for table in tables if "called good" in table[0])
    shown = {row[0]: row[2:5] for row in confusion[1:]}
    name = next(text for text in page.headings if "sharp" in text)
    assert name == "Padim sharp"
    assert shown["scratch"] == ["333", str(333 - facts["scratch"].flagged), str(facts["scratch"].flagged)]
    averages = next(table for table in tables if table[0] == ["label", "images", "average score"])
    assert [row[0] for row in averages[1:]] == ["good", "anomalous"]
    assert "losses by epoch" in text
    assert text.count("per-region overlap") == 1


def test_runs_of_other_splits_have_tables_of_their_own(own_project: Path):
    runs = [large("one", 0, 30, 0.5, own_project), large("two", 1, 30, 0.5, own_project)]
    runs[1].update(dataset=runs[1].record["dataset"] | {"manifest": "another"})
    text = write_report(runs, own_project / "report.html").read_text()
    assert "rank them within a table, never across" in text
    page = Page()
    page.feed(text)
    assert sum("image AUROC" in table[0] for table in page.tables) == 2


def test_a_run_without_scores_cannot_be_reported(capsys: pytest.CaptureFixture[str]):
    assert main(["report", str(finished("empty").folder)]) == 2
    assert "no test scores" in capsys.readouterr().err
    assert Run.open("results/Padim/coins/empty").status == "finished"
