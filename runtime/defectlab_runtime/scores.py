"""Lines of scores.csv, which holds the scores of images with every digit."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ScoreRow:
    """One line of scores.csv. `label` and `pred_label`: 0 good, 1 anomalous, -1 unknown or undecided.

    `category` is the image's category where one model serves several; else there is no such column.
    """

    image_path: str
    split: str
    defect: str
    label: int
    score: float
    pred_label: int
    category: str | None = None


ALL_COLUMNS = tuple(field.name for field in fields(ScoreRow))
COLUMNS = ALL_COLUMNS[:-1]  # category is a column only where an image has one


def score_cells(
    rows: Sequence[ScoreRow], problems: Mapping[str, str] | None = None
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the header and the lines of scores.csv.

    With `problems`, which maps an image's path to the reason why it has no score, there is a column `problem`.
    """
    columns = ALL_COLUMNS if any(row.category is not None for row in rows) else COLUMNS
    cells = [astuple(row)[: len(columns)] for row in rows]
    if problems is None:
        return list(columns), cells
    reasons = (problems.get(row.image_path, "") for row in rows)
    return [*columns, "problem"], [(*row, why) for row, why in zip(cells, reasons, strict=True)]
