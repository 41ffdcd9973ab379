"""Reading and writing of scores.csv, which holds the raw scores of images with every digit."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from defectlab.utils.files import read_csv, write_csv
from defectlab_runtime.errors import InputError
from defectlab_runtime.scores import COLUMNS, ScoreRow, score_cells

LABELS = {"-1": -1, "0": 0, "1": 1}


class ScoresError(InputError):
    """Raised for a file of scores that is damaged."""


def write_scores(path: Path, rows: Sequence[ScoreRow], problems: Mapping[str, str] | None = None) -> None:
    """Write rows as CSV, atomically; scores keep every digit, names are escaped as by `names.csv`.

    With `problems`, which maps an image's path to the reason why it has no score, a column `problem` is added.
    """
    write_csv(path, *score_cells(rows, problems))


def read_problems(path: Path) -> dict[str, str]:
    """Return the reason of each image without a score in a file that `write_scores` wrote with `problems`.

    Raises:
        ScoresError: The file is damaged.
    """
    at, rows = score_table(path)
    place = at.get("problem")
    return {} if place is None else {row[at["image_path"]]: row[place] for row in rows if row[place]}


def read_scores(path: Path) -> list[ScoreRow]:
    """Read the rows of a file written by `write_scores`.

    Raises:
        ScoresError: The file is damaged.
    """
    at, rows = score_table(path)
    image, split, defect, label, score, decision = (at[name] for name in COLUMNS)
    place = at.get("category")
    found = []
    for number, row in enumerate(rows):
        try:
            labels = LABELS[row[label]], LABELS[row[decision]]
            category = None if place is None else row[place] or None
            found.append(
                ScoreRow(row[image], row[split], row[defect], labels[0], float(row[score]), labels[1], category)
            )
        except (ValueError, KeyError) as error:
            raise damaged_scores(path, error, f"row {number + 1}: ") from None
    return found


def score_table(path: Path) -> tuple[dict[str, int], list[list[str]]]:
    """Return the place of each column and the cells of a file written by `write_scores`.

    Raises:
        ScoresError: It is no table with these columns and as many cells in each row.
    """
    try:
        header, rows = read_csv(path)
    except (csv.Error, UnicodeDecodeError) as error:
        raise damaged_scores(path, error) from None
    except OSError as error:
        raise ScoresError(f"{path} cannot be read ({error.strerror}).") from None
    at = {name: place for place, name in enumerate(header)}
    missing = [name for name in COLUMNS if name not in at]
    if missing:
        raise damaged_scores(path, f"no column {', '.join(missing)}")
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise damaged_scores(path, f"row {number + 1} has {len(row)} of {len(header)} cells")
    return at, rows


def damaged_scores(path: Path, problem: str | Exception, where: str = "") -> ScoresError:
    """Return the error for a damaged file of scores; a KeyError is one of `LABELS`."""
    what = f"label {problem} is none of {', '.join(LABELS)}" if isinstance(problem, KeyError) else problem
    return ScoresError(f"{path} is damaged ({where}{what}). Restore it, or test the run again.")
