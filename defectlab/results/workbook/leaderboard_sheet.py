"""The sheet `leaderboard`, with a ranking and a chart for each dataset, split and pixel grid."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from openpyxl.chart import BarChart, Reference
from openpyxl.chart.data_source import NumDataSource, NumRef
from openpyxl.chart.error_bar import ErrorBars
from openpyxl.chart.shapes import GraphicalProperties
from openpyxl.formatting.rule import CellIsRule, ColorScaleRule, FormulaRule
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter, quote_sheetname
from openpyxl.worksheet.properties import Outline
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.results.comparison.dataset_means import DatasetMeans, means_over_datasets
from defectlab.results.comparison.ranking import BEST, RANKED_BY, SHOWN_METRICS, TIED, Entry, Ranking
from defectlab.results.workbook.cells import HEADER, put, set_pages
from defectlab.results.workbook_row import Row
from defectlab.utils import paths
from defectlab_runtime import names

BOLD, TITLE = Font(name="Calibri", bold=True), Font(name="Calibri", size=13, bold=True)
QUIET, BASELINE = Font(name="Calibri", color="FF69696F"), Font(name="Calibri", italic=True, color="FF69696F")
LINK = Font(name="Calibri", color="FF0B57A4", underline="single")
BEST_FILL, TIED_FILL = PatternFill(bgColor="FFB7DFB2"), PatternFill(bgColor="FFE4F3DF")
TRIVIAL = "calls every image anomalous"
_WIDTHS = {
    "rank": 6,
    "verdict": 18,
    "dataset": 14,
    "test images": 24,
    "model": 11,
    "backbone": 19,
    "weights": 29,
    "run": 54,
    "checkpoint": 13,
    "report": 9,
    "note": 96,
}

COLUMNS = (
    "rank", "verdict", "dataset", "test images", "model", "backbone", "weights", "run", "seed",
    RANKED_BY, "95% low", "95% high", "p (corrected)", "sd of seeds", "seeds 95% low", "seeds 95% high",
    *(metric for metric in SHOWN_METRICS if metric != RANKED_BY),
    "fit_seconds", "images/s", "checkpoint_MB", "checkpoint", "report", "note",
)  # fmt: skip
_OF_CONFIGURATION = ("rank", "model", "backbone", "weights", "run")
AT = {name: at for at, name in enumerate(COLUMNS, 1)}
_TEXT = {
    "rank",
    "verdict",
    "dataset",
    "test images",
    "model",
    "backbone",
    "weights",
    "run",
    "seed",
    "checkpoint",
    "report",
    "note",
}
_LINKS = {"checkpoint", "report"}
_SHORT = {"fit_seconds", "images/s", "checkpoint_MB"}


def write_leaderboard(sheet: Worksheet, rankings: Sequence[Ranking], workbook: Path) -> None:
    """Write a block for each ranking, then the means over datasets; links are relative to the folder of `workbook`."""
    sheet.sheet_properties.outlinePr = Outline(summaryBelow=False)
    top = 1
    for ranking in rankings:
        top = _write_ranking(sheet, ranking, top, workbook)
    together = means_over_datasets(rankings)
    if together:
        top = _write_dataset_means(sheet, together, top)
    for name, at in AT.items():
        sheet.column_dimensions[get_column_letter(at)].width = _WIDTHS.get(name, max(len(name) + 4, 10))
    for at in range(len(AT) + 2, len(AT) + 2 + CHART_COLUMNS):
        sheet.column_dimensions[get_column_letter(at)].width = 12
    sheet.freeze_panes = sheet.cell(1, AT["run"] + 1)
    set_pages(sheet, 2)
    sheet.print_area = f"A1:{get_column_letter(len(AT))}{max(top, 2)}"


def _write_ranking(sheet: Worksheet, ranking: Ranking, top: int, workbook: Path) -> int:
    """Write a ranking's block starting at row `top` and return the first row of the next block."""
    dataset = ranking.group[0] or "no dataset"
    put(sheet, top, 1, f"{dataset}: {len(ranking.entries)} configurations").font = TITLE
    put(sheet, top + 1, 1, ranking.protocol).font = QUIET
    header = top + 2
    for name, at in AT.items():
        cell = put(sheet, header, at, name)
        cell.font, cell.fill = BOLD, HEADER
        cell.alignment = Alignment(wrap_text=True, vertical="top", horizontal=_side(name))
    place = header + 1
    for rank, entry in enumerate(ranking.entries, 1):
        place = _write_entry(sheet, entry, rank, place, workbook)
    last = place - 1
    if ranking.trivial:
        _write_trivial(sheet, ranking, place)
        place += 1
    _colour(sheet, header + 1, last, ranking)
    ranked = [entry for entry in ranking.entries if RANKED_BY in entry.spreads]
    if ranked:
        add_chart(sheet, dataset, ranked, header, place + 1, len(AT) + 2)
        place += 1 + chart_rows(len(ranked))
    return place + 2


def _write_dataset_means(sheet: Worksheet, together: Sequence[DatasetMeans], top: int) -> int:
    """Write the means over datasets starting at row `top` and return the next block's first row."""
    put(sheet, top, 1, "mean over datasets").font = TITLE
    put(
        sheet,
        top + 1,
        1,
        "Every dataset counts the same. Ranks are among rows on the same datasets and splits; each set has its own.",
    ).font = QUIET
    for name, at in AT.items():
        cell = put(sheet, top + 2, at, name if name in (*_OF_CONFIGURATION, *SHOWN_METRICS, "note") else None)
        cell.font, cell.fill = BOLD, HEADER
        cell.alignment = Alignment(horizontal=_side(name))
    for place, one in enumerate(together, top + 3):
        own = {"rank": one.rank, **{name: one.first.values()[name] for name in _OF_CONFIGURATION[1:]}}
        for name, value in {**own, **one.means, "note": one.note}.items():
            _put(sheet, place, name, value)
        sheet.cell(place, AT["rank"]).alignment = Alignment(horizontal="center")
    last = top + 2 + len(together)
    for metric in (RANKED_BY, "pixel_AUROC", "pixel_AUPRO"):
        letter = get_column_letter(AT[metric])
        sheet.conditional_formatting.add(f"{letter}{top + 3}:{letter}{last}", auroc_scale())
    return last + 3


def _write_entry(sheet: Worksheet, entry: Entry, rank: int, place: int, workbook: Path) -> int:
    """Write a configuration with its seeds in collapsed rows below, and return the next free row."""
    for name, value in entry.values().items():
        _put(sheet, place, name, value)
    if RANKED_BY in entry.spreads:
        put(sheet, place, AT["rank"], rank).alignment = Alignment(horizontal="center")
    if len(entry.rows) == 1:
        _link(sheet, place, entry.rows[0], workbook)
        return place + 1
    put(sheet, place, AT["run"], f"{entry.name} ({len(entry.rows)} seeds)")
    for below, part in enumerate(entry.seeds, place + 1):
        for name, value in part.values().items():
            _put(sheet, below, name, value, QUIET)
        sheet.cell(below, AT["run"]).alignment = Alignment(horizontal="left", indent=2)
        _link(sheet, below, part.rows[0], workbook)
    last = place + len(entry.rows)
    sheet.row_dimensions.group(place + 1, last, outline_level=1, hidden=True)
    sheet.row_dimensions[place].collapsed = True
    return last + 1


def _write_trivial(sheet: Worksheet, ranking: Ranking, place: int) -> None:
    values = {"run": TRIVIAL, RANKED_BY: 0.5, **ranking.trivial}
    for name, value in values.items():
        _put(sheet, place, name, value, BASELINE)


def _colour(sheet: Worksheet, first: int, last: int, ranking: Ranking) -> None:
    """Colour best and tied rows, AUROCs (one scale for all blocks), and values no better than a trivial detector."""
    verdict = f"${get_column_letter(AT['verdict'])}{first}"
    who = f"A{first}:{get_column_letter(AT['run'])}{last}"
    sheet.conditional_formatting.add(who, FormulaRule(formula=[f'{verdict}="{BEST}"'], fill=BEST_FILL))
    sheet.conditional_formatting.add(who, FormulaRule(formula=[f'{verdict}="{TIED}"'], fill=TIED_FILL))
    for metric in (RANKED_BY, "pixel_AUROC", "pixel_AUPRO"):
        letter = get_column_letter(AT[metric])
        sheet.conditional_formatting.add(f"{letter}{first}:{letter}{last}", auroc_scale())
    for metric, value in ranking.trivial.items():
        letter = get_column_letter(AT[metric])
        rule = CellIsRule(operator="lessThanOrEqual", formula=[repr(value)], font=Font(color="FFBE141E"))
        # an empty cell counts as 0
        sheet.conditional_formatting.add(
            f"{letter}{first}:{letter}{last}", FormulaRule(formula=[f'{letter}{first}=""'], stopIfTrue=True)
        )
        sheet.conditional_formatting.add(f"{letter}{first}:{letter}{last}", rule)


def auroc_scale() -> ColorScaleRule:
    """Return the colour scale for areas under a curve, from 0.5 (chance) to 1 (perfect)."""
    ends = {"start_color": "FFF4C7C3", "mid_color": "FFFFFFFF", "end_color": "FF8FCB9B"}
    return ColorScaleRule(
        start_type="num", start_value=0.5, mid_type="num", mid_value=0.8, end_type="num", end_value=1, **ends
    )


def _link(sheet: Worksheet, place: int, row: Row, workbook: Path) -> None:
    """Add links to the row's checkpoint and report, if the files exist, relative to the workbook's folder."""
    record = row.get("record")
    if not record:
        return
    targets = {
        "checkpoint": paths.resolve(str(row.get("checkpoint", ""))),
        "report": paths.resolve(record) / "report.html",
    }
    for name, target in targets.items():
        if target.is_file():
            cell = put(sheet, place, AT[name], "open")
            cell.hyperlink, cell.font, cell.alignment = _from(workbook, target), LINK, Alignment(horizontal="center")


def _from(workbook: Path, target: Path) -> str:
    try:
        return quote(os.fsencode(Path(os.path.relpath(target, workbook.parent)).as_posix()))
    except ValueError:  # another drive
        return target.as_uri()


def _side(name: str) -> str:
    return "center" if name in _LINKS else "left" if name in _TEXT else "right"


def _put(sheet: Worksheet, place: int, name: str, value: Any, font: Font | None = None) -> None:
    if value is None:
        return
    cell = put(sheet, place, AT[name], value)
    if font is not None:
        cell.font = font
    if name not in _TEXT:
        cell.number_format = "0.0" if name in _SHORT else "0.0000"


MAX_BARS = 20
CHART_COLUMNS = 4  # of numbers that the chart draws
_HEADERS = ("chart: run", "chart: image_AUROC", "chart: down to", "chart: up to")
_PALE = Font(name="Calibri", color="FFA6A6AC", size=9)


def chart_rows(entries: int) -> int:
    """Return the number of sheet rows that a chart of `entries` configurations covers."""
    return 6 + math.ceil(min(entries, MAX_BARS) * 1.7)


def add_chart(sheet: Worksheet, title: str, entries: Sequence[Entry], header: int, top: int, left: int) -> None:
    """Add a bar chart of the best entries at row `top`, with its data beside the block from (`header`, `left`) on."""
    shown = entries[:MAX_BARS]
    for at, name in enumerate(_HEADERS, left):
        put(sheet, header, at, name).font = _PALE
    for place, entry in enumerate(shown, header + 1):
        value, interval = entry.spreads[RANKED_BY].mean, entry.interval
        down = value - interval.low if interval.low is not None else 0.0
        up = interval.high - value if interval.high is not None else 0.0
        label = f"{entry.rows[0].get('model', '')} {entry.name}"
        for at, cell_value in enumerate((label, value, max(down, 0.0), max(up, 0.0)), left):
            put(sheet, place, at, cell_value).font = _PALE
    first, last = header + 1, header + len(shown)
    chart = BarChart()
    chart.type, chart.style, chart.legend, chart.gapWidth = "bar", 10, None, 60
    chart.title = f"{names.cell(title)}: image AUROC, 95 % interval over test images" + (
        f" (the best {MAX_BARS})" if len(entries) > MAX_BARS else ""
    )
    chart.visible_cells_only = False  # folded seeds lie in the same rows
    chart.add_data(Reference(sheet, min_col=left + 1, min_row=first, max_row=last))
    chart.set_categories(Reference(sheet, min_col=left, min_row=first, max_row=last))
    series = chart.series[0]
    series.graphicalProperties = GraphicalProperties(solidFill="9CC3E6")
    series.errBars = ErrorBars(
        errBarType="both",
        errValType="cust",
        minus=numbers_of(sheet, left + 2, first, last),
        plus=numbers_of(sheet, left + 3, first, last),
        noEndCap=False,
    )
    lows = [entry.interval.low for entry in shown if entry.interval.low is not None]
    lowest = min([*lows, *(entry.spreads[RANKED_BY].mean for entry in shown)])
    chart.y_axis.scaling.min, chart.y_axis.scaling.max = math.floor(lowest * 10) / 10, 1.0
    chart.y_axis.number_format = "0.00"
    chart.x_axis.scaling.orientation = "maxMin"  # the best on top
    chart.x_axis.tickLblSkip = 1  # every name, however narrow the bars
    chart.x_axis.delete = chart.y_axis.delete = False
    chart.width, chart.height = 30, 0.5 * chart_rows(len(entries)) - 0.4
    sheet.add_chart(chart, f"B{top}")


def numbers_of(sheet: Worksheet, column: int, first: int, last: int) -> NumDataSource:
    """Return the cells of a column as numbers of a chart, such as the lengths of its error bars."""
    letter = get_column_letter(column)
    return NumDataSource(numRef=NumRef(f=f"{quote_sheetname(sheet.title)}!${letter}${first}:${letter}${last}"))
