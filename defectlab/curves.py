"""A run's curves, a figure a call, as Pillow images, which every notebook shows and `.save` writes."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from defectlab.errors import InputError
from defectlab.evaluation.metrics import auroc, sorted_curve
from defectlab.figures import new_axes, rendered
from defectlab.results.charts import LINE
from defectlab.results.evaluate import columns
from defectlab.results.facts import roc_points
from defectlab.results.record import Run

Epochs = list[float | None]


def training_figure(run: Run) -> Image.Image:
    """Return the losses of a run by epoch: training, and good and anomalous validation images where the model has them.

    Each point is the mean of one epoch; the axis is logarithmic where all losses are above 0.

    Raises:
        InputError: The run has no losses: it has not been trained yet, or its model has none.
    """
    history: dict[str, Epochs] = {name: values for name, values in run.record.get("history", {}).items() if values}
    if not history:
        raise InputError(f"{run.folder} has no losses (status {run.status}): models that fit in one pass have none.")
    figure, (axis,) = new_axes(1, (10, 5))
    for name, values in history.items():
        shown = [(epoch, value) for epoch, value in enumerate(values, 1) if value is not None]
        epochs, losses = zip(*shown, strict=True) if shown else ((), ())
        axis.plot(epochs, losses, "o-", markersize=3, label=name.replace("_", " "))
    if all(value is None or value > 0 for values in history.values() for value in values):
        from matplotlib.ticker import LogFormatter  # slow to import

        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(LogFormatter())  # 20, not 2 x 10^1
        axis.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    axis.set(xlabel="epoch", ylabel="loss", title=f"{_title(run)}: losses by epoch")
    axis.legend(frameon=False)
    return rendered(figure)


def roc_figure(run: Run) -> Image.Image:
    """Return the ROC curve of a run's test images, with its area, the diagonal and where the threshold stands.

    Raises:
        InputError: The run has no test scores, or they are of one kind only.
    """
    scores, labels = columns(run.scores("test"))
    curve = sorted_curve(scores, labels)
    if curve.problem or not curve.positives.size or not curve.negatives.size:
        raise InputError(
            f"{run.folder} has no ROC curve: it needs good and anomalous test images with scores (status {run.status})."
        )
    figure, (axis,) = new_axes(1, (8, 8))
    axis.plot(*roc_points(curve), linewidth=2, label=f"AUROC {auroc(scores, labels).value:.4f}")
    axis.plot([0, 1], [0, 1], "--", color="#9a9aa0", linewidth=1, label="chance")
    threshold = run.record["thresholds"]["image"]["value"]
    if threshold is not None:
        flagged = [float((part > threshold).mean()) for part in (curve.negatives, curve.positives)]
        axis.plot(*([share] for share in flagged), "D", color=LINE, label=f"threshold {threshold:.4g}")
    axis.set(
        xlabel="good flagged (FPR)", ylabel="defects caught (TPR)", title=f"{_title(run)}: image ROC", aspect="equal"
    )
    axis.legend(loc="lower right", frameon=False)
    return rendered(figure)


def metric_bars(runs: Sequence[Run], metrics: Sequence[str] = ("image_TPR", "image_TNR")) -> Image.Image:
    """Return metrics of runs as bars, a group for each run; one that cannot be computed has no bar.

    Raises:
        InputError: No run.
    """
    if not runs:
        raise InputError("metric_bars needs at least one run.")
    figure, (axis,) = new_axes(1, (max(5, 2.2 * len(runs)), 4))
    width = 0.8 / len(metrics)
    for place, metric in enumerate(metrics):
        values = [run.record["metrics"].get(metric) for run in runs]
        bars = axis.bar(
            [x + place * width for x, value in enumerate(values) if value is not None],
            [value for value in values if value is not None],
            0.94 * width,
            label=metric,
        )
        axis.bar_label(bars, fmt="%.2f", fontsize=8)
    axis.set_xticks(np.arange(len(runs)) + (len(metrics) - 1) * width / 2, [_title(run) for run in runs], fontsize=8)
    axis.set(ylim=(0, 1.08), ylabel="share")
    axis.legend(loc="lower right", fontsize=8)
    return rendered(figure)


def _title(run: Run) -> str:
    return f"{run.folder.parent.parent.name} {run.record['name']}"
