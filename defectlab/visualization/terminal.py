"""A run's metrics, and where it stands among the others, as tables in terminal or notebook."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.results.comparison.repeats import Repeats
from defectlab.results.rows import KEY, group_of, number, ranked_within
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.progress import in_notebook

SHOWN_RUNS = 5
PART_METRICS = ("part_AUROC", "part_F1Score")  # beside them where data.group is set
METRIC_COLUMNS = ("image AUROC", "image F1", "pixel AUROC", "pixel F1")  # of BARE_METRICS


def summary(run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what a finished run came to: its metrics, its place among the workbook's rows, its pictures."""
    metrics_table(run)
    standing_table(run, rows)
    show_picture(run)


def metrics_table(run: Run) -> None:
    """Print the metrics of one run and where its files are."""
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name in BARE_METRICS:  # run.json and the workbook have them all
        table.add_row(name, _shown(run.record["metrics"].get(name), run.record["metric_reasons"].get(name)))
    parts = run.record.get("parts") or {}
    for name in PART_METRICS if parts else ():
        table.add_row(name, _shown(parts["metrics"].get(name), parts["metric_reasons"].get(name)))
    console = Console()
    console.print(f"{run.folder.parent.parent.name} on {run.folder.parent.name}: {run.folder.name}", soft_wrap=True)
    console.print(table)
    for line in _caveats(run.record):
        console.print(line, soft_wrap=True)
    console.print(f"Record: {paths.relative(run.folder)}", soft_wrap=True)


def _caveats(record: Mapping[str, Any]) -> list[str]:
    """Say how sure the image AUROC is, and what image F1 costs nothing."""
    lines = []
    interval = record.get("intervals", {}).get("image_AUROC", {})
    if interval.get("low") is not None:
        lines.append(f"image_AUROC, 95 % interval: {interval['low']:.3f} to {interval['high']:.3f}")
    trivial = record.get("trivial", {}).get("image_F1Score")
    if trivial is not None and record["metrics"].get("image_F1Score") is not None:
        lines.append(f"image_F1Score of calling every image anomalous: {trivial:.4f}")
    parts = record.get("parts")
    if parts:
        counts, interval = parts["counts"], parts["intervals"].get("part_AUROC", {})
        around = (
            "" if interval.get("low") is None else f"; 95 % interval {interval['low']:.3f} to {interval['high']:.3f}"
        )
        lines.append(
            f"part_AUROC: {parts['count']} parts ({counts['anomalous']} anomalous) of {parts['images']} images, each "
            f"scored by the highest of its images{around}"
        )
    return lines


def standing_table(run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the run's row of the workbook among the best of the same images and split, and its place by each metric."""
    own = next((row for row in rows if row[KEY] == run.record["run_id"]), None)
    if own is None:
        return
    peers = [row for row in rows if group_of(row) == group_of(own)]
    console = Console(width=max(Console().width, 120))
    added = f"Its row is in {paths.workbook().name}"
    if len(peers) == 1:
        console.print(f"{added}: the first on these images", soft_wrap=True)
        return
    console.print(f"{added}. On {own.get('dataset')}, same split: {_places(own, peers)}", soft_wrap=True)
    table = Table()
    for column in ("", "model", "run"):
        table.add_column(column, no_wrap=True)
    for column in METRIC_COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    ranked = sorted(peers, key=lambda row: -(number(row, BARE_METRICS[0]) or -1.0))
    shown = ranked[:SHOWN_RUNS] + [row for row in ranked[SHOWN_RUNS:] if row is own]
    for row in shown:
        values = (_shown(number(row, metric), None) for metric in BARE_METRICS)
        style = "bold" if row is own else None
        table.add_row(
            "this run" if row is own else "", str(row.get("model", "")), str(row.get("run", "")), *values, style=style
        )
    console.print(table)


def _places(own: Mapping[str, Any], peers: Sequence[Mapping[str, Any]]) -> str:
    """Return the place by each metric, equals sharing the better one; by pixel metrics among those of one grid."""
    parts = []
    for metric in BARE_METRICS:
        among = [row for row in peers if ranked_within(row, metric) == ranked_within(own, metric)]
        values = [value for row in among if (value := number(row, metric)) is not None]
        mine = number(own, metric)
        if mine is not None:
            parts.append(f"place {1 + sum(value > mine for value in values)} of {len(values)} by {metric}")
    return ", ".join(parts) if parts else "no metrics"


def show_picture(run: Run) -> None:
    """Show the run's pictures: in a notebook the image itself, elsewhere where it lies."""
    picture = run.folder / "pictures.png"
    if not picture.is_file():
        return
    if in_notebook():
        from IPython.display import Image, display

        display(Image(filename=str(picture)))
    else:
        Console().print(f"Pictures: {paths.relative(picture)}", soft_wrap=True)


def runs_table(runs: Sequence[Run], title: str) -> None:
    """Print runs side by side, one row each."""
    table = Table()
    for column in ("model", "run", *METRIC_COLUMNS, "fit s", "test s"):
        table.add_column(column, justify="left" if column in ("model", "run") else "right", no_wrap=True)
    for run in runs:
        metrics, timings = run.record["metrics"], run.record["timings"]
        seconds = (f"{timings[stage]:.1f}" if stage in timings else "" for stage in ("fit", "test"))
        table.add_row(
            run.folder.parent.parent.name,
            run.folder.name,
            *(_shown(metrics.get(name), None) for name in BARE_METRICS),
            *seconds,
        )
    console = Console(width=max(Console().width, 120))  # without a terminal rich assumes 80 columns
    console.print(title, soft_wrap=True)
    console.print(table)


def repeats_table(repeats: Repeats) -> None:
    """Print what runs that differ in nothing but their seed came to: mean, deviation and interval of each metric."""
    table = Table()
    for column in ("metric", "mean", "std", "95 % interval of the mean", "seeds"):
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True)
    for name in BARE_METRICS:
        spread = repeats.metrics.get(name)
        if spread is None:
            table.add_row(name, "-", "-", "-", "0")
            continue
        interval = "-" if spread.low is None else f"{spread.low:.4f} to {spread.high:.4f}"
        deviation = "-" if spread.deviation is None else f"{spread.deviation:.4f}"
        table.add_row(name, f"{spread.mean:.4f}", deviation, interval, str(spread.count))
    first = repeats.runs[0].folder
    console = Console(width=max(Console().width, 100))
    seeds = ", ".join(map(str, repeats.seeds))
    console.print(f"{first.parent.parent.name} on {first.parent.name}, seeds {seeds}:", soft_wrap=True)
    console.print(table)
    console.print("The spread is of training alone: all were tested on the same images.", soft_wrap=True)


def _shown(value: float | None, reason: str | None) -> str:
    return (f"not available: {reason}" if reason else "-") if value is None else f"{value:.4f}"
