"""A report's charts as SVG text, from facts already computed."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from defectlab.evaluation.pixel_curves import Points
from defectlab.results.facts import Kind

GOOD, BAD, LINE, WRONG = "#3478b8", "#c8502a", "#2a9d57", "#be141e"


def curve_chart(
    curves: Mapping[str, Points],
    labels: tuple[str, str],
    title: str,
    diagonal: bool = False,
    limit: float | None = None,
) -> str:
    """Draw curves in the unit square, one a run; `limit` marks the part up to there."""
    figure, axis = _figure(4.2, 4.0)
    for name, (x, y) in curves.items():
        axis.plot(x, y, label=name, linewidth=1.6, drawstyle="default")
    if diagonal:
        axis.plot([0, 1], [0, 1], color="#aaaaaa", linewidth=0.8, linestyle="--")
    if limit is not None:
        axis.axvspan(0, limit, color="#3478b8", alpha=0.08, linewidth=0)
    axis.set(xlabel=labels[0], ylabel=labels[1], title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axis.legend(fontsize=7, loc="lower right" if diagonal or limit else "lower left")
    return _svg(figure)


def histogram(good: Sequence[float], bad: Sequence[float], threshold: float | None, title: str) -> str:
    """Draw the scores of both classes as histograms above, and their cumulative shares below, with the threshold."""
    figure, (top, bottom) = _figure(6.4, 4.8, rows=2, sharex=True)
    scores = np.array([*good, *bad])
    finite = scores[np.isfinite(scores)]
    edges = _edges(finite, min(40, max(8, finite.size // 3)))
    for values, name, colour in ((good, "good", GOOD), (bad, "anomalous", BAD)):
        if not len(values):
            continue
        top.hist(values, edges, color=colour, alpha=0.6, label=f"{name} ({len(values)})")
    if threshold is not None:
        top.axvline(threshold, color=LINE, linewidth=1.6, label="threshold")
    top.set(ylabel="images", title=title)
    top.legend(fontsize=8)
    _cumulative(bottom, good, bad, threshold)
    return _svg(figure)


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges of histogram bins, wider than the values where these are too close to be parted."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = max(abs(low), abs(high), 1.0) / 2
        low, high = low - margin, high + margin
    return np.linspace(low, high, bins + 1)


def cumulative_figure(good: Sequence[float], bad: Sequence[float], threshold: float | None, title: str) -> Any:
    """Return a figure of the share of good and of anomalous images at or below each score, with the threshold."""
    figure, axis = _figure(7.2, 4.6)
    _cumulative(axis, good, bad, threshold)
    axis.set(title=title)
    axis.grid(color="#e4e4e8")
    axis.legend(fontsize=8)
    return figure


def _cumulative(axis: Any, good: Sequence[float], bad: Sequence[float], threshold: float | None) -> None:
    for values, name, colour in ((good, "good", GOOD), (bad, "anomalous", BAD)):
        ordered = np.sort(values)
        shares = np.arange(1, ordered.size + 1) / max(ordered.size, 1)
        axis.step(ordered, shares, where="post", color=colour, label=f"{name} ({ordered.size})")
    if threshold is not None:
        axis.axvline(threshold, color=LINE, linewidth=1.6, label="threshold")
    axis.set(xlabel="raw score", ylabel="share at or below", ylim=(0, 1.03))


def confusion_figure(kinds: Sequence[Kind], title: str) -> Any:
    """Return a figure of how many images of each kind were called what; false alarms have a column of their own.

    Every kind has a `flagged`.
    """
    columns = ("called good", "defect found", "false_defect")
    counts = np.zeros((len(kinds), len(columns)), dtype=int)
    for place, kind in enumerate(kinds):
        counts[place, 0] = kind.count - (kind.flagged or 0)
        counts[place, 2 if kind.label == 0 else 1] = kind.flagged or 0
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axis = _figure(6.0, 1.6 + 0.5 * len(kinds))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        kind = kinds[row]
        wrong = count and (column == 2 or (column == 0 and kind.label == 1))
        axis.text(column, row, str(count), ha="center", va="center", color=WRONG if wrong else "black")
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(kinds)), [f"{kind.defect or 'unknown'} ({kind.count})" for kind in kinds])
    axis.set(title=title)
    return figure


def interval_chart(values: Mapping[str, tuple[float, float | None, float | None]], title: str) -> str:
    """Draw a value with the ends of its interval for each name, the first on top."""
    figure, axis = _figure(8.4, 1.1 + 0.28 * len(values))
    for place, (value, low, high) in enumerate(values.values()):
        if low is not None and high is not None:
            axis.plot([low, high], [place, place], color="#9cc3e6", linewidth=5, solid_capstyle="butt")
        axis.plot([value], [place], "o", color=GOOD, markersize=5)
    axis.set(title=title, yticks=range(len(values)), yticklabels=list(values), ylim=(len(values) - 0.5, -0.5))
    axis.grid(axis="x", color="#e4e4e8")
    axis.tick_params(axis="y", labelsize=8)
    return _svg(figure)


def cuts_chart(scores: Mapping[str, Sequence[float]], cuts: Sequence[tuple[str, float]], title: str, label: str) -> str:
    """Draw the scores of good and of anomalous images as strokes, and below them where each named threshold cuts."""
    figure, axis = _figure(9.6, 1.5 + 0.3 * len(cuts))
    heights = [-1.2 + place for place in range(len(scores))]
    for height, values, colour in zip(heights, scores.values(), (GOOD, BAD), strict=True):
        axis.plot(values, np.full(len(values), height), "|", color=colour, markersize=14, markeredgewidth=1.5)
    for place, (_, cut) in enumerate(cuts, 1):
        axis.plot([cut, cut], [-1.6, place], color=LINE, linewidth=0.8, alpha=0.6)
        axis.plot([cut], [place], "o", color=LINE, markersize=6)
    axis.set(ylim=(len(cuts) + 0.6, -1.8), xlabel=label, title=title)
    axis.set_yticks([*heights, *range(1, len(cuts) + 1)], [*scores, *(name for name, _ in cuts)], fontsize=8)
    axis.spines[["top", "left", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    return _svg(figure)


def loss_chart(history: Mapping[str, Sequence[float | None]], title: str) -> str:
    """Draw losses by epoch, on a logarithmic axis where all are above 0; epochs without a value are passed over."""
    figure, axis = _figure(6.4, 2.8)
    for name, values in history.items():
        measured = [(epoch, value) for epoch, value in enumerate(values, 1) if value is not None]
        epochs, losses = zip(*measured, strict=True) if measured else ((), ())
        axis.plot(epochs, losses, "o-", label=name, ms=3)
    if all(value is None or value > 0 for values in history.values() for value in values):
        axis.set_yscale("log")  # the first epochs would hide the others
    axis.set(xlabel="epoch", ylabel="loss", title=title)
    axis.legend(fontsize=8)
    return _svg(figure)


def _figure(width: float, height: float, rows: int = 1, **options: Any) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, 1, **options)


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "defectlab"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
