"""Damaged run folders (run.json, scores.csv, maps, masks, manifest.json), read one by one and among others."""

import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from defectlab.cli.records import experiment_table_of
from defectlab.results.comparison.paired_test import compare_runs
from defectlab.results.comparison.runs import finished_runs, kinds_by_run, rankings_of
from defectlab.results.evaluate import evaluate_run
from defectlab.results.run.run import Run, find_runs
from defectlab.results.workbook import update_workbook
from defectlab.results.workbook_row import row_of
from defectlab.visualization.report import write_report
from tests.fuzz.mutations import damage
from tests.fuzz.target import Target
from tests.fuzz.trees import PLAIN, damage_tree
from tests.helpers.runs import run_with_maps

REPORTS = 0.04  # share of the runs read one by one that go into a report too, which takes half a second
NAMES = ("first", "second", "third")
CELLS = ("", "nan", "inf", "-1e999", "x", "0.5", "2", "-1", "9" * 5000, "test", "train", '"', "\x00", "a,b", "\n")
WORDS = (b"", b"{}", b"[]", b"null", b"1", b'"a"', b'{"version": 1e400}', b'{"version": "x"}', b"\x00" * 100)
NUMBERS = ("9" * 5000, "NaN", "Infinity", "-Infinity", "1e999", "0" * 40)
SHAPES = ((0,), (), (12,), (12, 16), (12, 16, 17), (11, 16, 16), (12, 0, 16), (12, 1, 16, 16))
TYPES = ("f4", "f8", "i4", "u1", "c8", "U4", "f2", "?")
LIES = (b"(12, 16, 1000000000000)", b"(99999999999999,)", b"(-1, 16, 16)", b"('a',)", b"(12, 16", b"12")


def prepare(good: Path) -> None:
    os.environ["DEFECTLAB_HOME"] = str(good)
    for seed, name in enumerate(NAMES):
        run_with_maps(name, seed, 12, 0.5, good)


def attack(random: random.Random, good: Path, work: Path) -> None:
    shutil.copytree(good / "results", work / "results")
    os.environ["DEFECTLAB_HOME"] = str(work)
    folder = work / "results/Padim/coins" / random.choice(NAMES)
    _damage(random, folder)
    if random.random() < 0.5:
        _read_one(random, folder)
    else:
        _read_many(random, {folder.parent / name for name in NAMES} - {folder})


def _read_one(random: random.Random, folder: Path) -> None:
    run = Run.open(folder)
    other = Run.open(folder.with_name(next(name for name in NAMES if name != folder.name)))
    readers: tuple[Callable[[], Any], ...] = (
        lambda: row_of(run),
        lambda: kinds_by_run([run]),
        lambda: evaluate_run(run),
        lambda: compare_runs([run, other], random.choice(("image_AUROC", "pixel_AUPRO", "image_F1Score"))),
        lambda: experiment_table_of([str(folder)]),
    )
    for _ in range(2):
        random.choice(readers)()
    if random.random() < REPORTS:
        write_report([run, other], folder.parent / "report.html")


def _read_many(random: random.Random, others: set[Path]) -> None:
    """Read all runs: the others must be there, and count for what they are."""
    assert others <= {run.folder for run in find_runs()}
    kind = random.randrange(8)
    if kind < 3:
        runs = finished_runs()
        ids = {Run.open(folder).record.run_id for folder in others}
        ranked = {str(row["run_id"]) for ranking in rankings_of(runs) for one in ranking.entries for row in one.rows}
        assert ids <= ranked
        assert ids <= set(kinds_by_run(runs))
    elif kind < 6:
        table = experiment_table_of([])
        assert all(folder.name in table for folder in others)
    elif kind == 6:
        outcome = update_workbook()
        assert outcome.written
        assert others <= {Path(os.environ["DEFECTLAB_HOME"]) / str(row["record"]) for row in outcome.rows}


def _damage(random: random.Random, folder: Path) -> None:
    kind = random.randrange(10)
    if kind < 5:
        path = folder / "run.json"
        tree = json.loads(path.read_text(encoding="utf-8"))
        if random.random() < 0.25:
            text = _hostile_text(random, path.read_text(encoding="utf-8"))
        else:
            text = _dumped(damage_tree(random, tree, PLAIN))
        path.write_bytes(text)
    elif kind < 8:
        path = folder / "scores.csv"
        path.write_bytes(
            _cells(random, path.read_bytes()) if random.random() < 0.7 else damage(random, path.read_bytes())
        )
    else:
        path = random.choice(sorted((folder / "maps").iterdir()))
        path.write_bytes(_array(random, path.read_bytes()))


def _dumped(tree: Any) -> bytes:
    return json.dumps(tree, skipkeys=True).encode()


def _hostile_text(random: random.Random, text: str) -> bytes:
    depth = random.choice((10, 70, 1000, 100_000))
    kind = random.randrange(6)
    if kind == 0:
        return damage(random, text.encode())
    if kind == 1:
        return text.encode(random.choice(("utf-16", "utf-8-sig", "latin-1")))
    if kind == 2:
        return ("[" * depth + "]" * random.choice((0, depth))).encode()
    if kind == 3:
        deep = '{"a": ' * depth + "1" + "}" * depth
        return text.replace('"metrics": {', f'"deep": {deep}, "metrics": {{', 1).encode()
    return text.replace("0", random.choice(NUMBERS), 1).encode() if kind == 4 else random.choice(WORDS)


def _cells(random: random.Random, content: bytes) -> bytes:
    lines = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(random.choice((1, 1, 3))):
        row = random.randrange(len(lines)) if random.random() < 0.8 else 0
        kind = random.randrange(7)
        if kind < 3:
            lines[row][random.randrange(len(lines[row]))] = random.choice(CELLS)
        elif kind == 3:
            lines[row] = lines[row][: random.randrange(len(lines[row]) + 1)] or [""]
        elif kind == 4:
            lines.insert(row, lines[random.randrange(len(lines))][:])
        elif kind == 5 and len(lines) > 1:
            del lines[row]
        else:
            lines[row].insert(random.randrange(len(lines[row]) + 1), random.choice(CELLS))
    return "\n".join(",".join(line) for line in lines).encode()


def _array(random: random.Random, content: bytes) -> bytes:
    """Return another .npy file: another shape or type, pickled, a header that lies, an archive, or damage."""
    kind = random.randrange(8)
    array = np.load(io.BytesIO(content))
    if kind < 3:
        return _saved(np.zeros(random.choice(SHAPES), random.choice((array.dtype.str, *TYPES))))
    if kind == 3:
        return _saved(np.array([{"a": 1}], dtype=object), allow_pickle=True)
    if kind == 4:
        head, _, tail = content.partition(b"(12, 16,")
        return head + random.choice(LIES) + tail[tail.find(b")") + 1 :]
    if kind == 5:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", _saved(np.zeros(10**6, np.uint8)))
        return packed.getvalue()
    if kind == 6:
        changed = np.array(array)
        values = (np.nan, np.inf, -np.inf) if changed.dtype.kind == "f" else (255,)
        changed.reshape(-1)[random.randrange(changed.size)] = random.choice(values)
        return _saved(changed)
    return damage(random, content)


def _saved(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


TARGET = Target("records", prepare, attack)
