"""Nasty names through what writes them: folders, CSVs, workbook, HTML, Markdown, terminal, figures, JSON."""

import csv
import io
import json
import logging
import os
import random
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from openpyxl import Workbook, load_workbook

from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.inference.review import confirmed, write_verdicts
from defectlab.results.comparison.ranking import rank_rows
from defectlab.results.comparison.runs import KindResult
from defectlab.results.run.run import Run, find_runs
from defectlab.results.run.scores import read_problems, read_scores, write_scores
from defectlab.results.workbook.about_sheet import write_about
from defectlab.results.workbook.comparison_sheet import write_comparison
from defectlab.results.workbook.defects_sheet import write_per_defect
from defectlab.results.workbook.leaderboard_sheet import write_leaderboard
from defectlab.results.workbook.runs_sheet import read_runs, write_runs
from defectlab.results.workbook_row import KEY
from defectlab.utils.files import write_csv, write_json
from defectlab.utils.logs import LogFormatter
from defectlab.utils.table import Cell, Table, print_line, print_table, to_html, to_markdown
from defectlab.visualization.charts import interval_chart
from defectlab.visualization.panel import PanelRow, draw_panel
from defectlab_runtime.files import ESCAPED
from defectlab_runtime.prediction import Prediction
from defectlab_runtime.scores import ScoreRow
from tests.fuzz.target import Target
from tests.helpers.nasty_names import CONTROL, Page, draw_name
from tests.helpers.runs import parts_of_a_record

FORMULA = re.compile("(^|[;\n\r\t])[ ]*[=+\\-@\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
TAGS = {"div", "table", "thead", "tbody", "tr", "th", "td"}


def prepare(good: Path) -> None:
    """Nothing: names are drawn."""


def attack(random: random.Random, good: Path, work: Path) -> None:
    writer = random.choices(list(WRITERS), weights=WRITERS.values())[0]
    writer(random, work)


def _run_folder(random: random.Random, work: Path) -> None:
    os.environ["DEFECTLAB_HOME"] = str(work)
    name, dataset = draw_name(random), draw_name(random)
    results = work / "results"
    options = {"note": draw_name(random), "nested": {"a": draw_name(random)}}
    facts = {"seed": 1, "model.note": options["note"], "model.nested": options["nested"], "data.manifest": "1"}
    runs = [
        Run.start(results, name, facts | {"seed": seed}, parts_of_a_record(name, dataset=dataset, options=options))
        for seed in (1, 2, 3)
    ]
    assert len({str(run.folder).casefold() for run in runs}) == 3
    for run in runs:
        below = run.folder.relative_to(results)
        assert len(below.parts) == 3, below
        assert all(len(os.fsencode(part)) <= 230 and not part.startswith(".") for part in below.parts)
        assert not re.search("[{}' \"<>:|?*\\\\\x00-\x1f]", below.name), below.name
        assert Run.open(run.folder).record.experiment.name == name.replace("\0", "\ufffd")
        assert Run.open(run.folder).record.dataset.name == dataset.replace("\0", "\ufffd")
        run.advance("fitted")
        assert Run.start(results, name, run.record.facts, parts_of_a_record(name, dataset=dataset))._final == run.folder
    assert len(find_runs(results)) == 3


def _table(random: random.Random, work: Path) -> None:
    names = [draw_name(random) for _ in range(3)]
    path = write_csv(work / "table.csv", ["name", "other", "value"], [[name, names[0], -0.5] for name in names])
    rows = _rows(path)
    assert [len(row) for row in rows] == [3] * 4
    assert not any(_is_formula(text) for row in rows for text in row[:2])
    assert all(row[2] == "-0.5" for row in rows[1:])


def _scores(random: random.Random, work: Path) -> None:
    names = [draw_name(random) or "a" for _ in range(3)]
    rows = [ScoreRow(name, "test", draw_name(random), 0, -1.5, 1) for name in names]
    problems = {name: draw_name(random) or "a" for name in names}
    write_scores(work / "scores.csv", rows, problems)
    assert read_scores(work / "scores.csv") == rows
    assert read_problems(work / "scores.csv") == problems
    written = _rows(work / "scores.csv")
    assert [len(row) for row in written] == [7] * 4
    assert not any(_is_formula(text) for row in written for text in (row[0], row[2], row[6]))


def _verdicts(random: random.Random, work: Path) -> None:
    name = "/" + (draw_name(random).replace("\x00", "").strip("/") or "a")
    found = [Prediction(name, -1.5, 1, np.zeros((1, 1), np.float32), None)]
    write_verdicts(found, {name: "good"}, work / "verdicts.csv")
    write_verdicts(found, {name: "anomalous"}, work / "verdicts.csv")
    assert confirmed(work / "verdicts.csv", "anomalous") == [Path(name)]
    assert [len(row) for row in _rows(work / "verdicts.csv")] == [5] * 2
    assert not any(_is_formula(row[0]) for row in _rows(work / "verdicts.csv"))


def _workbook(random: random.Random, work: Path) -> None:
    rows = [
        {key: draw_name(random) or "a" for key in ("dataset", "model", "run", "backbone", "weights", "protocol")}
        | dict.fromkeys(BARE_METRICS, 0.5)
        | {KEY: f"{place:012d}", "state": "finished"}
        for place in range(2)
    ]
    kinds = {row[KEY]: [KindResult(draw_name(random), 1, 3, 2, 0.5, None)] for row in rows}
    book = Workbook()
    write_runs(book.create_sheet("runs"), rows)
    write_comparison(book.create_sheet("comparison"), rows, [])
    rankings = rank_rows(rows, {}, {})
    write_leaderboard(book.create_sheet("leaderboard"), rankings, work / "book.xlsx")
    write_per_defect(book.create_sheet("per defect"), rankings, kinds)
    write_about(book.create_sheet("about"), rankings)
    book.save(work / "book.xlsx")
    again = load_workbook(work / "book.xlsx")
    types = {cell.data_type for sheet in again.worksheets for line in sheet.iter_rows() for cell in line}
    assert types <= {"s", "n"}, types
    assert list(read_runs(again["runs"])) == [row[KEY] for row in rows]
    write_runs(again["runs"], rows)
    write_comparison(again["comparison"], rows, list(read_runs(again["runs"]).values()))


def _html(random: random.Random, work: Path) -> None:
    names = [draw_name(random) for _ in range(3)]
    page = to_html(Table(names, [[Cell(name, "name"), name, None] for name in names]), missing=names[0])
    _check_html(page, TAGS)
    (work / "page.html").write_text(page, encoding="utf-8")


def _markdown(random: random.Random, work: Path) -> None:
    names = [draw_name(random) for _ in range(3)]
    text = to_markdown(Table(names, [[name, -0.5, None] for name in names]))
    lines = text.splitlines()
    assert len(lines) == 5, lines
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 4 for line in lines), lines
    assert not re.search(r"<|(?<!\\)(\\\\)*[`*$]|(?<!\\)(\\\\)*\]\(", text), text
    assert not CONTROL.search(text)


def _terminal(random: random.Random, work: Path) -> None:
    names = [draw_name(random) for _ in range(3)]
    raw = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(raw, encoding="utf-8")):
        print_line(f"on {names[0]}")
        print_table(Table(["a", "b"], [[name, -0.5] for name in names]), title=names[1], fit=True)
        sys.stdout.flush()
        text = raw.getvalue().decode()
    assert not CONTROL.search(text)
    for sign in "[]:":  # neither taken as markup nor as an emoji
        assert text.split("\n")[0].count(sign) == names[0].split("\n")[0].count(sign)


def _log(random: random.Random, work: Path) -> None:
    record = logging.LogRecord("defectlab", logging.INFO, "", 0, "Image %s", (draw_name(random),), None)
    assert not CONTROL.search(LogFormatter("%(message)s").format(record).replace("\t", ""))


def _json(random: random.Random, work: Path) -> None:
    key, value = draw_name(random), draw_name(random)
    write_json(work / "data.json", {key: [value]})
    kept = {key.replace("\0", "\ufffd"): [value.replace("\0", "\ufffd")]}
    assert json.loads((work / "data.json").read_text(encoding="utf-8")) == kept


def _chart(random: random.Random, work: Path) -> None:
    svg = interval_chart({draw_name(random): (0.5, 0.4, 0.6), draw_name(random): (0.5, None, None)}, draw_name(random))
    _check_html(svg, None)
    svg.encode()


def _panel(random: random.Random, work: Path) -> None:
    pictures = [np.zeros((8, 8, 3), np.uint8)]
    draw_panel([PanelRow(pictures, draw_name(random), draw_name(random))], ["image"], draw_name(random), tile=64)


def _is_formula(text: str) -> bool:
    return bool(FORMULA.search(text)) and not NUMBER.fullmatch(text)


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return [row[:-1] for row in rows] if rows[0][-1] == ESCAPED else rows


def _check_html(page: str, tags: set[str] | None) -> None:
    """Check that the page has no tags or attributes but our own, and that each tag that opens is closed."""
    found = Page(page)
    assert tags is None or found.tags <= tags, found.tags - tags
    assert not {"script", "img"} & found.tags
    assert not any(name.startswith("on") or name in ("src",) for name in found.attributes), found.attributes
    assert not CONTROL.search(page.replace("\t", ""))


# Each writer with its share of the seeds: those that take longest have the smallest.
WRITERS = {
    _run_folder: 6,
    _table: 10,
    _scores: 10,
    _verdicts: 6,
    _workbook: 3,
    _html: 10,
    _markdown: 10,
    _terminal: 6,
    _log: 4,
    _json: 8,
    _chart: 1,
    _panel: 3,
}

TARGET = Target("names", prepare, attack, refuses=False)
