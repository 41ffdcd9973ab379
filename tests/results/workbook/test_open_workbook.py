"""Workbooks of other programs: with macros, of gigabytes, saved by LibreOffice."""

import re
import resource
import shutil
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import openpyxl
import pytest
from helpers.runs import finished, scored
from helpers.workbook import PERSONS_CELLS, add_persons_sheet, edit, open_book
from openpyxl.chart import BarChart

from defectlab.results.workbook import imported_rows, read_workbook, update_workbook
from defectlab.results.workbook.open_workbook import file_content
from defectlab.results.workbook.package_check import MAX_XML_BYTES
from defectlab.utils import paths
from defectlab_runtime.errors import InputError

TURNS = 3


MACROS = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(4096)  # as a compound file of Microsoft begins


def with_macros(content: bytes) -> bytes:
    """The workbook as Excel saves it with macros: a part for them, its relation, and the types of both."""
    packed = BytesIO()
    relation = (
        b'<Relationship Id="rIdVba" Type="http://schemas.microsoft.com/office/2006/relationships/vbaProject" '
        b'Target="vbaProject.bin"/></Relationships>'
    )
    plain = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
    changes = {
        "xl/_rels/workbook.xml.rels": (b"</Relationships>", relation),
        "[Content_Types].xml": (plain, b"application/vnd.ms-excel.sheet.macroEnabled.main+xml"),
    }
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            before, after = changes.get(name, (b"", b""))
            assert not before or text.count(before) == 1
            new.writestr(name, text.replace(before, after) if before else text)
        new.writestr("xl/vbaProject.bin", MACROS)
    return packed.getvalue()


def test_a_workbook_with_macros_is_refused_by_its_name_and_left_as_it_is(monkeypatch: pytest.MonkeyPatch):
    update_workbook(finished("one"))
    book = paths.workbook().with_suffix(".xlsm")
    book.write_bytes(content := with_macros(paths.workbook().read_bytes()))
    monkeypatch.setenv("DEFECTLAB_WORKBOOK", str(book))
    with pytest.raises(InputError, match=r"\.xlsm: give it a name that ends in \.xlsx .* Macros"):
        update_workbook(finished("two"))
    assert book.read_bytes() == content


def test_macros_under_the_name_of_a_plain_workbook_are_kept_in_a_copy(caplog: pytest.LogCaptureFixture):
    update_workbook(finished("one"))
    edit(add_persons_sheet)
    paths.workbook().write_bytes(content := with_macros(paths.workbook().read_bytes()))
    assert update_workbook(finished("two")).written
    (copy,) = paths.workbook().parent.glob("models_comparing_before_*.xlsx")
    assert copy.read_bytes() == content
    assert f"cannot be carried over (macros): the file as it was is kept as {copy.name}" in caplog.text
    with zipfile.ZipFile(paths.workbook()) as archive:  # what is written is a plain workbook throughout
        assert "xl/vbaProject.bin" not in archive.namelist()
        assert b"macroEnabled" not in archive.read("[Content_Types].xml")
    assert {row["run"] for row in read_workbook()} == {"one", "two"}
    assert open_book()["mine"]["A1"].value == PERSONS_CELLS["A1"]


def test_rows_are_imported_from_a_workbook_with_macros_which_stays_as_it_is(tmp_path: Path):
    book = openpyxl.Workbook()
    cells = ("PaDiM", "image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score")
    for row, (name, value) in enumerate(zip(cells, ("mine", 0.7, 0.8, 0.9, 0.6), strict=True), 1):
        book.active.cell(row, 1, name)
        book.active.cell(row, 2, value)
    book.save(tmp_path / "plain.xlsx")
    (tmp_path / "old.xlsm").write_bytes(content := with_macros((tmp_path / "plain.xlsx").read_bytes()))
    assert [row["image_AUROC"] for row in imported_rows(tmp_path / "old.xlsm")] == [0.7]
    assert (tmp_path / "old.xlsm").read_bytes() == content


def write_large_sheet(path: Path, megabytes: int) -> None:
    """Give the first sheet of a workbook that many megabytes of XML, which zip packs to a thousandth."""
    content = path.read_bytes()
    with (
        zipfile.ZipFile(BytesIO(content)) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            with new.open(name, "w", force_zip64=True) as part:
                text = old.read(name)
                if name == "xl/worksheets/sheet1.xml":
                    head, end = text[: text.index(b"</sheetData>")], text[text.index(b"</sheetData>") :]
                    part.write(head)
                    for _ in range(megabytes):
                        part.write(b"<row><c><v>1</v></c></row>".ljust(64) * (1 << 14))
                    text = end
                part.write(text)


@pytest.mark.long
def test_a_sheet_of_2_gb_is_set_aside_by_its_size_without_being_unpacked(caplog: pytest.LogCaptureFixture):
    update_workbook(finished("one"))
    write_large_sheet(paths.workbook(), 2048)
    size = paths.workbook().stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limit = f"xl/worksheets/sheet1.xml has 2,048 MB; {MAX_XML_BYTES >> 20} MB are allowed. Delete what is not needed"
    with pytest.raises(InputError, match=limit):
        read_workbook()
    assert update_workbook(finished("two")).written
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 512 << 10  # in KB
    assert limit in caplog.text
    (aside,) = paths.workbook().parent.glob("models_comparing_unreadable_*.xlsx")
    assert aside.stat().st_size == size
    assert {row["run"] for row in read_workbook()} == {"one", "two"}


def save_in_libreoffice(book: Path, work: Path) -> None:
    profile = f"-env:UserInstallation={(work / 'profile').as_uri()}"
    command = ["soffice", "--headless", profile, "--convert-to", "xlsx", "--outdir", str(work), str(book)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (work / book.name).replace(book)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("soffice") is None, reason="needs LibreOffice (soffice)")
def test_three_turns_of_libreoffice_and_update_keep_rows_sheet_chart_picture_and_note(tmp_path: Path):
    runs = [
        scored("near", 0.5, 0, count=6),
        scored("far", 3.0, 1, count=6),
        finished("flow", "cflow", dataset="bottle"),
    ]
    update_workbook()
    edit(add_persons_sheet)
    titles = open_book().sheetnames
    (tmp_path / "office").mkdir()
    for turn in range(TURNS):
        save_in_libreoffice(paths.workbook(), tmp_path / "office")
        assert {row["run"] for row in read_workbook()} == {run.record.name for run in runs}
        runs.append(finished(f"turn{turn}"))
        assert update_workbook(runs[-1]).written
        book = open_book()
        assert book.sheetnames == titles
        assert sorted(row["run"] for row in read_workbook()) == sorted(run.record.name for run in runs)
        sheet = book["mine"]
        assert {place: sheet[place].value for place in PERSONS_CELLS} == PERSONS_CELLS
        assert (len(sheet._charts), len(sheet._images)) == (1, 1)
        assert sheet["A1"].comment is not None
        assert "new lamp" in sheet["A1"].comment.text
    others = sorted(file.name for file in paths.workbook().parent.glob("*.xlsx") if file != paths.workbook())
    assert others == []


def test_a_chart_sheet_before_others_moves_no_filter_to_another_sheet():
    update_workbook(finished("one"))
    book = open_book()
    filtered = {sheet.title for sheet in book.worksheets if sheet.auto_filter.ref}
    assert filtered
    book.create_chartsheet("curves", 0).add_chart(BarChart())
    paths.workbook().write_bytes(file_content(book))
    update_workbook(finished("two"))
    names = open_book().sheetnames
    assert names[0] == "curves"
    with zipfile.ZipFile(paths.workbook()) as archive:
        text = archive.read("xl/workbook.xml").decode()
    found = re.findall(r'localSheetId="(\d+)"[^>]*>\'?([^\'!]+)\'?!', text)
    assert {sheet for _, sheet in found} >= filtered
    assert all(names[int(place)] == sheet for place, sheet in found)
