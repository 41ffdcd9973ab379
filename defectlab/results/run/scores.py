"""Reading and writing of scores.csv, which holds the raw scores of images with every digit."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from defectlab.utils.files import replacing


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
    """Write rows as CSV, atomically; scores keep every digit.

    With `problems`, which maps an image's path to the reason why it has no score, a column `problem` is added.
    """
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        header = [field.name for field in fields(ScoreRow)]
        if problems is None:
            writer.writerow(header)
            writer.writerows(astuple(row) for row in rows)
        else:
            writer.writerow([*header, "problem"])
            writer.writerows((*astuple(row), problems.get(row.image_path, "")) for row in rows)


def read_problems(path: Path) -> dict[str, str]:
    """Return the reason of each image without a score in a file that `write_scores` wrote with `problems`."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["image_path"]: row["problem"] for row in csv.DictReader(file) if row.get("problem")}


def read_scores(path: Path) -> list[ScoreRow]:
    """Read the rows of a file written by `write_scores`.

    Raises:
        ValueError: A column is missing, or a number is none (TypeError, KeyError, csv.Error: other damage).
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {field.name for field in fields(ScoreRow)} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        return [
            ScoreRow(
                row["image_path"],
                row["split"],
                row["defect"],
                int(row["label"]),
                float(row["score"]),
                int(row["pred_label"]),
            )
            for row in reader
        ]
