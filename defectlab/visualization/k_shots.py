"""Curves of AUROC against the number of good images (`data.k_shots`): chart, picture, and table for a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from defectlab.evaluation.k_shot_curve import KShotCurve
from defectlab.results.k_shots import CURVES, k_shot_curves
from defectlab.results.run.run import Run
from defectlab.utils.table import Table, interval_text, numbers, print_line, print_table
from defectlab.visualization.canvas import new_figure, to_image, to_svg
from defectlab_runtime import names
from defectlab_runtime.errors import InputError

EXPLANATION = (
    "Each point is the mean over draws of so many of the training images, with the 95 % interval of that mean "
    "(Student's t): how it depends on the images drawn, on these test images. Draws of most of the images are nearly "
    "alike, so the last points vary less; all images are one draw, the run itself. A ring: more images no longer help."
)
APART, SPREAD = 0.07, 0.3  # octaves between two curves, and at most between the first and the last
LABEL = 72  # characters of a run's name in a legend


def k_shot_curves_of(runs: Iterable[Run]) -> dict[str, dict[str, KShotCurve]]:
    """Return the curves by metric of each run that has any, keyed by the run's title, with what tells equal ones apart.

    A run's dataset is added where there are several, and a part of its id where titles are equal.
    """
    with_curves = [(run, curves) for run in runs if (curves := k_shot_curves(run))]
    several = len({run.dataset for run, _ in with_curves}) > 1
    found: dict[str, dict[str, KShotCurve]] = {}
    for run, curves in with_curves:
        name = f"{run.title} ({run.dataset})" if several else run.title
        found[f"{name} {run.record.run_id[:6]}" if name in found else name] = curves
    return found


def k_shots_svg(curves: Mapping[str, Mapping[str, KShotCurve]]) -> str:
    """Return an SVG chart of curves by run and metric, an axis for each metric."""
    return to_svg(_figure(curves))


def k_shots_picture(runs: Sequence[Run]) -> Image.Image:
    """Return a picture of the curves of runs with `data.k_shots`.

    Raises:
        InputError: None of the runs has any.
    """
    curves = k_shot_curves_of(runs)
    if not curves:
        raise InputError("None of these runs has k_shots: train with data.k_shots, such as [1, 2, 4, 8, 16, all].")
    return to_image(_figure(curves))


def _figure(curves: Mapping[str, Mapping[str, KShotCurve]]) -> Any:
    metrics = [metric for metric in CURVES if any(metric in its and its[metric].points for its in curves.values())]
    count = max(len(metrics), 1)
    figure, axes = new_figure((5.6 * count, 4.4 + 0.22 * len(curves)), columns=count)
    for axis, metric in zip(axes, metrics, strict=False):
        for place, (name, its) in enumerate(curves.items()):
            if metric in its:
                _draw(axis, its[metric], names.figure(name, LABEL), place, len(curves))
        ticks = sorted({point.k for its in curves.values() if metric in its for point in its[metric].points})
        wholes = {its[metric].points[-1].k for its in curves.values() if metric in its and _is_whole(its[metric])}
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks, [f"all\n{k}" if k in wholes else str(k) for k in ticks])
        axis.minorticks_off()
        axis.grid(color="#e4e4e8")
        axis.set(xlabel="good images", ylabel=metric.replace("_", " "))
        low = min(axis.get_ylim()[0], 0.95)
        axis.set_ylim(low, 1 + 0.04 * (1 - low))  # no AUROC is above 1
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.17), frameon=False)
    return figure


def _is_whole(curve: KShotCurve) -> bool:
    return bool(curve.points) and curve.points[-1].k == curve.images


def _draw(axis: Any, curve: KShotCurve, name: str, place: int, count: int) -> None:
    """Draw one curve; those of several runs lie a little beside each other, so that their intervals can be told."""
    shift = 2 ** (min(APART, SPREAD / max(count - 1, 1)) * (place - (count - 1) / 2))
    at = [point.k * shift for point in curve.points]
    means = [point.mean for point in curve.points]
    down = [point.mean - (point.mean if point.low is None else point.low) for point in curve.points]
    up = [(point.mean if point.high is None else point.high) - point.mean for point in curve.points]
    options = {"linewidth": 1.4, "elinewidth": 1.1, "capsize": 2.5, "markersize": 4}
    axis.errorbar(at, means, [down, up], fmt="o-", label=name, color=f"C{place}", **options)
    if curve.enough is not None:
        chosen = next(index for index, point in enumerate(curve.points) if point.k == curve.enough)
        ring = {"fillstyle": "none", "markersize": 12, "markeredgewidth": 1.6, "color": f"C{place}"}
        axis.plot([at[chosen]], [means[chosen]], "o", **ring)


def k_shots_table(curves: Mapping[str, KShotCurve]) -> Table:
    """Return the table of one run's curves by metric: a row for each number of images."""
    shown = {metric: {point.k: point for point in curve.points} for metric, curve in curves.items() if curve.points}
    rows: list[list[Any]] = []
    for k in sorted({k for points in shown.values() for k in points}):
        cells: list[Any] = [k, max(points[k].draws for points in shown.values() if k in points)]
        for points in shown.values():
            point = points.get(k)
            cells += [None, None] if point is None else [point.mean, interval_text(point.low, point.high, 4)]
        rows.append(cells)
    titles = [title for metric in shown for title in (metric.replace("_", " "), "95 % interval")]
    return Table(numbers("images", "draws", *titles), rows)


def print_k_shots(runs: Iterable[Run]) -> None:
    """Print the curves of the runs that have any, with what they say of more images."""
    for run in runs:
        curves = k_shot_curves(run)
        if not curves or run.record.k_shots is None:
            continue
        print_line(f"How many good images: {run.model} on {run.dataset}, {run.folder.name}")
        print_table(k_shots_table(curves), fit=True)
        for line in readings(run, curves):
            print_line(line)


def readings(run: Run, curves: Mapping[str, KShotCurve]) -> list[str]:
    """Return what the curves of a run say, a line for each metric, and which numbers of images were left out."""
    record = run.record.k_shots
    left_out = {} if record is None else record.left_out
    lines = [f"{metric.replace('_', ' ')}: {curve.reading}" for metric, curve in curves.items()]
    return lines + [f"{k} left out: {reason}" for k, reason in left_out.items()]
