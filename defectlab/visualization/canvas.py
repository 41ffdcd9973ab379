"""One image explained: a figure a call, as Pillow images, which every notebook shows and `.save` writes."""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

THIS = "#111111"
AROUND = 2.0  # a crop shows this many boxes on each side of its box: features see beyond their cell
DPI = 110


def scale_bar(figure: Any, axes: Any, low: float, high: float, threshold: float | None, label: str) -> None:
    """Draw the colours from `low` to `high` beside axes, with a line at the threshold."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(low, high), "inferno"), ax=axes, fraction=0.02, pad=0.01)
    bar.set_label(label)
    if threshold is not None:
        bar.ax.axhline(threshold, color=LINE, linewidth=2)


def new_axes(count: int, size: tuple[float, float]) -> tuple[Any, Sequence[Any]]:
    """Return a figure without pyplot, whose state a notebook would show a second time, and its axes in a row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=DPI)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def rendered(figure: Any) -> Image.Image:
    """Return a figure as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


GOOD, BAD, LINE, WRONG = "#3478b8", "#c8502a", "#2a9d57", "#be141e"


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
