"""Reading and writing of scores.csv, which holds the raw scores of images with every digit."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from defectlab.utils.files import read_csv, write_csv


@dataclass(frozen=True)
class ScoreRow:
    """One line of scores.csv. `label` and `pred_label`: 0 good, 1 anomalous, -1 unknown or undecided."""

    image_path: str
    split: str
    defect: str
    label: int
    score: float
    pred_label: int


def write_scores(path: Path, rows: Sequence[ScoreRow], problems: Mapping[str, str] | None = None) -> None:
    """Write rows as CSV, atomically; scores keep every digit, names are escaped as by `names.csv`.

    With `problems`, which maps an image's path to the reason why it has no score, a column `problem` is added.
    """
    header = [field.name for field in fields(ScoreRow)]
    if problems is None:
        write_csv(path, header, (astuple(row) for row in rows))
    else:
        write_csv(path, [*header, "problem"], ((*astuple(row), problems.get(row.image_path, "")) for row in rows))


def read_problems(path: Path) -> dict[str, str]:
    """Return the reason of each image without a score in a file that `write_scores` wrote with `problems`."""
    header, rows = read_csv(path)
    if "problem" not in header:
        return {}
    name, problem = header.index("image_path"), header.index("problem")
    return {row[name]: row[problem] for row in rows if row[problem]}


def read_scores(path: Path) -> list[ScoreRow]:
    """Read the rows of a file written by `write_scores`.

    Raises:
        ValueError: A column or a cell is missing, or a number is none (csv.Error: other damage).
    """
    header, rows = read_csv(path)
    missing = {field.name for field in fields(ScoreRow)} - set(header)
    if missing:
        raise ValueError(f"no column {', '.join(sorted(missing))}")
    image_path, split, defect, label, score, pred_label = (header.index(field.name) for field in fields(ScoreRow))
    if any(len(row) < len(header) for row in rows):
        raise ValueError("a row is too short")
    return [
        ScoreRow(row[image_path], row[split], row[defect], int(row[label]), float(row[score]), int(row[pred_label]))
        for row in rows
    ]
