"""The leaderboard's chart: image AUROC of the best configurations as bars, with their intervals."""

import math
from collections.abc import Sequence

from openpyxl.chart import BarChart, Reference
from openpyxl.chart.data_source import NumDataSource, NumRef
from openpyxl.chart.error_bar import ErrorBars
from openpyxl.chart.shapes import GraphicalProperties
from openpyxl.styles import Font
from openpyxl.utils import get_column_letter, quote_sheetname
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.results.leaderboard import RANKED_BY, Entry

MOST_BARS = 20
CHART_COLUMNS = 4  # of numbers that the chart draws
_HEADERS = ("chart: run", "chart: image_AUROC", "chart: down to", "chart: up to")
_PALE = Font(name="Calibri", color="FFA6A6AC", size=9)


def chart_rows(entries: int) -> int:
    """Return how many rows the chart of so many configurations covers."""
    return 6 + math.ceil(min(entries, MOST_BARS) * 1.7)


def add_chart(sheet: Worksheet, title: str, entries: Sequence[Entry], header: int, top: int, left: int) -> None:
    """Draw the best entries at row `top`, from numbers written beside the block from row `header`, column `left` on."""
    shown = entries[:MOST_BARS]
    for at, name in enumerate(_HEADERS, left):
        sheet.cell(header, at, name).font = _PALE
    for place, entry in enumerate(shown, header + 1):
        value, interval = entry.spreads[RANKED_BY].mean, entry.interval
        down = value - interval.low if interval.low is not None else 0.0
        up = interval.high - value if interval.high is not None else 0.0
        label = f"{entry.rows[0].get('model', '')} {entry.name}"
        for at, cell_value in enumerate((label, value, max(down, 0.0), max(up, 0.0)), left):
            sheet.cell(place, at, cell_value).font = _PALE
    first, last = header + 1, header + len(shown)
    chart = BarChart()
    chart.type, chart.style, chart.legend, chart.gapWidth = "bar", 10, None, 60
    chart.title = f"{title}: image AUROC, 95 % interval over test images" + (
        f" (the best {MOST_BARS})" if len(entries) > MOST_BARS else ""
    )
    chart.visible_cells_only = False  # folded seeds lie in the same rows
    chart.add_data(Reference(sheet, min_col=left + 1, min_row=first, max_row=last))
    chart.set_categories(Reference(sheet, min_col=left, min_row=first, max_row=last))
    series = chart.series[0]
    series.graphicalProperties = GraphicalProperties(solidFill="9CC3E6")
    series.errBars = ErrorBars(
        errBarType="both",
        errValType="cust",
        minus=_numbers(sheet, left + 2, first, last),
        plus=_numbers(sheet, left + 3, first, last),
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


def _numbers(sheet: Worksheet, column: int, first: int, last: int) -> NumDataSource:
    letter = get_column_letter(column)
    return NumDataSource(numRef=NumRef(f=f"{quote_sheetname(sheet.title)}!${letter}${first}:${letter}${last}"))
