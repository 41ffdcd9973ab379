"""A run's metrics as a table in terminal or notebook."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from defectlab import paths
from defectlab.results.record import Run


def metrics_table(run: Run) -> None:
    """Print the metrics of one run and where its files are."""
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in run.record["metrics"].items():
        table.add_row(name, _shown(value, run.record["metric_reasons"].get(name)))
    console = Console()
    console.print(f"{run.folder.parent.parent.name} on {run.folder.parent.name}: {run.folder.name}", soft_wrap=True)
    console.print(table)
    console.print(f"Record: {paths.relative(run.folder)}", soft_wrap=True)


def runs_table(runs: Sequence[Run], title: str) -> None:
    """Print runs side by side, one row each."""
    table = Table()
    for column in ("model", "run", "image AUROC", "image F1", "pixel AUROC", "pixel F1", "fit s", "test s"):
        table.add_column(column, justify="left" if column in ("model", "run") else "right", no_wrap=True)
    for run in runs:
        metrics, timings = run.record["metrics"], run.record["timings"]
        names = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score")
        seconds = (f"{timings[stage]:.1f}" if stage in timings else "" for stage in ("fit", "test"))
        table.add_row(
            run.folder.parent.parent.name,
            run.folder.name,
            *(_shown(metrics.get(name), None) for name in names),
            *seconds,
        )
    console = Console(width=max(Console().width, 120))  # without a terminal rich assumes 80 columns
    console.print(title, soft_wrap=True)
    console.print(table)


def _shown(value: float | None, reason: str | None) -> str:
    return (f"not available: {reason}" if reason else "-") if value is None else f"{value:.4f}"
