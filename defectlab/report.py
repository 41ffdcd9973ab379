"""One self-contained HTML file about one or several runs, made from their records: no network, no model."""

import base64
import html
import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from defectlab import paths
from defectlab.errors import DataError, InputError
from defectlab.evaluation.metrics import Curve, sorted_curve
from defectlab.evaluation.suite import pixel_curve
from defectlab.files import replacing
from defectlab.pictures import COLUMNS, ShownImages
from defectlab.results.charts import curve_chart, histogram, loss_chart
from defectlab.results.evaluate import columns
from defectlab.results.facts import Kind, by_kind, pr_points, roc_points, where_it_fails
from defectlab.results.record import Run, ScoreRow
from defectlab.results.workbook import group_of, row_of
from defectlab.results.workbook.rows import BARE_METRICS

logger = logging.getLogger(__name__)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1e1e22; max-width: 1180px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { margin-top: 2.2em; border-bottom: 1px solid #d5d5da; }
h3 { margin: 1.4em 0 .4em; }
table { border-collapse: collapse; margin: .8em 0; } td, th { padding: .25em .8em; border-bottom: 1px solid #e4e4e8; }
th { text-align: left; background: #eef1f6; position: sticky; top: 0; } td.number { text-align: right; }
.wide { overflow-x: auto; } .quiet { color: #69696f; } .wrong { color: #be141e; font-weight: 600; }
.charts { display: flex; flex-wrap: wrap; gap: 1em; } .charts svg { max-width: 100%; height: auto; }
figure { margin: .6em 0 1.2em; } figure img { width: 24%; margin-right: .6%; vertical-align: top; }
figcaption { font-size: .9em; overflow-wrap: anywhere; } summary { cursor: pointer; margin: .6em 0; }
"""


def write_report(runs: Sequence[Run], target: Path) -> Path:
    """Write the report of finished runs.

    Raises:
        InputError: No run, or one without test scores.
    """
    if not runs:
        raise InputError("A report needs at least one run folder.")
    tested = [(run, run.scores("test")) for run in runs]
    for run, rows in tested:
        if not rows:
            raise InputError(f"{run.folder} has no test scores (status {run.status}): there is nothing to report.")
    body = "\n".join([_head(runs), _curves(tested), *(_run_section(run, rows) for run, rows in tested)])
    title = html.escape(", ".join(run.record["name"] for run in runs[:3]))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>\n{body}\n'
        "</body></html>\n"
    )
    with replacing(target) as partial:
        partial.write_text(page, encoding="utf-8")
    logger.info("Report of %d runs: %s (%.1f MB)", len(runs), paths.relative(target), len(page) / 1e6)
    return target


def _head(runs: Sequence[Run]) -> str:
    rows = [row_of(run) for run in runs]
    header = ["model", "run", *BARE_METRICS, "image AUROC, 95 %", "trivial image F1", "fit s", "test s"]
    cells = []
    for run, row in zip(runs, rows, strict=True):
        interval = run.record.get("intervals", {}).get("image_AUROC", {})
        sure = f"{interval['low']:.3f} to {interval['high']:.3f}" if interval.get("low") is not None else "n/a"
        trivial = run.record.get("trivial", {}).get("image_F1Score")
        times = [run.record["timings"].get(stage) for stage in ("fit", "test")]
        values = [row.get(metric) for metric in BARE_METRICS]
        cells.append([row["model"], row["run"], *values, sure, trivial, *(f"{t:.1f}" if t else "" for t in times)])
    warning = ""
    if len({group_of(row) for row in rows}) > 1:
        warning = '<p class="wrong">These runs have different images or splits: do not rank them by these numbers.</p>'
    names = ", ".join(dict.fromkeys(str(row["dataset"]) for row in rows))
    return f"<h1>{len(runs)} run{'s' * (len(runs) > 1)} on {html.escape(names)}</h1>{warning}{_table(header, cells)}"


def _curves(tested: Sequence[tuple[Run, Sequence[ScoreRow]]]) -> str:
    image = {_label(run): sorted_curve(*columns(rows)) for run, rows in tested}
    pixel = {_label(run): _pixel_curve(run, rows) for run, rows in tested}
    charts = []
    for level, curves in (("image", image), ("pixel", pixel)):
        usable = {
            name: curve
            for name, curve in curves.items()
            if not curve.problem and curve.positives.size and curve.negatives.size
        }
        if not usable:
            continue
        roc = {name: roc_points(curve) for name, curve in usable.items()}
        pr = {name: pr_points(curve) for name, curve in usable.items()}
        axes = ("good flagged (FPR)", "defects caught (TPR)")
        charts.append(curve_chart(roc, axes, f"{level} ROC", diagonal=True))
        charts.append(curve_chart(pr, ("recall", "precision"), f"{level} precision and recall"))
    return f'<h2>Curves</h2><div class="charts">{"".join(charts)}</div>' if charts else ""


def _run_section(run: Run, rows: Sequence[ScoreRow]) -> str:
    threshold = run.record["thresholds"]["image"]["value"]
    good, bad = ([row.score for row in rows if row.label == label] for label in (0, 1))
    parts = [f"<h2>{html.escape(_label(run))}</h2>", _settings(run), "<h3>Scores</h3>", '<div class="charts">']
    parts += [histogram(good, bad, threshold, "test images"), "</div>"]
    history = {name: values for name, values in run.record.get("history", {}).items() if len(values) > 1}
    if history:
        parts.append(loss_chart(history, "training"))
    parts += ["<h3>By kind</h3>", _kinds(by_kind(rows, threshold)), _failures(run)]
    return "\n".join(parts)


def _settings(run: Run) -> str:
    record = run.record
    thresholds = [
        [level, chosen["value"], chosen["rule"], chosen["source"], chosen["reason"]]
        for level, chosen in record["thresholds"].items()
    ]
    return (
        _table(["threshold", "value", "rule", "from", "why"], thresholds)
        + "<details><summary>All settings, metrics and provenance</summary>"
        + _table(["what", "value"], [*row_of(run).items(), *record.get("environment", {}).items()])
        + "</details>"
    )


def _kinds(kinds: Sequence[Kind]) -> str:
    header = [
        "kind",
        "images",
        "above the threshold",
        "average score",
        "lowest",
        "highest",
        "AUROC against good",
        "95 %",
    ]
    cells = []
    for kind in kinds:
        flagged = "no threshold" if kind.flagged is None else f"{kind.flagged} of {kind.count}"
        interval = kind.interval
        sure = f"{interval.low:.3f} to {interval.high:.3f}" if interval and interval.low is not None else ""
        scores = [kind.mean_score, kind.lowest, kind.highest]
        cells.append([kind.defect or "unknown", kind.count, flagged, *scores, kind.auroc, sure])
    return _table(header, cells)


def _failures(run: Run) -> str:
    shown = ShownImages.of(run)
    if shown is None:
        return '<p class="quiet">No maps were kept, so there are no pictures.</p>'
    parts = [f'<h3>Where it fails</h3><p class="quiet">Left to right: {", ".join(COLUMNS)}; all maps on one scale.</p>']
    for title, indices in where_it_fails(shown.rows, shown.image_threshold).items():
        figures = "".join(_figure(shown, index) for index in indices)
        parts.append(f"<details open><summary><b>{title}</b></summary>{figures}</details>")
    return "\n".join(parts)


def _figure(shown: ShownImages, index: int) -> str:
    row = shown.rows[index]
    text, wrong = shown.verdict(index)
    try:
        pictures = "".join(f'<img alt="" src="{_embedded(tile)}">' for tile in shown.tiles(index))
    except DataError as error:
        pictures = f'<span class="quiet">{html.escape(str(error))}</span>'
    style = ' class="wrong"' if wrong else ""
    return (
        f"<figure>{pictures}<figcaption{style}>{html.escape(row.image_path)}: {html.escape(text)}</figcaption></figure>"
    )


def _embedded(tile: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(tile).save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    if value is None:
        return '<td class="quiet">n/a</td>'
    if isinstance(value, float):
        return f'<td class="number">{value:.4f}</td>'
    number = ' class="number"' if isinstance(value, int) and not isinstance(value, bool) else ""
    return f"<td{number}>{html.escape(str(value))}</td>"


def _label(run: Run) -> str:
    return f"{run.folder.parent.parent.name} {run.record['name']}"


def _pixel_curve(run: Run, rows: Sequence[ScoreRow]) -> Curve:
    maps, masks = (run.maps("test"), run.masks("test")) if run.has_all_maps else (None, None)
    return pixel_curve(maps, masks, columns(rows)[1])
