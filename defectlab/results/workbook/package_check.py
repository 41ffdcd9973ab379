"""Check of an .xlsx file before a spreadsheet library reads it: is it whole, how large is it, what would be lost.

An .xlsx file is a zip archive of XML parts that refer to each other. openpyxl passes over a sheet whose part is missing
and drops parts and elements that it does not know, all in silence, and it unpacks whatever an archive claims to hold.
What an archive holds is counted here, and `book_contents` counts what openpyxl has made of it.
"""

import lzma
import posixpath
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from xml.parsers import expat

from openpyxl.utils import column_index_from_string

from defectlab_runtime.errors import InputError

MAX_FILE_BYTES = 512 << 20
MAX_PARTS = 20_000
MAX_PART_BYTES = 256 << 20  # of a picture or other part that is not XML
MAX_XML_BYTES = 64 << 20  # of all XML parts: about 12,000 runs of 120 columns, and 1 GB in memory as cells
MAX_DEPTH = 200  # of nested elements: charts have about 20
MAX_RANGE_CELLS = 500_000  # merged: openpyxl makes an object for each of these cells

_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, NotImplementedError, RuntimeError, EOFError,
    ValueError, OverflowError, OSError,
)  # fmt: skip
_SHEET = re.compile(r"xl/(worksheets|chartsheets|dialogsheets|macrosheets)/[^/]+\.xml", re.IGNORECASE)
# Parts that openpyxl writes again, or that the file does without.
_CARRIED = re.compile(
    r"\[Content_Types\]\.xml|.*/|(.*/)?_rels/[^/]*\.rels|docProps/(core|app|custom)\.xml|docProps/thumbnail\.\w+"
    r"|docMetadata/.*|xl/(workbook|styles|sharedStrings|calcChain)\.xml|xl/theme/.*|xl/(worksheets|chartsheets)/[^/]*\.xml"
    r"|xl/drawings/[^/]*\.(xml|vml)|xl/charts/(chart|style|colors)[^/]*\.xml|xl/media/[^/]*|xl/comments[^/]*\.xml"
    r"|xl/comments/[^/]*\.xml|xl/tables/[^/]*\.xml|xl/pivot(Tables|Cache)/[^/]*\.xml|xl/externalLinks/[^/]*\.xml"
    r"|xl/printerSettings/.*",
    re.IGNORECASE,
)
_NAMES = {
    "vbaproject": "macros",
    "threadedcomments": "threaded comments",
    "slicers": "slicers",
    "embeddings": "objects",
}
_KINDS = (  # names of parts and what their outermost element must be: openpyxl reads any other as an empty one
    (re.compile(r"xl/worksheets/[^/]*\.xml", re.IGNORECASE), ("worksheet",)),
    (re.compile(r"xl/chartsheets/[^/]*\.xml", re.IGNORECASE), ("chartsheet",)),
    (re.compile(r"xl/comments[^/]*\.xml|xl/comments/[^/]*\.xml", re.IGNORECASE), ("comments",)),
    (re.compile(r"xl/drawings/[^/]*\.xml", re.IGNORECASE), ("wsDr", "userShapes")),
    (re.compile(r"xl/charts/chart[^/]*\.xml", re.IGNORECASE), ("chartSpace",)),
    (re.compile(r"xl/tables/[^/]*\.xml", re.IGNORECASE), ("table",)),
    (re.compile(r"xl/pivotTables/[^/]*\.xml", re.IGNORECASE), ("pivotTableDefinition",)),
    (re.compile(r"xl/workbook\.xml", re.IGNORECASE), ("workbook",)),
    (re.compile(r"xl/sharedStrings\.xml", re.IGNORECASE), ("sst",)),
    (re.compile(r"xl/styles\.xml", re.IGNORECASE), ("styleSheet",)),
    (re.compile(r"(.*/)?_rels/[^/]*\.rels", re.IGNORECASE), ("Relationships",)),
)
_DRAWING_RELATIONS = re.compile(r"xl/drawings/_rels/[^/]*\.xml\.rels", re.IGNORECASE)
_PERSONS = re.compile(r"xl/persons/[^/]*\.xml", re.IGNORECASE)  # Excel writes an empty list of them too
SPARKLINES, PICTURES = "sparklines", "pictures of backgrounds, headers or charts"
NOTES, DRAWN, LINKS = "notes", "charts, pictures, text boxes and other shapes", "links of cells"
TABLES, PIVOTS, CHART_SHEETS, OTHER_FILES = "tables", "pivot tables", "chart sheets", "links to other workbooks"
CELLS, MERGED, RULES, VALIDATIONS, SERIES = (
    "cells",
    "merged cells",
    "conditional formats",
    "data validations",
    "series of charts",
)
_ROOTS = {
    "table": TABLES, "pivotTableDefinition": PIVOTS, "chartsheet": CHART_SHEETS, "externalLink": OTHER_FILES,
}  # fmt: skip
_CHILDREN = {("comments", 3): NOTES, ("wsDr", 2): DRAWN}  # (root, depth): whatever the elements there are called
_RULES = {"cfRule": RULES, "dataValidation": VALIDATIONS}
COUNTED = (
    CELLS,
    NOTES, DRAWN, LINKS, TABLES, PIVOTS, CHART_SHEETS, OTHER_FILES, MERGED, RULES, VALIDATIONS, SERIES,
)  # fmt: skip


@dataclass(frozen=True)
class Package:
    """An .xlsx file that is whole: its bytes, how many sheets it holds, and what openpyxl would not carry over.

    `held` counts what openpyxl should have read: the names in `COUNTED`. `range_links` are the parts of the sheets that
    have links over ranges of cells.
    """

    content: bytes
    sheets: int
    lost: list[str]
    held: Mapping[str, int]
    range_links: Sequence[str]


def read_package(path: Path) -> Package:
    """Read and check an .xlsx file.

    Raises:
        InputError: The file is damaged, lacks a part, or is larger than the limits of this module.
        OSError: It cannot be read at all.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path} has {path.stat().st_size >> 20} MB; a workbook may have {MAX_FILE_BYTES >> 20} MB.")
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            _check_sizes(path, archive.infolist())
            parts = {info.filename: archive.read(info) for info in archive.infolist()}
    except _ZIP_ERRORS as error:
        raise unreadable(path, f"{type(error).__name__}: {error}") from error
    try:
        return _checked(path, content, parts)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise unreadable(path, str(error)) from error


def unreadable(path: Path, why: str) -> InputError:
    """Return the error for a file that is no whole workbook."""
    return InputError(f"{path} cannot be read as an .xlsx workbook ({why}).")


def _check_sizes(path: Path, parts: list[zipfile.ZipInfo]) -> None:
    """Check what the archive's directory says of its parts, of which no more than that is ever unpacked."""
    names = Counter(part.filename for part in parts)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise unreadable(path, f"it holds {twice[0]} {names[twice[0]]} times")
    if len(parts) > MAX_PARTS:
        raise InputError(f"{path} has {len(parts):,} parts; a workbook may have {MAX_PARTS:,}.")
    for part in parts:
        if part.file_size > MAX_PART_BYTES and not _is_xml(part.filename):
            raise InputError(_too_large(path, part, part.file_size, MAX_PART_BYTES))
    xml = [part for part in parts if _is_xml(part.filename)]
    total = sum(part.file_size for part in xml)
    if total > MAX_XML_BYTES:
        raise InputError(_too_large(path, max(xml, key=lambda part: part.file_size), total, MAX_XML_BYTES))
    if sum(part.file_size for part in parts) > MAX_FILE_BYTES * 2:
        raise InputError(f"{path} unpacks to more than {MAX_FILE_BYTES * 2 >> 20} MB.")


def _too_large(path: Path, part: zipfile.ZipInfo, size: int, limit: int) -> str:
    return (
        f"{path} is too large: cells and other parts unpack to {size / 2**20:,.0f} MB, of which {part.filename} has "
        f"{part.file_size / 2**20:,.0f} MB; {limit >> 20} MB are allowed. Delete what is not needed in Excel or "
        "LibreOffice (also styles of empty cells: Ctrl+End shows how far a sheet reaches), or keep it in another file."
    )


def _is_xml(name: str) -> bool:
    return name.lower().endswith((".xml", ".rels"))


def _checked(path: Path, content: bytes, parts: Mapping[str, bytes]) -> Package:
    found = Counter[str]()
    targets: set[str] = set()
    for name, text in parts.items():
        if _is_xml(name):
            _scan(name, text, found, targets)
    sheets = sum(bool(_SHEET.fullmatch(name)) for name in parts)
    if found["workbook sheets"] != sheets:
        raise unreadable(path, f"it names {found['workbook sheets']} sheets and holds {sheets}")
    lost = [_title(name) for name in parts if not _CARRIED.fullmatch(name) and not _is_empty(name, found)]
    lost += [name for name in (SPARKLINES, PICTURES) if found[name]]
    if targets - set(parts):
        lost.append(f"{min(targets - set(parts))}, which is missing")
    apart = [name for name in parts if name not in targets and _CARRIED.fullmatch(name) and not _stands_alone(name)]
    if apart:
        lost.append(f"{apart[0]}, which nothing refers to")
    held = {name: found[name] for name in COUNTED}
    linked = [name for name in parts if found[f"range links {name}"]]
    return Package(content, sheets, list(dict.fromkeys(lost)), held, linked)


def _is_empty(name: str, found: Counter[str]) -> bool:
    return bool(_PERSONS.fullmatch(name)) and not found["persons"]


def _stands_alone(name: str) -> bool:
    return name.endswith(("/", ".rels")) or name == "[Content_Types].xml"


def _title(name: str) -> str:
    return next((title for mark, title in _NAMES.items() if mark in name.lower()), name)


def _scan(name: str, text: bytes, found: Counter[str], targets: set[str]) -> None:
    """Parse a part; count sheets and what openpyxl drops in `found`, and add the parts it refers to to `targets`.

    Raises:
        ValueError: It defines entities, nests too deep, or claims too many cells for a range.
        ExpatError: It is not well-formed.
    """
    is_sheet = bool(_SHEET.fullmatch(name))
    root = ""

    def on_element(tag: str, attributes: dict[str, str], depth: int) -> None:
        nonlocal root
        root = root or tag
        if depth == 1:
            _check_root(name, tag)
            if tag in _ROOTS:
                found[_ROOTS[tag]] += 1
        elif (root, depth) in _CHILDREN and tag != "author":
            found[_CHILDREN[root, depth]] += 1
        if tag == "Relationship" and name.endswith(".rels"):
            _count_target(name, attributes, found, targets)
        elif (counter := _COUNTERS.get(tag)) and counter.counts(root, depth):
            found[counter.name] += 1
        elif is_sheet and tag in _OF_SHEETS:
            _OF_SHEETS[tag](name, attributes, found)
        elif is_sheet and depth == 3 and tag in _RULES:  # those of extensions lie deeper, and openpyxl says so itself
            found[_RULES[tag]] += 1

    if is_sheet:
        found[CELLS] += text.count(b"</c>")  # empty ones that have a style end with "/>"
    try:
        parse(text, on_element)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise ValueError(f"{name}: {error}") from error


@dataclass(frozen=True)
class _Counter:
    """What elements of a tag are counted as: in any part, or in one with this root; at any depth, or at this."""

    name: str
    root: str | None = None
    depth: int | None = None

    def counts(self, root: str, depth: int) -> bool:
        return self.root in (None, root) and self.depth in (None, depth)


_COUNTERS = {
    "sheet": _Counter("workbook sheets", root="workbook"),
    "sparklineGroup": _Counter(SPARKLINES),
    "person": _Counter("persons", depth=2),
    "ser": _Counter(SERIES, root="chartSpace"),
}


def _count_target(name: str, attributes: Mapping[str, str], found: Counter[str], targets: set[str]) -> None:
    """Add the part that a relationship refers to, and count a picture that hangs on no drawing."""
    if attributes.get("TargetMode") == "External":
        return
    folder = posixpath.dirname(posixpath.dirname(name))
    target = attributes.get("Target", "").partition("#")[0]
    target = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
    targets.add(target)
    if target.startswith("xl/media/") and not _DRAWING_RELATIONS.fullmatch(name):
        found[PICTURES] += 1


def _count_merged(_: str, attributes: Mapping[str, str], found: Counter[str]) -> None:
    found[MERGED] += 1
    found["merged into others"] += _cells_of(attributes.get("ref", ""))
    if found["merged into others"] > MAX_RANGE_CELLS:
        fix = "unmerge whole rows and columns in Excel or LibreOffice"
        raise ValueError(f"more than {MAX_RANGE_CELLS:,} cells are merged: {fix}")


def _count_link(name: str, attributes: Mapping[str, str], found: Counter[str]) -> None:
    is_range = ":" in attributes.get("ref", "")
    found[f"range links {name}" if is_range else LINKS] += 1


_OF_SHEETS = {"mergeCell": _count_merged, "hyperlink": _count_link}


def _check_root(name: str, root: str) -> None:
    roots = next((roots for pattern, roots in _KINDS if pattern.fullmatch(name)), (root,))
    if root not in roots:
        raise ValueError(f"it holds <{root}> where <{roots[0]}> belongs")


def parse(text: bytes, on_element: Callable[[str, dict[str, str], int], None]) -> None:
    """Parse XML; call `on_element(local name, attributes, depth from 1)` for all elements but a sheet's plain cells."""
    parser = expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"elements are nested more than {MAX_DEPTH} deep")
        on_element(tag.rpartition(":")[2], attributes, depth)

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def doctype(*_: object) -> None:
        raise ValueError("it has a document type, in which entities could be defined")

    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler, parser.EndElementHandler = start, end
    first, last = _cells(text)
    parser.Parse(text[:first], False)
    parser.StartElementHandler = parser.EndElementHandler = None  # a call for each cell would cost seconds
    parser.Parse(text[first:last], False)
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(text[last:], True)


def _cells(text: bytes) -> tuple[int, int]:
    """Return where the rows of a sheet lie in its XML; an empty range if more than cells may lie between."""
    first = text.find(b"<sheetData>")
    last = text.find(b"</sheetData>", first)
    if first < 0 or last < 0:
        return 0, 0
    first += len(b"<sheetData>")
    marks = (b"mergeCell", b"hyperlink", b"sparklineGroup")
    return (0, 0) if any(text.find(mark, first, last) >= 0 for mark in marks) else (first, last)


def _cells_of(reference: str) -> int:
    """Return the number of cells of a range such as A1:C9; one that is no range counts as one cell."""
    found = re.fullmatch(r"\$?([A-Z]{1,3})\$?(\d{1,7}):\$?([A-Z]{1,3})\$?(\d{1,7})", reference)
    if found is None:
        return 1
    left, right = (column_index_from_string(letters) for letters in found.group(1, 3))
    return max(right - left + 1, 1) * max(int(found[4]) - int(found[2]) + 1, 1)
