"""The sheet `per defect`: results by kind of defect, in a block for each ranking with a row for each run."""

from collections.abc import Mapping, Sequence

from openpyxl.styles import Alignment, Font
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.results.comparison.ranking import RANKED_BY, Ranking
from defectlab.results.comparison.runs import KindResult
from defectlab.results.workbook.cells import HEADER, put, set_pages
from defectlab.results.workbook.leaderboard_sheet import BOLD, QUIET, TITLE, auroc_scale
from defectlab.results.workbook_row import KEY, Row, number

_WHO = ("model", "backbone", "run", "seed", RANKED_BY, "weakest kind")
_WIDTHS = (11, 19, 56, 7, 15, 20)
IMAGE, PIXEL, FLAGGED, ALARMS = "image AUROC", "pixel AUROC", "caught", "false alarms"

Kinds = Mapping[str, Sequence[KindResult]]  # by run id
Column = tuple[str, int, str]  # kind, label, what


def write_per_defect(sheet: Worksheet, rankings: Sequence[Ranking], kinds: Kinds) -> None:
    """Write a block for each ranking, in the leaderboard's order, without runs that have no results by defect."""
    top = 1
    for ranking in rankings:
        rows = [row for entry in ranking.entries for row in entry.rows]
        shown = [row for row in rows if kinds.get(str(row[KEY]))]
        if shown:
            top = _write_block(sheet, ranking, shown, len(rows) - len(shown), kinds, top) + 2
    if top == 1:
        put(sheet, 1, 1, "No run here has test scores by kind of defect.").font = QUIET
    for at, width in enumerate(_WIDTHS, 1):
        sheet.column_dimensions[get_column_letter(at)].width = width
    for at in range(len(_WIDTHS) + 1, sheet.max_column + 1):
        sheet.column_dimensions[get_column_letter(at)].width = 17
    sheet.freeze_panes = sheet.cell(1, _WHO.index("seed") + 1)
    set_pages(sheet, 1)


def _write_block(sheet: Worksheet, ranking: Ranking, rows: Sequence[Row], left_out: int, kinds: Kinds, top: int) -> int:
    """Write a ranking's block starting at row `top` and return the last row of the block."""
    put(sheet, top, 1, ranking.group[0] or "no dataset").font = TITLE
    gone = f"; {left_out} runs without a record here are left out" if left_out else ""
    put(sheet, top + 1, 1, ranking.protocol + gone).font = QUIET
    columns = _columns(rows, kinds)
    names, heads = top + 2, top + 3
    for at, head in enumerate([*_WHO, *(what for _, _, what in columns)], 1):
        sheet.cell(names, at).fill = HEADER
        cell = put(sheet, heads, at, head)
        cell.font, cell.fill = BOLD, HEADER
        if head == _WHO[-1]:
            cell.alignment = Alignment(horizontal="left", indent=1)
        elif at > _WHO.index(RANKED_BY):
            cell.alignment = Alignment(horizontal="right")
    for place, (defect, label, _) in enumerate(columns):
        if place == 0 or columns[place - 1][:2] != (defect, label):
            _put_title(sheet, names, len(_WHO) + 1 + place, _title(defect, label, rows, kinds))
    for place, row in enumerate(rows, heads + 1):
        _write_run(sheet, row, place, columns, kinds[str(row[KEY])])
    last = heads + len(rows)
    for at, (_, _, what) in enumerate(columns, len(_WHO) + 1):
        if what in (IMAGE, PIXEL):
            letter = get_column_letter(at)
            sheet.conditional_formatting.add(f"{letter}{heads + 1}:{letter}{last}", auroc_scale())
    return last


def _columns(rows: Sequence[Row], kinds: Kinds) -> list[Column]:
    """Return the columns: false alarms on good images, then the AUROCs and detected count of each kind of defect."""
    found: dict[tuple[int, str], set[str]] = {}
    for row in rows:
        for kind in kinds[str(row[KEY])]:
            whats = found.setdefault((kind.label, kind.defect), set())
            if kind.label != 1:
                whats.add(ALARMS if kind.label == 0 else FLAGGED)
                continue
            whats |= {IMAGE, FLAGGED} | ({PIXEL} if kind.pixel_auroc is not None else set())
    order = (ALARMS, IMAGE, PIXEL, FLAGGED)
    return [
        (defect, label, what) for (label, defect) in sorted(found) for what in order if what in found[label, defect]
    ]


def _put_title(sheet: Worksheet, place: int, at: int, title: str) -> None:
    cell = put(sheet, place, at, title)
    cell.font, cell.alignment = BOLD, Alignment(horizontal="left", indent=1)


def _title(defect: str, label: int, rows: Sequence[Row], kinds: Kinds) -> str:
    counts = {k.count for row in rows for k in kinds[str(row[KEY])] if (k.defect, k.label) == (defect, label)}
    return f"{defect or 'unknown'} ({' or '.join(map(str, sorted(counts)))} images)"


def _write_run(sheet: Worksheet, row: Row, place: int, columns: Sequence[Column], its: Sequence[KindResult]) -> None:
    ranked = [kind for kind in its if kind.image_auroc is not None]
    alike = len({kind.image_auroc for kind in ranked}) < 2
    weakest = None if alike else min(ranked, key=lambda kind: kind.image_auroc or 0.0).defect
    who = [row.get("model"), row.get("backbone"), row.get("run"), row.get("seed"), number(row, RANKED_BY), weakest]
    for at, value in enumerate(who, 1):
        put(sheet, place, at, value)
    sheet.cell(place, len(_WHO)).alignment = Alignment(horizontal="left", indent=1)
    sheet.cell(place, _WHO.index(RANKED_BY) + 1).number_format = "0.0000"
    by_kind = {(kind.defect, kind.label): kind for kind in its}
    for at, (defect, label, what) in enumerate(columns, len(_WHO) + 1):
        kind = by_kind.get((defect, label))
        if kind is None:
            continue
        cell = sheet.cell(place, at)
        if what in (IMAGE, PIXEL):
            cell.value, cell.number_format = kind.image_auroc if what == IMAGE else kind.pixel_auroc, "0.0000"
        elif kind.flagged is not None:
            cell.value, cell.alignment = f"{kind.flagged} of {kind.count}", Alignment(horizontal="right")
            if (kind.flagged > 0) if what == ALARMS else (kind.flagged < kind.count):
                cell.font = Font(name="Calibri", color="FFBE141E")
