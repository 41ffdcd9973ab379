"""A report's charts as SVG text, from facts already computed."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = tuple[NDArray[np.float64], NDArray[np.float64]]
GOOD, BAD, LINE = "#3478b8", "#c8502a", "#2a9d57"


def curve_chart(curves: Mapping[str, Points], labels: tuple[str, str], title: str, diagonal: bool = False) -> str:
    """Draw curves in the unit square, one a run."""
    figure, axis = _figure(4.4, 4.2)
    for name, (x, y) in curves.items():
        axis.plot(x, y, label=name, linewidth=1.6, drawstyle="default")
    if diagonal:
        axis.plot([0, 1], [0, 1], color="#aaaaaa", linewidth=0.8, linestyle="--")
    axis.set(xlabel=labels[0], ylabel=labels[1], title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axis.legend(fontsize=7, loc="lower right" if diagonal else "lower left")
    return _svg(figure)


def histogram(good: Sequence[float], bad: Sequence[float], threshold: float | None, title: str) -> str:
    """Draw the scores of both classes as histograms above, and their cumulative shares below, with the threshold."""
    figure, (top, bottom) = _figure(6.4, 4.8, rows=2, sharex=True)
    scores = np.array([*good, *bad])
    finite = scores[np.isfinite(scores)]
    edges = np.histogram_bin_edges(finite, bins=min(40, max(8, finite.size // 3)))
    for values, name, colour in ((good, "good", GOOD), (bad, "anomalous", BAD)):
        if not len(values):
            continue
        top.hist(values, edges, color=colour, alpha=0.6, label=f"{name} ({len(values)})")
        ordered = np.sort(values)
        bottom.step(ordered, np.arange(1, ordered.size + 1) / ordered.size, where="post", color=colour)
    for axis in (top, bottom):
        if threshold is not None:
            axis.axvline(threshold, color=LINE, linewidth=1.6, label="threshold" if axis is top else None)
    top.set(ylabel="images", title=title)
    top.legend(fontsize=8)
    bottom.set(xlabel="raw score", ylabel="share at or below", ylim=(0, 1.03))
    return _svg(figure)


def loss_chart(history: Mapping[str, Sequence[float | None]], title: str) -> str:
    """Draw training losses by epoch."""
    figure, axis = _figure(6.4, 2.8)
    for name, values in history.items():
        axis.plot(np.arange(1, len(values) + 1), [np.nan if v is None else v for v in values], "o-", label=name, ms=3)
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
