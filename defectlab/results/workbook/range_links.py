"""Links over ranges of cells. openpyxl would make a link of each cell, and write its target into empty ones."""

import re
import zipfile
from collections.abc import Collection, Mapping
from io import BytesIO
from typing import Any
from xml.parsers import expat

from openpyxl.worksheet.hyperlink import Hyperlink
from openpyxl.worksheet.worksheet import Worksheet

_LINK = re.compile(
    rb"<((?:[\w.-]+:)?hyperlink)(?:\s+[\w:.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*\s*(?:/>|>\s*</\1\s*>)"
)  # fmt: skip


class LinkedSheet(Worksheet):
    """A sheet with links over ranges, kept apart: openpyxl's writer makes the list of links anew, from its cells."""

    range_links: list[Hyperlink]

    @property
    def _hyperlinks(self) -> list[Hyperlink]:
        return self._links

    @_hyperlinks.setter
    def _hyperlinks(self, links: list[Hyperlink]) -> None:
        self._links = [*self.range_links, *links]


def take_out(content: bytes, parts: Collection[str]) -> tuple[bytes, dict[str, list[dict[str, str]]]]:
    """Return an .xlsx file without the links over ranges in these parts, and these links' attributes by part."""
    taken: dict[str, list[dict[str, str]]] = {}
    packed = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name in parts:
                text, taken[name] = _take_out(text)
            new.writestr(name, text)
    return packed.getvalue(), taken


def _take_out(text: bytes) -> tuple[bytes, list[dict[str, str]]]:
    taken: list[dict[str, str]] = []

    def rest(found: re.Match[bytes]) -> bytes:
        attributes = _attributes(found[0])
        if ":" not in attributes.get("ref", ""):
            return found[0]
        taken.append(attributes)
        return b""

    return _LINK.sub(rest, text), taken


def _attributes(element: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = lambda _, attributes: found.update(attributes)
    parser.Parse(element, True)
    return found


def put_back(sheet: Worksheet, links: list[dict[str, str]]) -> None:
    """Give a sheet the links over ranges that were taken out of its part."""
    sheet.__class__ = LinkedSheet
    assert isinstance(sheet, LinkedSheet)
    sheet.range_links = [_link(sheet, attributes) for attributes in links]
    sheet._hyperlinks = []


def _link(sheet: Worksheet, attributes: Mapping[str, str]) -> Hyperlink:
    known: dict[str, Any] = {name: attributes.get(name) for name in ("ref", "location", "tooltip", "display")}
    relation = next((value for name, value in attributes.items() if name.endswith(":id")), None)
    return Hyperlink(**known, target=None if relation is None else sheet._rels.get(relation).Target)


def has_range_links(sheet: Worksheet) -> bool:
    """Return whether a sheet has links over ranges of cells."""
    return isinstance(sheet, LinkedSheet)
