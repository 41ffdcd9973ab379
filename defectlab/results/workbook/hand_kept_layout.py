"""The block layout of hand-kept workbooks: a block for each model, with configurations as columns and metrics as rows.

Row 1 of a block: the model's name in A, a configuration's label in B, C, ...; rows 2 to 5: image_AUROC, image_F1Score,
pixel_AUROC, pixel_F1Score; then two empty rows.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.results.model_names import TITLES
from defectlab.results.workbook_row import IMPORTED, KEY, RankingKey, Row, ranking_key
from defectlab_runtime.errors import InputError

HEIGHT = len(BARE_METRICS) + 1
GAP = 2

Cells = dict[tuple[int, int], Any]  # (row, column), both from 1


@dataclass(frozen=True)
class Block:
    """A block found on a sheet: its first row, its title, and the column of each configuration label."""

    top: int
    title: str
    labels: Mapping[str, int]


def titles(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[RankingKey, str], str]:
    """Return the block title of each (group, model): the model alone for a single group, else with the dataset."""
    groups = list(dict.fromkeys(ranking_key(row) for row in rows))
    found = {}
    for row in rows:
        group, model = ranking_key(row), str(row.get("model", ""))
        dataset, split, grid = group
        same = [other for other in groups if other[0] == dataset]
        name = dataset if len(same) == 1 else f"{dataset}, {split[:6] if split != IMPORTED else split}"
        if sum(other[:2] == group[:2] for other in groups) > 1:
            name += f", pixels {grid}"
        found[group, model] = model if len(groups) == 1 else f"{model} ({name})"
    return found


def rows_by_label(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """Return the rows by (title, label), in the order of their blocks; a repeated label is extended by the row's id."""
    named = titles(rows)
    order = list(TITLES.values())
    groups = list(dict.fromkeys(ranking_key(row) for row in rows))

    def place(row: Row) -> tuple[int, int, str]:
        model = str(row.get("model", ""))
        return groups.index(ranking_key(row)), order.index(model) if model in order else len(order), model

    found: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=place):
        title, label = named[ranking_key(row), str(row.get("model", ""))], str(row.get("run", row[KEY]))
        if (title, label) in found:
            label = f"{label} {str(row[KEY])[-6:]}"
        found[title, label] = row
    return found


def layout(rows: Sequence[Row]) -> Cells:
    """Return the cells of all rows arranged in blocks, in the order of `rows_by_label`."""
    cells: Cells = {}
    tops: dict[str, int] = {}
    columns: dict[str, int] = {}
    for (title, label), row in rows_by_label(rows).items():
        top = tops.setdefault(title, 1 + len(tops) * (HEIGHT + GAP))
        columns[title] = columns.get(title, 1) + 1
        cells |= frame(top, title) | column(top, columns[title], label, row)
    return cells


def frame(top: int, title: str) -> Cells:
    """Return the cells of a block's column A: the title and the metric names."""
    return {(top, 1): title} | {(top + 1 + place, 1): metric for place, metric in enumerate(BARE_METRICS)}


def column(top: int, number: int, label: str, row: Mapping[str, Any]) -> Cells:
    """Return the cells of one configuration's column in a block: the label and the metrics."""
    values = {(top + 1 + place, number): row.get(metric) for place, metric in enumerate(BARE_METRICS)}
    return {(top, number): label} | values


def find_blocks(cells: Mapping[tuple[int, int], Any]) -> list[Block]:
    """Find the blocks on a sheet: the four metric names in consecutive rows of column A, below a title row."""
    blocks = []
    for (row, number), value in sorted(cells.items()):
        if number != 1 or value != BARE_METRICS[0] or row == 1:
            continue
        if any(cells.get((row + place, 1)) != metric for place, metric in enumerate(BARE_METRICS)):
            continue
        labels = {str(text): at for (r, at), text in sorted(cells.items()) if r == row - 1 and at > 1}
        blocks.append(Block(row - 1, str(cells.get((row - 1, 1)) or ""), labels))
    return blocks


def import_blocks(cells: Mapping[tuple[int, int], Any], source: str, dataset: str) -> list[Row]:
    """Return the configurations in one sheet's blocks as rows marked as imported.

    Raises:
        InputError: A value that is no number in [0, 1]; names the cell.
    """
    return [row for block in find_blocks(cells) for row in _block_rows(cells, block, source, dataset)]


def _block_rows(cells: Mapping[tuple[int, int], Any], block: Block, source: str, dataset: str) -> Iterator[Row]:
    columns = [number for (row, number) in sorted(cells) if row == block.top and number > 1]
    labels = [str(cells[block.top, number]) for number in columns]
    for place, (number, label) in enumerate(zip(columns, labels, strict=True)):
        values = {
            metric: _number(cells.get((block.top + 1 + below, number)), f"{source}, {_address(block, below, number)}")
            for below, metric in enumerate(BARE_METRICS)
        }
        # not the file's name or the column: both change while the configuration stays the same
        occurrence = str(labels[:place].count(label))
        identity = "\n".join((source.split(", sheet ")[-1], block.title, label, occurrence, dataset))
        yield {
            "dataset": dataset,
            "model": block.title,
            "run": label,
            **{metric: value for metric, value in values.items() if value is not None},
            "protocol": f"not recorded: typed by hand into {source}",
            "state": IMPORTED,
            KEY: f"{IMPORTED}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        }


def _number(value: Any, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(str(value).strip().replace(",", "."))
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 1:
        raise InputError(f"{where}: {value!r} is no metric. Write a number from 0 to 1, or leave the cell empty.")
    return number


def _address(block: Block, place: int, number: int) -> str:
    from openpyxl.utils import get_column_letter

    return f"cell {get_column_letter(number)}{block.top + 1 + place}"
