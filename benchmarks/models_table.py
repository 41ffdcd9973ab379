"""Every model on every set as one Markdown table, from the workbook's rows."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from defectlab.data.manifest.options import DataOptions
from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.models.registry import model_class, model_info
from defectlab.results.model_names import title
from defectlab.results.workbook_row import Row, cell_value, interval_columns, number

BEGIN, END = "<!-- every model: made by `make models` -->", "<!-- end of every model -->"
SECTIONS = ("data", "model", "trainer", "evaluation")
# Where images lie, how fast they are read, what is kept, and what has a column of its own under another name.
NOT_COMPARED = (
    *("data.root", "data.name", "data.num_workers", "data.eval_batch_size", "model.name"),
    *("trainer.keep_checkpoint", "trainer.accelerator", "trainer.devices"),
)
NOT_SETTINGS = ("image_size", "name", "teacher")  # the first two have columns, the third goes with the model
METRICS = (*BARE_METRICS, "pixel_AUPRO")
HEADER = (
    *("set", "model", "backbone", "px", "settings", "epochs", "image AUROC", "95 %", "image F1", "calling all bad"),
    *("pixel AUROC", "pixel AUPRO", "pixel F1", "fit s", "images/s", "MB"),
)
TEXT = 5  # columns of words; the rest are numbers

Wanted = Mapping[str, Any]  # an experiment as plain data


def dataset_of(wanted: Wanted) -> str:
    """Return the name under which an experiment's images stand in the workbook."""
    return str(wanted["data"].get("name") or Path(str(wanted["data"]["root"])).name)


def title_of(wanted: Wanted) -> str:
    """Return what the workbook calls an experiment's model."""
    name = wanted["model"]["name"]
    return title(name)


def row_for(wanted: Wanted, rows: Sequence[Row]) -> Row | None:
    """Return the newest row of an experiment; None: it is not on record.

    What the experiment does not name must be at its default in the row, as far as the row says: another learning rate
    makes another experiment.
    """
    told = {"dataset": dataset_of(wanted), "model": title_of(wanted), "seed": wanted["seed"]}
    if wanted.get("backbone", {}).get("name", "none") != "none":  # in a row EfficientAD's teacher stands there
        told["backbone"] = wanted["backbone"]["name"]
    named = {f"{section}.{key}": cell_value(v) for section in SECTIONS for key, v in wanted.get(section, {}).items()}
    if model_info(wanted["model"]["name"]).epochs is not None:
        named.pop("trainer.max_epochs", None)  # the model knows better
    told |= {key: value for key, value in named.items() if key not in NOT_COMPARED}
    unnamed = {key: value for key, value in _defaults(wanted["model"]["name"]).items() if key not in named}
    found = [
        row
        for row in rows
        if all(row.get(key) == value for key, value in told.items())
        and all(row[key] == value for key, value in unnamed.items() if key in row)
    ]
    return max(found, key=lambda row: row["date (UTC)"], default=None)


@cache
def _defaults(model: str) -> dict[str, Any]:
    """Return the defaults of a model's options and of the data's as cells; a model's None is left out: it chooses."""
    options = inspect.signature(model_class(model)).parameters.values()
    its = {f"model.{one.name}": one.default for one in options if one.default not in (None, inspect.Parameter.empty)}
    its |= {f"data.{one.name}": one.default for one in fields(DataOptions) if not one.name.endswith("_dir")}
    left_out = (*NOT_COMPARED, "model.seed", "data.seed")
    return {key: cell_value(value) for key, value in its.items() if key not in left_out}


def table(every: Sequence[Wanted], rows: Sequence[Row]) -> str:
    """Return a line for each experiment, in their order; one that is not in the workbook says so."""
    lines = [list(HEADER), ["---"] * TEXT + ["---:"] * (len(HEADER) - TEXT)]
    for wanted in every:
        row = row_for(wanted, rows)
        if row is None:
            missing = ["", "", settings_of(wanted), "", "not on record"]
            lines.append([dataset_of(wanted), title_of(wanted), *missing, *[""] * (len(HEADER) - 2 - len(missing))])
        else:
            lines.append(_line(wanted, row))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(wanted: Wanted, row: Row) -> list[str]:
    low, high = (number(row, column) for column in interval_columns("image_AUROC"))
    metrics = {metric: _shown(number(row, metric), ".3f") for metric in METRICS}
    images, seconds = number(row, "test_images"), number(row, "test_seconds")
    return [
        str(row["dataset"]),
        str(row["model"]),
        Path(str(row.get("model.teacher") or row.get("backbone", "none"))).stem,
        str(row.get("model.image_size", "")).replace(" x ", "x"),
        settings_of(wanted),
        _shown(number(row, "trainer.max_epochs"), ".0f"),
        metrics["image_AUROC"],
        "" if low is None or high is None else f"{low:.2f} to {high:.2f}",
        metrics["image_F1Score"],
        _shown(number(row, "trivial image_F1Score"), ".3f"),
        *(metrics[metric] for metric in ("pixel_AUROC", "pixel_AUPRO", "pixel_F1Score")),
        _shown(number(row, "fit_seconds"), ".0f"),
        _shown(images / seconds if images and seconds else None, ".1f"),
        _shown(number(row, "checkpoint_MB"), ".1f"),
    ]


def settings_of(wanted: Wanted) -> str:
    """Return the model's options that an experiment names, but for those with a column of their own."""
    given = {key: value for key, value in wanted["model"].items() if key not in NOT_SETTINGS}
    return ", ".join(f"{key} {cell_value(value)}" for key, value in given.items())


def _shown(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)
