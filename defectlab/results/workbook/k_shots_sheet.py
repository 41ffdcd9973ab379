"""The sheet `k-shots`: AUROC against the number of good images, a block with two charts for each dataset."""

from collections.abc import Mapping, Sequence

from openpyxl.chart import Reference, ScatterChart, Series
from openpyxl.chart.error_bar import ErrorBars
from openpyxl.styles import Alignment
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.worksheet import Worksheet

from defectlab.evaluation.k_shot_curve import CurvePoint, KShotCurve
from defectlab.results.k_shots import CURVES
from defectlab.results.workbook.cells import HEADER, put, set_pages
from defectlab.results.workbook.leaderboard_sheet import BOLD, QUIET, TITLE, numbers_of
from defectlab.results.workbook_row import KEY, Row
from defectlab_runtime import names

Curves = Mapping[str, Mapping[str, KShotCurve]]  # by run id and metric

COLUMNS = (
    *("model", "run", "seed", "metric", "images", "draws", "mean", "95% low", "95% high"),
    *("down to", "up to", "gain to the most", "gain 95% low", "gain 95% high", "more images"),
)
AT = {name: at for at, name in enumerate(COLUMNS, 1)}
_WIDTHS = {"model": 11, "run": 54, "metric": 13, "more images": 90}
_TEXT = {"model", "run", "metric", "more images"}
_COUNTS = {"seed", "images", "draws"}
NOTE = (
    "Means over draws of so many training images, with the 95 % interval of the mean (Student's t): how much it "
    "depends on the images drawn, on these test images. The gain is that to the largest number, draw by draw."
)
CHART_ROWS, CHART_COLUMNS = 22, 6
MAX_LOW = 0.95  # of the chart's axis, which ends at 1: a curve of ones alone would leave it no length
COLOURS = ("1F77B4", "FF7F0E", "2CA02C", "D62728", "9467BD", "8C564B", "E377C2", "7F7F7F", "BCBD22", "17BECF")
MAX_SERIES = len(COLOURS)


def write_k_shots(sheet: Worksheet, rows: Sequence[Row], curves: Curves) -> None:
    """Write a block for each dataset with the curves of its runs, in the order of the rows, and a chart a metric."""
    datasets: dict[str, list[Row]] = {}
    for row in rows:
        if curves.get(str(row[KEY])):
            datasets.setdefault(str(row.get("dataset", "")), []).append(row)
    top = 1
    for dataset, its in datasets.items():
        top = _write_block(sheet, dataset, its, curves, top)
    for name, at in AT.items():
        sheet.column_dimensions[get_column_letter(at)].width = _WIDTHS.get(name, max(len(name) + 3, 9))
    sheet.freeze_panes = sheet.cell(1, AT["run"] + 1)
    set_pages(sheet, 1)


def _write_block(sheet: Worksheet, dataset: str, rows: Sequence[Row], curves: Curves, top: int) -> int:
    """Write a dataset's block starting at row `top`, and return the first row of the next."""
    put(sheet, top, 1, f"{dataset or 'no dataset'}: how many good images").font = TITLE
    put(sheet, top + 1, 1, NOTE).font = QUIET
    header = top + 2
    for name, at in AT.items():
        cell = put(sheet, header, at, name)
        cell.font, cell.fill = BOLD, HEADER
        cell.alignment = Alignment(horizontal="left" if name in _TEXT else "right")
    place = header + 1
    drawn: dict[str, list[tuple[str, int, int]]] = {metric: [] for metric in CURVES}
    for row in rows:
        for metric, curve in curves[str(row[KEY])].items():
            first = place
            for point in curve.points:
                _write_point(sheet, place, row, metric, curve, point)
                place += 1
            if curve.points:
                drawn[metric].append((f"{row.get('model', '')} {row.get('run', '')}", first, place - 1))
            else:
                put(sheet, place, AT["more images"], f"{metric}: {curve.reading}")
                place += 1
    for number, (metric, series) in enumerate((metric, series) for metric, series in drawn.items() if series):
        _add_chart(sheet, f"{dataset}: {metric.replace('_', ' ')}", series, place + 1, 2 + number * CHART_COLUMNS)
    return place + 1 + CHART_ROWS + 1


def _write_point(sheet: Worksheet, place: int, row: Row, metric: str, curve: KShotCurve, point: CurvePoint) -> None:
    known = point.low is not None and point.high is not None
    values = {
        **{name: row.get(name) for name in ("model", "run", "seed")},
        **{"metric": metric, "images": point.k, "draws": point.draws, "mean": point.mean},
        **{"95% low": point.low, "95% high": point.high},
        "down to": point.mean - point.low if known and point.low is not None else 0.0,  # of the chart's bars
        "up to": point.high - point.mean if known and point.high is not None else 0.0,
        **{"gain to the most": point.loss, "gain 95% low": point.loss_low, "gain 95% high": point.loss_high},
        "more images": curve.reading if point is curve.points[0] else None,
    }
    for name, value in values.items():
        cell = put(sheet, place, AT[name], value)
        if name not in _TEXT | _COUNTS:
            cell.number_format = "0.0000"
        if name == "images" and point.k == curve.enough:
            cell.font = BOLD


def _add_chart(sheet: Worksheet, title: str, series: Sequence[tuple[str, int, int]], top: int, left: int) -> None:
    """Add a chart with a line for each (name, first row, last row), by the logarithm of the number of images."""
    chart = ScatterChart()
    chart.style, chart.scatterStyle = 13, "lineMarker"
    chart.title = names.cell(title) + (f" (the first {MAX_SERIES} runs)" if len(series) > MAX_SERIES else "")
    lows = []
    for (name, first, last), colour in zip(series, COLOURS, strict=False):
        at = {
            column: Reference(sheet, min_col=AT[column], min_row=first, max_row=last) for column in ("images", "mean")
        }
        line = Series(at["mean"], at["images"], title=names.cell(name))
        line.marker.symbol, line.smooth = "circle", False
        line.marker.graphicalProperties.solidFill = line.graphicalProperties.line.solidFill = colour
        line.errBars = ErrorBars(
            errDir="y",
            errBarType="both",
            errValType="cust",
            minus=numbers_of(sheet, AT["down to"], first, last),
            plus=numbers_of(sheet, AT["up to"], first, last),
            noEndCap=False,
        )
        chart.series.append(line)
        lows += [
            sheet.cell(place, AT["mean"]).value - sheet.cell(place, AT["down to"]).value
            for place in range(first, last + 1)
        ]
    chart.x_axis.title, chart.x_axis.scaling.logBase = "good images", 2
    chart.x_axis.scaling.min = 1
    chart.y_axis.scaling.min, chart.y_axis.scaling.max = min(max(int(min(lows) * 20) / 20, 0.0), MAX_LOW), 1.0
    chart.y_axis.number_format, chart.legend.position = "0.00", "b"
    chart.x_axis.delete = chart.y_axis.delete = False
    chart.width, chart.height = 18, 0.5 * CHART_ROWS - 0.4
    sheet.add_chart(chart, f"{get_column_letter(left)}{top}")
