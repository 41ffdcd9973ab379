"""One experiment on many categories: a run for each, and a table with their mean that grows as they finish."""

import csv
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from defectlab import paths
from defectlab.data.categories import categories_in, chosen_categories
from defectlab.errors import OptionError
from defectlab.experiment import Experiment
from defectlab.files import replacing
from defectlab.many import run_many
from defectlab.results.identity import safe_name

if TYPE_CHECKING:
    from defectlab.results.record import Run

logger = logging.getLogger(__name__)

METRICS = ("image_AUROC", "image_AUPR", "image_F1Score", "pixel_AUROC", "pixel_AUPRO", "pixel_F1Score")
HEADER = ("category", "seed", "status", *METRICS, "run", "error")


def per_category(experiment: Experiment) -> list[Experiment]:
    """Return the experiment once for each of its categories, which are folders below `data.root`.

    Raises:
        OptionError: There is no root, or folders are named, which differ between categories.
        DataError: A category that is not there.
    """
    root = experiment.data.root
    if experiment.categories is None or not root:
        raise OptionError("categories are folders below data.root: give both.")
    if experiment.data.name or any(value and key.endswith("_dir") for key, value in vars(experiment.data).items()):
        raise OptionError("With categories leave out data.name and the folders: each has a layout known by itself.")
    names = chosen_categories(experiment.categories, categories_in(paths.resolve(root)), experiment.groups)
    alone = replace(experiment, categories=None, groups={})
    return [replace(alone, data=replace(experiment.data, root=f"{root}/{name}", name=name)) for name in names]


def run_categories(experiments: Sequence[Experiment], table: Path, *, rerun: bool = False) -> "list[Run]":
    """Run experiments, one for each category and seed, as `run_many` does; after each one the table is written anew.

    It has a row for each run, finished or failed, and last the mean over those that are finished. What is finished
    already is not run again, so a crash costs one category.

    Returns:
        The finished runs.
    """
    rows: list[dict[str, object]] = []

    def add(experiment: Experiment, run: "Run | None", error: str | None) -> None:
        metrics = {} if run is None else {name: run.record["metrics"].get(name) for name in METRICS}
        state = "failed" if run is None else "finished"
        where = {"run": "" if run is None else paths.relative(run.folder), "error": error or ""}
        rows.append({"category": experiment.data.name, "seed": experiment.seed, "status": state, **metrics, **where})
        write_table(table, rows)

    finished = run_many(experiments, rerun=rerun, after=add)
    logger.info("%d of %d runs finished: %s", len(finished), len(experiments), paths.relative(table))
    return finished


def write_table(table: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write rows and, last, the mean of each metric over the finished ones that have it; whole or not at all.

    Of how many it is stands in the column `status`, apart for a metric that some of them lack.
    """
    finished = sum(row["status"] == "finished" for row in rows)
    mean: dict[str, object] = {"category": "mean", "status": f"of {finished}"}
    for name in METRICS:
        values = [value for row in rows if isinstance(value := row.get(name), float)]
        mean[name] = sum(values) / len(values) if values else None
        if 0 < len(values) < finished:
            mean["status"] = f"{mean['status']}; {name} of {len(values)}"
    table.parent.mkdir(parents=True, exist_ok=True)
    with replacing(table) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows([*rows, mean])


def table_of(experiment: Experiment) -> Path:
    """Return where an experiment's table goes: named by its categories and model, and by its settings' hash."""
    asked = experiment.categories
    what = asked if isinstance(asked, str) else "-".join(asked or ())
    short = hashlib.sha256(repr(replace(experiment, seed=0)).encode()).hexdigest()[:6]
    name = safe_name(f"{what[:40]}_{experiment.name or experiment.model['name']}_{short}")
    return paths.results_dir() / "categories" / f"{name}.csv"
