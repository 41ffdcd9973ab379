"""Render the backbone report's records as Markdown between two markers; needs no torch."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defectlab.utils.files import replace_between

BEGIN, END = "<!-- backbone-report -->", "<!-- /backbone-report -->"
WEIGHTS = ("random", "defectlab", "ImageNet")
FIGURES = {"image": "image AUROC", "pixel": "pixel AUROC", "small": "pixel AUROC, small defects"}


def mean_of(rows: Sequence[dict[str, Any]], **which: str) -> dict[str, float | None]:
    """Return the mean of each figure over the seeds of the rows that agree with `which`."""
    fitting = [row for row in rows if all(row[key] == value for key, value in which.items())]
    values = {figure: [row[figure] for row in fitting if row[figure] is not None] for figure in FIGURES}
    return {figure: statistics.fmean(found) if found else None for figure, found in values.items()}


def common_seeds(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Return the seeds that every one of the weights in these rows has: means of others cannot be compared.

    >>> common_seeds([{"weights": "a", "seed": 1}, {"weights": "a", "seed": 2}, {"weights": "b", "seed": 2}])
    [2]
    """
    by_weights: dict[str, set[int]] = {}
    for row in rows:
        by_weights.setdefault(row["weights"], set()).add(row["seed"])
    return sorted(set.intersection(*by_weights.values()))


def share(low: float | None, own: float | None, high: float | None) -> str:
    """Return what part of the gap between two figures a third one closes, as percent.

    >>> share(0.5, 0.9, 1.0)
    '80 %'
    >>> share(0.9, 0.95, 0.89)
    'no gap'
    """
    if low is None or own is None or high is None:
        return ""
    return f"{100 * (own - low) / (high - low):.0f} %" if high > low else "no gap"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown table: a line for each set, detector and figure, means over the seeds named."""
    lines = [
        "| set | detector | figure | random | this backbone | ImageNet | share of the gap | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for model in dict.fromkeys(row["model"] for row in rows if row["dataset"] == dataset):
            its = [row for row in rows if (row["dataset"], row["model"]) == (dataset, model)]
            seeds = common_seeds(its)
            named = ", ".join(map(str, seeds))
            means = [mean_of([row for row in its if row["seed"] in seeds], weights=weights) for weights in WEIGHTS]
            for figure, title in FIGURES.items():
                values = [mean[figure] for mean in means]
                if all(value is None for value in values):
                    continue
                shown = " | ".join("" if value is None else f"{value:.4f}" for value in values)
                lines.append(f"| {dataset} | {model} | {title} | {shown} | {share(*values)} | {named} |")
    return "\n".join(lines)


def render(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Replace what stands between the markers of a file; the rest of it stays."""
    replace_between(path, BEGIN, END, f"\n{table(rows)}\n")
