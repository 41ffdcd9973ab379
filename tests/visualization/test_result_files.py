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
from defectlab.utils import paths
from defectlab.visualization.result_files import write_result_files
from defectlab_runtime.errors import InputError


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.row("3.20")
def test_the_files_hold_what_the_scores_say(tmp_path: Path):
    run = run_with_maps("one", 42, 30, 0.6, paths.project_root())
    written = list(write_result_files(run, tmp_path / "report"))
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


def test_a_run_without_scores_has_no_files_and_one_without_a_threshold_no_confusion(tmp_path: Path):
    with pytest.raises(InputError, match="no test scores"):
        list(write_result_files(finished("empty"), tmp_path))
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
