"""Links over ranges of cells stay what they are."""

import zipfile
from io import BytesIO

import openpyxl
import pytest
from helpers.runs import finished
from helpers.workbook import open_book

from defectlab.results.workbook import update_workbook
from defectlab.results.workbook.open_workbook import load
from defectlab.utils import paths

TARGET = "https://example.org/?a=1&b=<2>"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def write_links(links: bytes) -> None:
    """Add to the person's sheet, which is the first one, links as a spreadsheet program writes them."""
    book = open_book() if paths.workbook().exists() else openpyxl.Workbook()
    sheet = book.create_sheet("mine", 0)
    sheet["A2"], sheet["C1"] = "text", "one link"
    sheet["C1"].hyperlink = TARGET
    content = BytesIO()
    book.save(content)
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(paths.workbook(), "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "xl/worksheets/sheet1.xml":
                assert text.count(b"</hyperlinks>") == 1
                text = text.replace(b"</hyperlinks>", links + b"</hyperlinks>")
            new.writestr(name, text)


def written_links() -> list[str]:
    """The references of the links in the person's sheet, as the file has them."""
    with zipfile.ZipFile(paths.workbook()) as archive:
        text = archive.read("xl/worksheets/sheet1.xml").decode()
    return sorted(part.split('"')[0] for part in text.partition("<hyperlinks>")[2].split(' ref="')[1:])


@pytest.mark.parametrize("reference", ["A1:A1048576", "A1:B3", "A1:XFD1048576", "$A$1:$B$3"])
@pytest.mark.parametrize(
    "form", ['<hyperlink ref="{}" location="runs!A1"/>', "<x:hyperlink  ref = '{}' location='a>b' ></x:hyperlink>"]
)
def test_a_link_over_many_cells_is_kept_as_one(reference: str, form: str):
    update_workbook(finished("one"))
    write_links(form.format(reference).encode())
    for run in ("two", "three"):
        assert update_workbook(finished(run)).written
    assert not list(paths.workbook().parent.glob("models_comparing_*.xlsx"))
    assert written_links() == sorted([reference, "C1"])
    sheet = load(paths.workbook())["mine"]
    assert {cell.coordinate: cell.value for row in sheet.iter_rows() for cell in row if cell.value} == {
        "A2": "text",
        "C1": "one link",
    }


def test_its_target_outside_of_the_file_stays():
    update_workbook(finished("one"))
    with_id = f'<hyperlink xmlns:r="{RELATION}" ref="A1:A9" r:id="rId1" tooltip="T &amp; U"/>'
    write_links(with_id.encode())
    update_workbook(finished("two"))
    (link,) = load(paths.workbook())["mine"].range_links
    assert (link.ref, link.target, link.tooltip) == ("A1:A9", TARGET, "T & U")


def test_a_link_without_its_target_makes_the_file_unreadable_not_the_link_empty():
    update_workbook(finished("one"))
    write_links(f'<hyperlink xmlns:r="{RELATION}" ref="A1:A9" r:id="rId77"/>'.encode())
    assert update_workbook(finished("two")).written
    assert len(list(paths.workbook().parent.glob("models_comparing_unreadable_*.xlsx"))) == 1


def test_a_generated_sheet_with_such_a_link_is_a_persons_own():
    update_workbook(finished("one"))
    book = open_book()
    content = BytesIO()
    place = book.sheetnames.index("about") + 1
    book["about"]["A1"].hyperlink = TARGET
    book.save(content)
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(paths.workbook(), "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == f"xl/worksheets/sheet{place}.xml":
                text = text.replace(b"</hyperlinks>", b'<hyperlink ref="C1:C9" location="runs!A1"/></hyperlinks>')
            new.writestr(name, text)
    update_workbook(finished("two"))
    assert "about (2)" in open_book().sheetnames
