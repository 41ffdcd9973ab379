"""Finished runs side by side as a Markdown table: what was tried, and what it came to."""

from collections.abc import Sequence
from typing import Any

from defectlab.results.run.run import Run

RATES = ("image_TPR", "image_TNR", "image_AUROC")
ALL_RATES = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score", "image_TPR", "image_TNR")


def experiment_table(runs: Sequence[Run], metrics: Sequence[str] = RATES) -> str:
    """Return type, parameters, epochs, learning rate, threshold, metrics and seconds of each run, a row each.

    A metric that cannot be computed is "-", as is a learning rate that a model does not have. Runs of several datasets
    get a column that says which.
    """
    several = len({run.record["dataset"]["name"] for run in runs}) > 1
    header = [
        *(["dataset"] if several else []),
        "model",
        "run",
        "parameters",
        "epochs",
        "lr",
        "threshold",
        *metrics,
        "fit s",
    ]
    lines = [
        f"| {' | '.join(header)} |",
        "| --- | --- |" + " --- |" * several + " ---: |" * (len(header) - 2 - several),
    ]
    for run in runs:
        experiment = run.record["experiment"]
        cells = [
            *([run.record["dataset"]["name"]] if several else []),
            run.folder.parent.parent.name,
            run.record["name"],
            _millions(run.record.get("parameters")),
            experiment["trainer"].get("max_epochs", "-"),
            experiment["model"].get("lr", "-"),
            _number(run.record["thresholds"]["image"]["value"], ".4g"),
            *(_number(run.record["metrics"].get(metric), ".3f") for metric in metrics),
            _number(run.record["timings"].get("fit"), ".0f"),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _millions(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.2f} M"


def _number(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)
