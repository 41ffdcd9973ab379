"""Files of a run's test results for other programs: predictions, averages, confusion, cumulative histogram."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from defectlab.results.curves import Kind, by_kind
from defectlab.results.run.category_run import one_dataset
from defectlab.results.run.run import Run
from defectlab.utils.files import replacing, write_csv, write_json
from defectlab.visualization.charts import confusion_figure, cumulative_figure
from defectlab_runtime.errors import InputError
from defectlab_runtime.scores import ScoreRow

# Those that change with the run's thresholds.
AT_THRESHOLDS = ("test_results.json", "test_predictions.csv", "cumulative_histogram.png", "test_confusion_matrix.png")
PREDICTED = {1: "anomalous", 0: "good", -1: ""}


def write_result_files(run: Run, folder: Path) -> Iterator[Path]:
    """Write the results of a run's test into `folder`; yield the path of each file.

    `test_results.json` (metrics, thresholds, counts by kind), `test_predictions.csv` (image_path, predicted_label,
    ground_truth_label, predicted_score; the label is the kind of defect), `avg_score_by_label.csv` (label,
    avg_anomaly_score, ascending), `cumulative_histogram.png` and, where the run has a threshold,
    `test_confusion_matrix.png`. Scores are raw.

    Raises:
        InputError: The run has no test scores, or serves several categories.
    """
    one_dataset(run, "this set of files")
    rows = run.scores("test")
    if not rows:
        raise InputError(f"{run.folder} has no test scores (status {run.status}): there are no results to write.")
    threshold = run.record.thresholds.image.value
    kinds = by_kind(rows, threshold)
    folder.mkdir(parents=True, exist_ok=True)
    results, predictions, averages = (
        folder / name for name in ("test_results.json", "test_predictions.csv", "avg_score_by_label.csv")
    )
    write_json(results, _results(run, kinds))
    yield results
    header = ("image_path", "predicted_label", "ground_truth_label", "predicted_score")
    write_csv(predictions, header, ((*_labels(row), row.score) for row in rows))
    yield predictions
    write_csv(averages, ("label", "avg_anomaly_score"), ((kind.defect or "unknown", kind.mean_score) for kind in kinds))
    yield averages
    good, bad = ([row.score for row in rows if row.label == label] for label in (0, 1))
    title = f"{run.model} on {run.dataset}"
    yield _save(folder / "cumulative_histogram.png", cumulative_figure(good, bad, threshold, title))
    if threshold is not None:
        yield _save(folder / "test_confusion_matrix.png", confusion_figure(kinds, title))


def _results(run: Run, kinds: Sequence[Kind]) -> dict[str, Any]:
    record = run.record
    return {
        "run_id": record.run_id,
        "run": record.name,
        "dataset": record.dataset.name,
        "metrics": record.metrics,
        "metric_reasons": record.metric_reasons,
        "thresholds": record.thresholds.to_dict(),
        "kinds": [
            {"label": kind.defect or "unknown", "images": kind.count, "called_anomalous": kind.flagged}
            for kind in kinds
        ],
    }


def _labels(row: ScoreRow) -> tuple[str, str, str]:
    return row.image_path, PREDICTED[row.pred_label], row.defect or "unknown"


def _save(path: Path, figure: Any) -> Path:
    with replacing(path) as partial, partial.open("wb") as file:
        figure.savefig(file, format="png")
    return path
