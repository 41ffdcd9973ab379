"""A workbook that is not whole or too large is refused before openpyxl reads it."""

import zipfile
from pathlib import Path

import pytest

from defectlab.results.workbook import package_check
from defectlab.results.workbook.package_check import DRAWN, MAX_DEPTH, read_package
from defectlab_runtime.errors import InputError

SHEET = "xl/worksheets/sheet1.xml"


def package(path: Path, sheet: bytes, *, names: int = 1, **others: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b"<workbook><sheets>" + b"<sheet/>" * names + b"</sheets></workbook>")
        archive.writestr(SHEET, sheet)
        for name, content in others.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        (b'<!DOCTYPE x [<!ENTITY a "b">]><worksheet>&a;</worksheet>', "document type"),
        (b"<worksheet>" + b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH + b"</worksheet>", "nested more than"),
        (
            b'<worksheet><sheetData></sheetData><mergeCell ref="A2:XFD1048576"/></worksheet>',
            "more than 500,000 cells are merged: unmerge",
        ),
        (b"<worksheet><sheetData></worksheet>", "mismatched tag"),
    ],
)
def test_a_part_that_is_no_honest_sheet_is_named(tmp_path: Path, sheet: bytes, said: str):
    with pytest.raises(InputError, match=said) as refused:
        read_package(package(tmp_path / "a.xlsx", sheet))
    assert SHEET in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("xl/worksheets/sheet2.xml", b"<Properties/>", "<Properties> where <worksheet>"),  # seed 200037 of the fuzzer
        ("xl/comments/comment1.xml", b"<worksheet/>", "<worksheet> where <comments>"),
        ("xl/drawings/drawing1.xml", b"<c:chartSpace/>", "<chartSpace> where <wsDr>"),
        ("xl/charts/chart1.xml", b"<x:wsDr/>", "<wsDr> where <chartSpace>"),
        ("xl/worksheets/_rels/sheet1.xml.rels", b"<Types/>", "<Types> where <Relationships>"),
    ],
)
def test_a_part_that_holds_what_belongs_elsewhere_is_noticed(tmp_path: Path, name: str, content: bytes, said: str):
    with pytest.raises(InputError, match=f"{name}: it holds {said} belongs"):
        read_package(package(tmp_path / "a.xlsx", b"<worksheet/>", names=1 + ("sheet2" in name), **{name: content}))


def test_a_sheet_whose_part_is_missing_is_noticed(tmp_path: Path):
    with pytest.raises(InputError, match="names 2 sheets and holds 1"):
        read_package(package(tmp_path / "a.xlsx", b"<worksheet/>", names=2))


def test_sizes_are_read_from_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(package_check, "MAX_XML_BYTES", 1 << 20)
    path = package(tmp_path / "a.xlsx", b"<worksheet>" + b" " * (2 << 20) + b"</worksheet>")
    with pytest.raises(InputError, match=r"too large: .* 2 MB, of which xl/worksheets/sheet1\.xml has 2 MB; 1 MB are"):
        read_package(path)


DRAWING = b"<x:wsDr><x:oneCellAnchor><x:sp/></x:oneCellAnchor><x:twoCellAnchor><x:pic/></x:twoCellAnchor></x:wsDr>"
BACKGROUND = b'<Relationships><Relationship Id="a" Type="x/image" Target="../media/image1.png"/></Relationships>'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("xl/vbaProject.bin", b"macros", "macros"),
        ("xl/persons/person.xml", b'<personList><person displayName="Olga"/></personList>', "xl/persons/person.xml"),
        ("xl/worksheets/_rels/sheet1.xml.rels", BACKGROUND, "pictures of backgrounds, headers or charts"),
    ],
)
def test_what_openpyxl_would_drop_is_named(tmp_path: Path, name: str, content: bytes, said: str):
    assert said in read_package(package(tmp_path / "a.xlsx", b"<worksheet/>", **{name: content})).lost


def test_the_empty_list_of_persons_that_excel_writes_is_no_loss(tmp_path: Path):
    without = read_package(package(tmp_path / "a.xlsx", b"<worksheet/>"))
    empty = {"xl/persons/person.xml": b'<?xml version="1.0"?><personList xmlns="p"></personList>'}
    assert read_package(package(tmp_path / "b.xlsx", b"<worksheet/>", **empty)).lost == without.lost


@pytest.mark.parametrize(
    ("name", "content", "held"),
    [
        (
            "xl/comments1.xml",
            b"<comments><authors><author/><author/></authors><commentList><comment/><odd/></commentList></comments>",
            {"notes": 2},
        ),
        ("xl/drawings/drawing1.xml", DRAWING, {DRAWN: 2}),
        ("xl/tables/table1.xml", b"<table><a/></table>", {"tables": 1}),
        ("xl/pivotTables/a.xml", b"<pivotTableDefinition/>", {"pivot tables": 1}),
        ("xl/externalLinks/a.xml", b"<externalLink/>", {"links to other workbooks": 1}),
        ("xl/charts/chart1.xml", b"<c:chartSpace><c:ser/><c:ser/></c:chartSpace>", {"series of charts": 2}),
    ],
)
def test_what_a_part_holds_is_counted(tmp_path: Path, name: str, content: bytes, held: dict[str, int]):
    found = read_package(package(tmp_path / "a.xlsx", b"<worksheet/>", **{name: content})).held
    assert {name: count for name, count in found.items() if count} == held


def test_what_a_sheet_holds_is_counted(tmp_path: Path):
    sheet = (
        b"<worksheet><sheetData><row><c/><c><v>1</v></c></row></sheetData><conditionalFormatting><cfRule/><cfRule/></conditionalFormatting>"
        b"<dataValidations><dataValidation/></dataValidations><mergeCells><mergeCell ref='A1:B2'/></mergeCells>"
        b"<hyperlinks><hyperlink ref='A1'/><hyperlink ref='A1:A1048576'/></hyperlinks>"
        b"<extLst><ext><a><b><cfRule/></b></a></ext></extLst></worksheet>"
    )
    found = read_package(package(tmp_path / "a.xlsx", sheet))
    assert {name: count for name, count in found.held.items() if count} == {
        "cells": 1, "links of cells": 1, "merged cells": 1, "conditional formats": 2, "data validations": 1,
    }  # fmt: skip
    assert found.range_links == [SHEET]
