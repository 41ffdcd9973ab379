"""Charts of scores, losses and metrics: SVG text for reports, matplotlib figures, Pillow images of recorded runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from defectlab.evaluation.metrics import auroc, sort_scores
from defectlab.evaluation.pixel.curves import Points
from defectlab.results.comparison.ranking import RANKED_BY, Ranking
from defectlab.results.curves import Kind, roc_points
from defectlab.results.evaluate import columns
from defectlab.results.run.category_run import one_dataset
from defectlab.results.run.run import Run
from defectlab.results.workbook_row import KEY
from defectlab.visualization.canvas import (
    BAD,
    GOOD,
    LINE,
    WRONG,
    draw_losses,
    draw_shares,
    draw_strokes,
    new_figure,
    to_image,
    to_svg,
)
from defectlab_runtime import names
from defectlab_runtime.errors import InputError

LABEL = 48  # characters of a name beside an axis


def curve_chart(
    curves: Mapping[str, Points],
    labels: tuple[str, str],
    title: str,
    diagonal: bool = False,
    limit: float | None = None,
) -> str:
    """Return an SVG chart of curves in the unit square, one for each name; the range of x up to `limit` is shaded."""
    figure, (axis,) = new_figure((4.2, 4.0))
    for name, (x, y) in curves.items():
        axis.plot(x, y, label=names.figure(name), linewidth=1.6, drawstyle="default")
    if diagonal:
        axis.plot([0, 1], [0, 1], color="#aaaaaa", linewidth=0.8, linestyle="--")
    if limit is not None:
        axis.axvspan(0, limit, color="#3478b8", alpha=0.08, linewidth=0)
    axis.set(xlabel=labels[0], ylabel=labels[1], title=names.figure(title), xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axis.legend(fontsize=7, loc="lower right" if diagonal or limit else "lower left")
    return to_svg(figure)


def histogram(good: Sequence[float], bad: Sequence[float], threshold: float | None, title: str) -> str:
    """Return an SVG chart: histograms of the scores of both classes above cumulative shares, with the threshold."""
    figure, (top, bottom) = new_figure((6.4, 4.8), rows=2, sharex=True)
    scores = np.array([*good, *bad])
    finite = scores[np.isfinite(scores)]
    edges = _edges(finite, min(40, max(8, finite.size // 3)))
    for values, name, colour in ((good, "good", GOOD), (bad, "anomalous", BAD)):
        if not len(values):
            continue
        top.hist(values, edges, color=colour, alpha=0.6, label=f"{name} ({len(values)})")
    if threshold is not None:
        top.axvline(threshold, color=LINE, linewidth=1.6, label="threshold")
    top.set(ylabel="images", title=names.figure(title))
    top.legend(fontsize=8)
    _cumulative(bottom, good, bad, threshold)
    return to_svg(figure)


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges of histogram bins, with a margin added if the values are too close to be separated."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = max(abs(low), abs(high), 1.0) / 2
        low, high = low - margin, high + margin
    return np.linspace(low, high, bins + 1)


def cumulative_figure(good: Sequence[float], bad: Sequence[float], threshold: float | None, title: str) -> Any:
    """Return a figure of the share of good and of anomalous images at or below each score, with the threshold."""
    figure, (axis,) = new_figure((7.2, 4.6))
    _cumulative(axis, good, bad, threshold)
    axis.set(title=names.figure(title))
    axis.grid(color="#e4e4e8")
    axis.legend(fontsize=8)
    return figure


def _cumulative(axis: Any, good: Sequence[float], bad: Sequence[float], threshold: float | None) -> None:
    draw_shares(axis, {"good": (np.asarray(good), GOOD), "anomalous": (np.asarray(bad), BAD)})
    if threshold is not None:
        axis.axvline(threshold, color=LINE, linewidth=1.6, label="threshold")
    axis.set(xlabel="raw score", ylabel="share at or below", ylim=(0, 1.03))


def confusion_figure(kinds: Sequence[Kind], title: str) -> Any:
    """Return a figure with counts of the decisions for images of each kind; false alarms have a separate column.

    Every kind must have `flagged` set for the counts to be meaningful; None counts as 0.
    """
    columns = ("called good", "defect found", "false_defect")
    counts = np.zeros((len(kinds), len(columns)), dtype=int)
    for place, kind in enumerate(kinds):
        counts[place, 0] = kind.count - (kind.flagged or 0)
        counts[place, 2 if kind.label == 0 else 1] = kind.flagged or 0
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, (axis,) = new_figure((6.0, 1.6 + 0.5 * len(kinds)))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        kind = kinds[row]
        wrong = count and (column == 2 or (column == 0 and kind.label == 1))
        axis.text(column, row, str(count), ha="center", va="center", color=WRONG if wrong else "black")
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(
        range(len(kinds)), [f"{names.figure(kind.defect or 'unknown', LABEL)} ({kind.count})" for kind in kinds]
    )
    axis.set(title=names.figure(title))
    return figure


def interval_chart(values: Mapping[str, tuple[float, float | None, float | None]], title: str) -> str:
    """Return an SVG chart of a value with its interval for each name, the first on top."""
    figure, (axis,) = new_figure((8.4, 1.1 + 0.28 * len(values)))
    for place, (value, low, high) in enumerate(values.values()):
        if low is not None and high is not None:
            axis.plot([low, high], [place, place], color="#9cc3e6", linewidth=5, solid_capstyle="butt")
        axis.plot([value], [place], "o", color=GOOD, markersize=5)
    labels = [names.figure(name) for name in values]
    axis.set(title=names.figure(title), yticks=range(len(values)), yticklabels=labels, ylim=(len(values) - 0.5, -0.5))
    axis.grid(axis="x", color="#e4e4e8")
    axis.tick_params(axis="y", labelsize=8)
    return to_svg(figure)


def cuts_chart(scores: Mapping[str, Sequence[float]], cuts: Sequence[tuple[str, float]], title: str, label: str) -> str:
    """Return an SVG chart of good and anomalous scores as strokes, with the named thresholds below them."""
    figure, (axis,) = new_figure((9.6, 1.5 + 0.3 * len(cuts)))
    heights = [-1.2 + place for place in range(len(scores))]
    for height, values, colour in zip(heights, scores.values(), (GOOD, BAD), strict=True):
        draw_strokes(axis, values, height, colour, 14, 1.5)
    for place, (_, cut) in enumerate(cuts, 1):
        axis.plot([cut, cut], [-1.6, place], color=LINE, linewidth=0.8, alpha=0.6)
        axis.plot([cut], [place], "o", color=LINE, markersize=6)
    axis.set(ylim=(len(cuts) + 0.6, -1.8), xlabel=names.figure(label), title=names.figure(title))
    axis.set_yticks([*heights, *range(1, len(cuts) + 1)], [*scores, *(name for name, _ in cuts)], fontsize=8)
    axis.spines[["top", "left", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return to_svg(figure)


def loss_chart(history: Mapping[str, Sequence[float | None]], title: str) -> str:
    """Draw losses by epoch, on a logarithmic axis where all are above 0; epochs without a value are passed over."""
    figure, (axis,) = new_figure((6.4, 2.8))
    draw_losses(axis, history)
    axis.set(title=names.figure(title))
    axis.legend(fontsize=8)
    return to_svg(figure)


def training_figure(run: Run) -> Image.Image:
    """Return a picture of a run's losses by epoch: of training, and of validation images if the model has such losses.

    Each point is the mean of one epoch; the axis is logarithmic where all losses are above 0.

    Raises:
        InputError: The run has no losses: it has not been trained yet, or its model has none.
    """
    history = {name: values for name, values in run.record.history.items() if values}
    if not history:
        raise InputError(f"{run.folder} has no losses (status {run.status}): models that fit in one pass have none.")
    figure, (axis,) = new_figure((10, 5))
    draw_losses(axis, {name.replace("_", " "): values for name, values in history.items()})
    if axis.get_yscale() == "log":
        from matplotlib.ticker import LogFormatter  # slow to import

        axis.yaxis.set_major_formatter(LogFormatter())  # 20, not 2 x 10^1
        axis.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
    axis.set(title=names.figure(f"{run.title}: losses by epoch"))
    axis.legend(frameon=False)
    return to_image(figure)


def roc_figure(run: Run) -> Image.Image:
    """Return a picture of the ROC curve of a run's test images, with its area, the diagonal and the threshold.

    Raises:
        InputError: The run has no test scores, they are of one kind only, or it serves several categories.
    """
    one_dataset(run, "a ROC curve")
    scores, labels = columns(run.scores("test"))
    curve = sort_scores(scores, labels)
    if curve.problem or not curve.positives.size or not curve.negatives.size:
        raise InputError(
            f"{run.folder} has no ROC curve: it needs good and anomalous test images with scores (status {run.status})."
        )
    figure, (axis,) = new_figure((8, 8))
    axis.plot(*roc_points(curve), linewidth=2, label=f"AUROC {auroc(curve).value:.4f}")
    axis.plot([0, 1], [0, 1], "--", color="#9a9aa0", linewidth=1, label="chance")
    threshold = run.record.thresholds.image.value
    if threshold is not None:
        flagged = [float((part > threshold).mean()) for part in (curve.negatives, curve.positives)]
        axis.plot(*([share] for share in flagged), "D", color=LINE, label=f"threshold {threshold:.4g}")
    axis.set(
        xlabel="good flagged (FPR)",
        ylabel="defects caught (TPR)",
        title=names.figure(f"{run.title}: image ROC"),
        aspect="equal",
    )
    axis.legend(loc="lower right", frameon=False)
    return to_image(figure)


def metric_bars(runs: Sequence[Run], metrics: Sequence[str] = ("image_TPR", "image_TNR")) -> Image.Image:
    """Return a bar chart of metrics, with a group for each run; a metric that cannot be computed has no bar.

    Raises:
        InputError: No run.
    """
    if not runs:
        raise InputError("metric_bars needs at least one run.")
    figure, (axis,) = new_figure((max(5, 2.2 * len(runs)), 4))
    width = 0.8 / len(metrics)
    for place, metric in enumerate(metrics):
        values = [run.record.metrics.get(metric) for run in runs]
        bars = axis.bar(
            [x + place * width for x, value in enumerate(values) if value is not None],
            [value for value in values if value is not None],
            0.94 * width,
            label=metric,
        )
        axis.bar_label(bars, fmt="%.2f", fontsize=8)
    axis.set_xticks(
        np.arange(len(runs)) + (len(metrics) - 1) * width / 2,
        [names.figure(run.title, LABEL) for run in runs],
        fontsize=8,
    )
    axis.set(ylim=(0, 1.08), ylabel="share")
    axis.legend(loc="lower right", fontsize=8)
    return to_image(figure)


def ranking_chart(ranking: Ranking) -> str:
    """Return an SVG chart of the image AUROC of each configuration with its interval."""
    ranked: dict[str, tuple[float, float | None, float | None]] = {}
    for entry in ranking.entries:
        if RANKED_BY in entry.spreads:
            name = f"{entry.rows[0].get('model', '')} {entry.name}"
            name += f" {entry.rows[0][KEY]}" if name in ranked else ""
            ranked[name] = entry.spreads[RANKED_BY].mean, entry.interval.low, entry.interval.high
    return interval_chart(ranked, f"{ranking.group[0]}: image AUROC, 95 % interval over images")
