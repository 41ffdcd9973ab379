"""The report as a browser would get it."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers.models import data, small
from helpers.runs import finished, run_with_maps

from defectlab import Engine
from defectlab.cli import main
from defectlab.results.curves import by_kind
from defectlab.results.evaluate import evaluate_run
from defectlab.results.run.run import Run
from defectlab.visualization.report import write_report
from defectlab_runtime.errors import InputError
from defectlab_runtime.scores import ScoreRow


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


def test_a_thousand_test_images_stay_readable(own_project: Path):
    text = write_report([run_with_maps("many", 0, 1000, 0.5, own_project)], own_project / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert len(page.sources) == 3 * 6 * 5 + 1
    assert len(text) < 1_000_000
    assert "good (334)" in text


def test_several_runs_stand_side_by_side(own_project: Path):
    runs = [run_with_maps("sharp", seed, 90, 0.5, own_project) for seed in (0, 1)]
    runs += [run_with_maps("blunt", 0, 90, 3.0, own_project), run_with_maps("almost", 0, 90, 0.6, own_project, draw=9)]
    text = write_report(runs, own_project / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert len(page.sources) == 4 * (3 * 3 * 5 + 1)
    tables = page.tables
    ranking, kinds = tables[0], tables[1]
    assert [row[1] for row in ranking[1:]] == ["best", "", "", "tied with the best", "worse", ""]
    assert [row[6] for row in ranking[1:4]] == ["sharp", "sharp", "sharp_seed-1"]
    assert ranking[1][2:4] == ["coins", "3 good + 2 anomalous"], "as the record's protocol has them"
    assert ranking[-1][6] == "calls every image anomalous"
    assert kinds[0] == ["model", "run", "good", "hole", "scratch"]
    facts = {kind.defect: kind for kind in by_kind(runs[0].scores("test"), 0.5)}
    row = next(row for row in kinds if row[1] == "sharp")
    assert row[2] == f"{facts['good'].flagged} of 30 flagged"
    pixels = next(kind for kind in runs[0].record.per_defect if kind.defect == "hole").pixel_auroc
    assert row[3] == f"{facts['hole'].auroc:.3f}; pixels {pixels:.3f}; {facts['hole'].flagged} of 30 caught"
    confusion = next(table for table in tables if "called good" in table[0])
    shown = {row[0]: row[2:5] for row in confusion[1:]}
    name = next(text for text in page.headings if "sharp" in text)
    assert name == "Padim sharp"
    assert shown["scratch"] == ["30", str(30 - facts["scratch"].flagged), str(facts["scratch"].flagged)]
    averages = next(table for table in tables if table[0] == ["label", "images", "average score"])
    assert [row[0] for row in averages[1:]] == ["good", "anomalous"]
    assert "losses by epoch" in text
    assert text.count("per-region overlap") == 1


def test_runs_of_other_splits_have_tables_of_their_own(own_project: Path):
    runs = [run_with_maps("one", 0, 30, 0.5, own_project), run_with_maps("two", 1, 30, 0.5, own_project)]
    runs[1].update(dataset=runs[1].record.dataset.replaced(manifest="another"))
    text = write_report(runs, own_project / "report.html").read_text()
    assert "rank them within a table, never across" in text
    page = Page()
    page.feed(text)
    assert sum("image AUROC" in table[0] for table in page.tables) == 2


def test_a_run_without_scores_cannot_be_reported(capsys: pytest.CaptureFixture[str]):
    assert main(["report", str(finished("empty").folder)]) == 2
    assert "no test scores" in capsys.readouterr().err
    assert Run.open("results/Padim/coins/empty").status == "finished"


@pytest.mark.filterwarnings("error")
def test_maps_that_are_no_numbers_are_shown_for_what_they_are(own_project: Path):
    run = run_with_maps("broken", 0, 9, 0.5, own_project)
    maps = np.load(run.maps_path("test"))
    maps[0, :4], maps[1, :4], maps[2] = np.nan, np.inf, -np.inf
    np.save(run.maps_path("test"), maps)
    run.update(**evaluate_run(run))
    text = write_report([run], own_project / "report.html").read_text()
    assert "3 of 9 anomaly maps have values that are not finite" in text
    assert "image ROC" in text
    assert "pixel ROC" not in text


def test_where_no_report_can_be_written_is_said_first(tmp_path: Path):
    run = finished("a")
    run.write_scores([ScoreRow("a.png", "test", "good", 0, 0.1, 0)])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"is a folder: name the file to write, such as .*report\.html"):
        write_report([run], tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        write_report([run], tmp_path / "file" / "report.html")


def test_one_model_for_two_categories_has_a_section_and_a_row_for_each(both: Run, tmp_path: Path):
    text = write_report([both], tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.headings[:2] == ["bolt", "nut"]  # a ranking of each
    assert {f"{both.title} (bolt)", f"{both.title} (nut)"} <= set(page.headings)
    assert "one model for 2 categories: bolt, nut" in text
    for name, thresholds in both.record.thresholds.categories.items():
        section = text.partition(f"({name})</h2>")[2].partition("<h2")[0]
        assert f"{thresholds.image.value:.4g}"[:5] in section
