"""A run's results as files, and all runs as a table: against pandas-like counts of the same rows."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import finished, run_with_maps
from PIL import Image

from defectlab.cli import main
from defectlab.results.curves import by_kind
from defectlab.utils import paths
from defectlab.utils.errors import InputError
from defectlab.visualization.charts import confusion_figure, cumulative_figure
from defectlab.visualization.result_files import write_result_files


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.row("3.20")
def test_the_files_hold_what_the_scores_say(tmp_path: Path):
    run = run_with_maps("one", 42, 30, 0.6, paths.project_root())
    written = write_result_files(run, tmp_path / "report")
    assert sorted(file.name for file in written) == [
        "avg_score_by_label.csv", "cumulative_histogram.png", "test_confusion_matrix.png", "test_predictions.csv",
        "test_results.json",
    ]  # fmt: skip
    rows, predictions = run.scores("test"), read(tmp_path / "report/test_predictions.csv")
    assert [row["image_path"] for row in predictions] == [row.image_path for row in rows]
    assert [float(row["predicted_score"]) for row in predictions] == [row.score for row in rows]
    assert [row["ground_truth_label"] for row in predictions] == [row.defect for row in rows]
    assert [row["predicted_label"] == "anomalous" for row in predictions] == [row.score > 0.5 for row in rows]
    by_label = defaultdict(list)
    for row in rows:
        by_label[row.defect].append(row.score)
    averages = read(tmp_path / "report/avg_score_by_label.csv")
    assert {row["label"]: float(row["avg_anomaly_score"]) for row in averages} == {
        label: pytest.approx(np.mean(scores)) for label, scores in by_label.items()
    }
    values = [float(row["avg_anomaly_score"]) for row in averages]
    assert values == sorted(values)
    results = json.loads((tmp_path / "report/test_results.json").read_text())
    assert results["metrics"] == run.record.metrics
    flagged = {kind["label"]: kind["called_anomalous"] for kind in results["kinds"]}
    assert flagged == {label: sum(score > 0.5 for score in scores) for label, scores in by_label.items()}
    for name in ("cumulative_histogram.png", "test_confusion_matrix.png"):
        assert Image.open(tmp_path / "report" / name).width > 400


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


def test_a_run_without_scores_has_no_files_and_one_without_a_threshold_no_confusion(tmp_path: Path):
    with pytest.raises(InputError, match="no test scores"):
        write_result_files(finished("empty"), tmp_path)
    run = run_with_maps("one", 42, 6, 0.6, paths.project_root())
    run.update(
        thresholds={level: chosen.replaced(value=None) for level, chosen in run.record.thresholds.by_level.items()}
    )
    assert "test_confusion_matrix.png" not in {file.name for file in write_result_files(run, tmp_path)}


def test_report_writes_them_on_request(capsys: pytest.CaptureFixture[str]):
    run = run_with_maps("one", 42, 6, 0.6, paths.project_root())
    assert main(["report", str(run.folder)]) == 0
    assert not (run.folder / "report").exists()
    assert main(["report", str(run.folder), "--files"]) == 0
    assert (run.folder / "report/test_predictions.csv").is_file()
    assert "report/avg_score_by_label.csv" in capsys.readouterr().out.replace("\\", "/")


def test_all_runs_as_one_markdown_table(capsys: pytest.CaptureFixture[str]):
    finished("one", metrics={"image_AUROC": 0.75})
    finished("two", dataset="bottle", metrics={"image_AUROC": None})
    assert main(["compare", "--table"]) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = [cell.strip() for cell in header.strip("|").split("|")]
    assert [row[0] for row in cells] == ["bottle", "coins"]
    assert [row[names.index("image_AUROC")] for row in cells] == ["-", "0.750"]
    assert not paths.workbook().exists(), "it only prints"
    assert main(["compare", "--table", "--prune"]) == 2
    one = finished("one")
    assert main(["compare", str(one.folder), "--table"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
