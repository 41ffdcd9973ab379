"""Workbooks that are damaged or that a person has edited, through an update from the records.

Every row of the records is there afterwards. What the person added is there too, or the file as it was lies beside it.
"""

import os
import random
import re
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from unittest import mock

import openpyxl

from defectlab.results.workbook import read_workbook, update_workbook
from defectlab.results.workbook.open_workbook import load
from defectlab.results.workbook.package_check import read_package
from defectlab_runtime.errors import InputError
from tests.fuzz.mutations import damage
from tests.fuzz.target import Target
from tests.fuzz.workbook_edits import EDITS
from tests.helpers.runs import finished, scored
from tests.helpers.workbook import PERSONS_CELLS, add_persons_sheet

NAME = "models_comparing.xlsx"
_HOSTILE = (
    "",
    "0",
    "-1",
    "1048577",
    "99999999999",
    "1e999",
    "nan",
    "A1:XFD1048576",
    "#REF!",
    "true",
    "\ud7ff",
    "x" * 400,
)


def prepare(good: Path) -> None:
    with _project(good, good):
        scored("near", 0.5, 0, count=6)
        scored("far", 3.0, 1, count=6)
        finished("flow", "cflow", dataset="bottle")
        update_workbook()
        book = openpyxl.load_workbook(good / NAME)
        add_persons_sheet(book)
        book.save(good / NAME)
        (good / "ids").write_text(" ".join(str(row["run_id"]) for row in update_workbook().rows))


def attack(random: random.Random, good: Path, work: Path) -> None:
    path = work / NAME
    whole = (good / NAME).read_bytes()
    expected = set((good / "ids").read_text().split())
    edited = random.random() < 0.4
    content = (
        _edit(random, whole)
        if edited
        else random.choice((damage, _damage_part, _change_xml, _change_parts))(random, whole)
    )
    path.write_bytes(content)
    refused: InputError | None = None
    with _project(good, work):
        try:
            read_workbook()
        except InputError as error:
            refused = error
        assert path.read_bytes() == content, "reading has changed the file"
        assert update_workbook().written, "the update was blocked"
        copies = [file for file in work.glob("*.xlsx") if file != path and file.read_bytes() == content]
        _check(path, expected, bool(copies), edited)
        if random.random() < 0.3:
            names = load(path).sheetnames
            assert update_workbook().written, "the second update was blocked"
            assert load(path).sheetnames == names, "a second update makes other sheets"
    if refused is not None:
        raise refused


@contextmanager
def _project(home: Path, workbook: Path):
    places = {"DEFECTLAB_HOME": home, "DEFECTLAB_RESULTS": home / "results", "DEFECTLAB_WORKBOOK": workbook / NAME}
    with mock.patch.dict(os.environ, {name: str(place) for name, place in places.items()}):
        yield


def _check(path: Path, expected: set[str], copied: bool, edited: bool) -> None:
    book = load(path)  # openpyxl alone fills each cell of a link over a range
    ids = [row["run_id"] for row in read_workbook(path)]
    assert set(ids) >= expected, f"rows are missing: {ids}"
    assert len(ids) == len(set(ids)), f"rows are double: {ids}"
    assert not read_package(path).lost, "what was written would be copied again and again"
    assert {"comparison", "leaderboard", "per defect", "about"} <= {
        name.split(" (")[0].lower() for name in book.sheetnames
    }
    if edited or not copied:
        assert "mine" in book.sheetnames, "the person's sheet is gone, without a copy"
        assert not edited or not list(path.parent.glob("*_unreadable_*")), "an edited workbook was set aside"
        sheets = book.worksheets  # parts that were swapped put the person's cells on another sheet
        kept = max(sum(sheet[place].value is not None for place in PERSONS_CELLS) for sheet in sheets)
        assert kept == len(PERSONS_CELLS), "cells of the person's sheet are gone, without a copy"
        assert any(sheet._charts for sheet in sheets), "the chart is gone, without a copy"
        assert any(sheet._images for sheet in sheets), "the picture is gone, without a copy"
        assert any(sheet["A1"].comment for sheet in sheets), "the note is gone, without a copy"


def _edit(random: random.Random, whole: bytes) -> bytes:
    book = openpyxl.load_workbook(BytesIO(whole))
    for _ in range(random.choice((1, 1, 2, 4))):
        ours = [sheet for sheet in book.worksheets if sheet.title != "mine"]
        if ours:
            random.choice(EDITS)(random, book, random.choice(ours))
    if all(sheet.sheet_state != "visible" for sheet in book._sheets):
        book.worksheets[0].sheet_state = "visible"
    changed = BytesIO()
    book.save(changed)
    return changed.getvalue()


Parts = list[tuple[str, bytes]]


def _parts(content: bytes) -> Parts:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _packed(parts: Parts) -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts:
            archive.writestr(name, content)
    return packed.getvalue()


def _change_one(random: random.Random, whole: bytes, change: Callable[[random.Random, bytes], bytes]) -> bytes:
    """Change one part in a whole archive; the person's own sheet is left alone, so that a loss is one of the reader."""
    parts = _parts(whole)
    kinds = [at for at, (name, _) in enumerate(parts) if name != "xl/worksheets/sheet1.xml"]
    at = random.choice(kinds)
    parts[at] = parts[at][0], change(random, parts[at][1])
    return _packed(parts)


def _damage_part(random: random.Random, whole: bytes) -> bytes:
    return _change_one(random, whole, damage)


def _change_xml(random: random.Random, whole: bytes) -> bytes:
    """Change a part so that it mostly stays XML: attributes, names, elements, bombs."""
    return _change_one(random, whole, random.choice((_attribute, _attribute, _element, _name, _bomb, _deep, _ranges)))


def _attribute(random: random.Random, content: bytes) -> bytes:
    found = list(re.finditer(rb'="([^"]*)"', content))
    if not found:
        return content
    one = random.choice(found)
    return content[: one.start(1)] + random.choice(_HOSTILE).encode() + content[one.end(1) :]


def _element(random: random.Random, content: bytes) -> bytes:
    """Lose or double an element without children."""
    found = list(re.finditer(rb"<[a-zA-Z:]+[^<>]*/>", content))
    if not found:
        return content
    one = random.choice(found)
    return content[: one.start()] + one[0] * random.choice((0, 2, 3000)) + content[one.end() :]


def _name(random: random.Random, content: bytes) -> bytes:
    names = sorted(set(re.findall(rb"</([a-zA-Z:]+)>", content)))
    if not names:
        return content
    one, other = random.choice(names), random.choice(names)
    return re.sub(rb"(</?)" + one + rb"(?=[ />])", rb"\1" + other, content)


def _bomb(random: random.Random, content: bytes) -> bytes:
    entities = b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 9))
    start = content.find(b"?>") + 2 if content.startswith(b"<?xml") else 0
    text = content[start:]
    at = text.find(b">", text.find(b"<t>") if b"<t>" in text else 0) + 1
    doctype = b'<!DOCTYPE x [<!ENTITY a0 "lol">' + entities + b"]>"
    return content[:start] + doctype + text[:at] + b"&a8;" + text[at:]


def _deep(random: random.Random, content: bytes) -> bytes:
    at = content.rfind(b"</")
    depth = random.choice((50, 2000, 100_000))
    return content[:at] + b"<a>" * depth + b"</a>" * depth + content[at:]


def _ranges(random: random.Random, content: bytes) -> bytes:
    """Claim the whole sheet for a merged cell, a link or a row."""
    claims = (
        b'<mergeCells count="1"><mergeCell ref="A2:XFD1048576"/></mergeCells>',
        b'<hyperlinks><hyperlink ref="A2:XFD1048576" location="a"/></hyperlinks>',
    )
    at = content.find(b"</sheetData>")
    return content if at < 0 else content[: at + 12] + random.choice(claims) + content[at + 12 :]


def _change_parts(random: random.Random, whole: bytes) -> bytes:
    """Lose, double, swap, rename or add parts, or set their order by chance."""
    parts = _parts(whole)
    one, other = random.sample(range(len(parts)), 2)
    kind = random.choice(("lose", "lose", "double", "swap", "rename", "macro", "shuffle"))
    if kind == "lose":
        del parts[one]
    elif kind == "double":
        parts.append((parts[one][0], parts[other][1]))
    elif kind == "swap":
        parts[one], parts[other] = (parts[one][0], parts[other][1]), (parts[other][0], parts[one][1])
    elif kind == "rename":
        parts[one] = parts[one][0].upper(), parts[one][1]
    elif kind == "macro":
        parts.append(("xl/vbaProject.bin", b"\xd0\xcf\x11\xe0"))
    else:
        random.shuffle(parts)
    return _packed(parts)


TARGET = Target("workbook", prepare, attack)
