"""A workbook that is not whole or too large is refused before openpyxl reads it."""

import zipfile
from pathlib import Path

import pytest

from defectlab.results.workbook import package_check
from defectlab.results.workbook.package_check import MAX_DEPTH, read_package
from defectlab.utils.errors import InputError

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
        (b'<worksheet><sheetData></sheetData><mergeCell ref="A2:XFD1048576"/></worksheet>', "merges or links more"),
        (b"<worksheet><sheetData></worksheet>", "mismatched tag"),
    ],
)
def test_a_part_that_is_no_honest_sheet_is_named(tmp_path: Path, sheet: bytes, said: str):
    with pytest.raises(InputError, match=said) as refused:
        read_package(package(tmp_path / "a.xlsx", sheet))
    assert SHEET in str(refused.value)


def test_a_sheet_whose_part_is_missing_is_noticed(tmp_path: Path):
    with pytest.raises(InputError, match="names 2 sheets and holds 1"):
        read_package(package(tmp_path / "a.xlsx", b"<worksheet/>", names=2))


def test_sizes_are_read_from_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(package_check, "MAX_XML_BYTES", 1 << 20)
    path = package(tmp_path / "a.xlsx", b"<worksheet>" + b" " * (2 << 20) + b"</worksheet>")
    with pytest.raises(InputError, match=r"too large: .* 2 MB, of which xl/worksheets/sheet1\.xml has 2 MB; 1 MB are"):
        read_package(path)


def test_what_openpyxl_would_drop_is_named(tmp_path: Path):
    path = package(tmp_path / "a.xlsx", b"<worksheet/>", **{"xl/vbaProject.bin": b"macros"})
    assert "macros" in read_package(path).lost
