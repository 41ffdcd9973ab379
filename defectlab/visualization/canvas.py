"""Figures drawn on matplotlib's axes without pyplot, whose state would make a notebook show each figure twice.

What is drawn once becomes a picture (`to_image`) or SVG text (`to_svg`).
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

GOOD, BAD, LINE, WRONG, THIS = "#3478b8", "#c8502a", "#2a9d57", "#be141e", "#111111"
DPI = 110


def new_figure(size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any) -> tuple[Any, Sequence[Any]]:
    """Return a figure of (width, height) in inches and its axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=DPI)
    return figure, figure.subplots(rows, columns, squeeze=False, **options).ravel()


def to_image(figure: Any) -> Image.Image:
    """Render a figure as an RGB Pillow image."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer, formats=["PNG"]).convert("RGB")


def to_svg(figure: Any) -> str:
    """Render a figure as SVG text, which is deterministic: equal figures give equal text."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "defectlab"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def image_row(panels: Mapping[str, np.ndarray], size: tuple[float, float]) -> tuple[Any, Sequence[Any]]:
    """Return a figure of images side by side under their titles, and its axes."""
    figure, axes = new_figure(size, columns=len(panels))
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        axis.imshow(panel)
        axis.set_title(title)
        axis.set_axis_off()
    return figure, axes


def scale_bar(figure: Any, axes: Any, low: float, high: float, threshold: float | None, label: str) -> None:
    """Draw a colour bar from `low` to `high` beside axes, with a line at the threshold if there is one."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(low, high), "inferno"), ax=axes, fraction=0.02, pad=0.01)
    bar.set_label(label)
    if threshold is not None:
        bar.ax.axhline(threshold, color=LINE, linewidth=2)


def draw_losses(axes: Any, history: Mapping[str, Sequence[float | None]]) -> None:
    """Draw losses by epoch, on a logarithmic axis if all are above 0; epochs without a value are skipped."""
    for name, values in history.items():
        measured = [(epoch, value) for epoch, value in enumerate(values, 1) if value is not None]
        axes.plot(*(zip(*measured, strict=True) if measured else ((), ())), "o-", label=name, markersize=3)
    if all(value is None or value > 0 for values in history.values() for value in values):
        axes.set_yscale("log")  # on a linear axis the large losses of the first epochs would hide the others
    axes.set(xlabel="epoch", ylabel="loss")


def draw_shares(axes: Any, scores: Mapping[str, tuple[np.ndarray, str]], from_zero: bool = False) -> None:
    """Draw the share of images at or below each score, a step curve for each name with its scores (n,) and colour.

    `from_zero`: curves begin at a share of 0 instead of that of the first score.
    """
    for name, (values, colour) in scores.items():
        ordered = np.sort(values)
        shares = np.arange(1, ordered.size + 1) / max(ordered.size, 1)
        if from_zero:
            ordered, shares = np.r_[ordered[:1], ordered], np.r_[0, shares]
        axes.step(ordered, shares, where="post", color=colour, label=f"{name} ({len(values)})")


def draw_strokes(axes: Any, scores: Sequence[float], height: float, colour: str, size: float, width: float) -> None:
    """Draw each score as a vertical stroke at the given height."""
    axes.plot(scores, np.full(len(scores), height), "|", color=colour, markersize=size, markeredgewidth=width)
