"""A self-contained HTML report about one or several runs, made from their records without network or model."""

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from defectlab.evaluation.metrics import sort_scores
from defectlab.evaluation.pixel.curves import Points, pixel_curves
from defectlab.evaluation.pixel.maps_and_masks import ImageSubset
from defectlab.evaluation.pixel.metrics import FPR_LIMIT
from defectlab.results.comparison.dataset_means import means_over_datasets
from defectlab.results.comparison.ranking import RANKED_BY, Entry, Ranking
from defectlab.results.comparison.runs import kinds_by_run, rankings_of
from defectlab.results.curves import by_kind, pr_points, roc_points, where_it_fails
from defectlab.results.evaluate import columns
from defectlab.results.groups import row_groups
from defectlab.results.k_shots import k_shot_curves
from defectlab.results.mask_loss import describe_mask_loss
from defectlab.results.pixel_grid import pixel_images
from defectlab.results.run.category_run import each_alone
from defectlab.results.run.run import Run
from defectlab.results.workbook_row import KEY, row_of
from defectlab.utils.files import replacing
from defectlab.utils.table import Table, to_html
from defectlab.visualization.charts import curve_chart, histogram, loss_chart, ranking_chart
from defectlab.visualization.html_tables import (
    average_by_label,
    confusion_table,
    dataset_means_table,
    kinds_side_by_side,
    ranking_table,
)
from defectlab.visualization.k_shots import (
    EXPLANATION,
    k_shot_curves_of,
    k_shots_svg,
    k_shots_table,
    readings,
)
from defectlab.visualization.run_panel import COLUMNS, ShownImages
from defectlab_runtime import names
from defectlab_runtime.errors import DataError, InputError
from defectlab_runtime.overlays import colour_map
from defectlab_runtime.scores import ScoreRow

logger = logging.getLogger(__name__)

MAX_CURVES = 10  # curves in one chart; more cannot be distinguished
PICTURES, PICTURES_OF_MANY, MANY = 6, 3, 4  # of each list, and of each list where there are this many runs

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1e1e22; max-width: 1480px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { margin-top: 2.2em; border-bottom: 1px solid #d5d5da; }
h3 { margin: 1.4em 0 .4em; }
table { border-collapse: collapse; margin: .8em 0; font-size: 14px; }
td, th { padding: .25em .6em; border-bottom: 1px solid #e4e4e8; }
th { text-align: left; background: #eef1f6; position: sticky; top: 0; } td.number { text-align: right; }
.wide { overflow-x: auto; } .quiet { color: #69696f; } .wrong { color: #be141e; font-weight: 600; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 13em; }
.best { background: #b7dfb2; font-weight: 600; } .tied { background: #e4f3df; } td { white-space: nowrap; }
details td { white-space: normal; overflow-wrap: anywhere; } nav a { margin-right: 1em; }
.scale img { height: 14px; width: 260px; vertical-align: middle; margin: 0 .5em; }
.charts { display: flex; flex-wrap: wrap; gap: 1em; } .charts svg { max-width: 100%; height: auto; }
.break { flex-basis: 100%; } .curves svg { width: 32%; min-width: 280px; }
figure { margin: .6em 0 1.2em; } .tiles { display: flex; gap: 6px; } .tiles img { width: 19.4%; align-self: start; }
figcaption { font-size: .9em; overflow-wrap: anywhere; } summary { cursor: pointer; margin: .6em 0; }
"""


def write_report(runs: Sequence[Run], target: Path) -> Path:
    """Write the HTML report of finished runs to `target`.

    Raises:
        InputError: No run, one without test scores, or no file that can be written.
    """
    if not runs:
        raise InputError("A report needs at least one run folder.")
    if target.is_dir():
        raise InputError(f"{target} is a folder: name the file to write, such as {target / 'report.html'}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The report cannot be written to {target} ({error}): name another file.") from error
    runs = each_alone(list({run.record.run_id: run for run in runs}.values()))
    tested = {run.record.run_id: (run, run.scores("test")) for run in runs}
    for run, rows in tested.values():
        if not rows:
            raise InputError(f"{run.folder} has no test scores (status {run.status}): there is nothing to report.")
    rankings = rankings_of(runs)
    ordered = [tested[str(row[KEY])] for ranking in rankings for entry in ranking.entries for row in entry.rows]
    drawn = {
        _curve_name(ranking, entry) + f" ({ranking.group[0]})" * (len(rankings) > 1): tested[str(entry.rows[0][KEY])]
        for ranking in rankings
        for entry in ranking.entries
    }
    count = PICTURES if len(runs) < MANY else PICTURES_OF_MANY
    sections = [_run_section(run, rows, place, count) for place, (run, rows) in enumerate(ordered)]
    charts = [_curves(drawn, len(drawn) < len(ordered)), _k_shots([run for run, _ in ordered])]
    body = "\n".join([_head(rankings, ordered), *charts, *sections])
    title = names.html(", ".join(run.record.name for run in runs[:3]))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>\n{body}\n'
        "</body></html>\n"
    )
    with replacing(target) as partial:
        partial.write_text(page, encoding="utf-8")
    logger.info("Report of %d %s: %.1f MB", len(runs), "run" if len(runs) == 1 else "runs", len(page) / 1e6)
    return target


def _head(rankings: Sequence[Ranking], ordered: Sequence[tuple[Run, Sequence[ScoreRow]]]) -> str:
    datasets = ", ".join(dict.fromkeys(ranking.group[0] for ranking in rankings))
    parts = [f"<h1>{len(ordered)} run{'s' * (len(ordered) > 1)} on {names.html(datasets)}</h1>"]
    if len(rankings) > 1:
        parts.append(
            '<p class="wrong">These runs have different images or splits: rank them within a table, never across.</p>'
        )
    together = means_over_datasets(rankings)
    if together:
        words = "Mean over datasets, each counting the same; ranked among rows on the same datasets and splits."
        parts += [f'<p class="quiet">{words}</p>', dataset_means_table(together)]
    links = (f'<a href="#run{place}">{names.html(run.title)}</a>' for place, (run, _) in enumerate(ordered))
    parts.append(f"<nav>{' '.join(links)}</nav>" if len(ordered) > 1 else "")
    kinds = kinds_by_run([run for run, _ in ordered])
    for ranking in rankings:
        parts.append(f"<h2>{names.html(ranking.group[0])}</h2>" if len(rankings) > 1 else "")
        parts += [f'<p class="quiet">{names.html(ranking.protocol)}</p>', ranking_table(ranking), _explained(ranking)]
        if sum(RANKED_BY in entry.spreads for entry in ranking.entries) > 1:
            parts.append(f'<div class="charts">{ranking_chart(ranking)}</div>')
        if sum(len(entry.rows) for entry in ranking.entries) > 1:
            parts += ["<h3>By kind of defect: AUROC against the good, and what the threshold caught</h3>"]
            parts.append(kinds_side_by_side(ranking, kinds))
    return "\n".join(part for part in parts if part)


def _explained(ranking: Ranking) -> str:
    """Return an HTML paragraph that explains the terms used in a ranking's table."""
    parts = ["95 %: where the image AUROC would lie on other images of these kinds."]
    if len(ranking.entries) > 1:
        parts.append(
            "Tied: not told from the best on these images, by DeLong's paired test or, for more than two, by comparing "
            "all with each other (of equal models any is called worse 5 times in 100)."
        )
    if ranking.trivial:
        parts.append("In red: no better than calling every image anomalous.")
    notes = dict.fromkeys(f"{entry.name}: {entry.note}." for entry in ranking.entries if entry.note)
    return f'<p class="quiet">{names.html(" ".join([*parts, *notes]))}</p>'


def _curve_name(ranking: Ranking, entry: Entry) -> str:
    """Return the name of a configuration's curve, with a part of its run id if several share the name."""
    name = f"{entry.rows[0].get('model', '')} {entry.name}"
    alone = sum(other.name == entry.name for other in ranking.entries) == 1
    return name if alone else f"{name} {str(entry.rows[0][KEY])[-6:]}"


def _curves(configurations: Mapping[str, tuple[Run, Sequence[ScoreRow]]], of_one_seed: bool) -> str:
    """Return the HTML section with image and pixel curves of the first seed of each configuration."""
    tested = dict(list(configurations.items())[:MAX_CURVES])
    image = {name: sort_scores(*columns(rows)) for name, (_, rows) in tested.items()}
    usable = {
        name: curve
        for name, curve in image.items()
        if not curve.problem and curve.positives.size and curve.negatives.size
    }
    pixel = {name: curves for name, (run, rows) in tested.items() if (curves := _pixel_curves(run, rows))}
    charts = []
    if usable:
        roc, pr = ({name: of(curve) for name, curve in usable.items()} for of in (roc_points, pr_points))
        charts += [*_roc_and_pr("image", roc, pr), '<div class="break"></div>']
    if pixel:
        roc, pr, pro = ({name: its[kind] for name, its in pixel.items()} for kind in ("roc", "pr", "pro"))
        charts += _roc_and_pr("pixel", roc, pr)
        axes = ("good pixels flagged (FPR)", "mean overlap of regions (PRO)")
        charts.append(curve_chart(pro, axes, "per-region overlap (PRO)", limit=FPR_LIMIT))
    if not charts:
        return ""
    some = f"The first {len(tested)} of {len(configurations)} configurations. " * (len(configurations) > len(tested))
    note = some + "Of each configuration the first seed." * of_one_seed
    return f'<h2>Curves</h2><p class="quiet">{note}</p><div class="charts curves">{"".join(charts)}</div>'


def _roc_and_pr(level: str, roc: Mapping[str, Points], pr: Mapping[str, Points]) -> list[str]:
    return [
        curve_chart(roc, ("good flagged (FPR)", "defects caught (TPR)"), f"{level} ROC", diagonal=True),
        curve_chart(pr, ("recall", "precision"), f"{level} precision and recall"),
    ]


def _k_shots(runs: Sequence[Run]) -> str:
    """Return the HTML section on fits with a few of the training images; empty if no run has any."""
    curves = k_shot_curves_of(runs)
    if not curves:
        return ""
    chart = k_shots_svg(dict(list(curves.items())[:MAX_CURVES]))
    some = f"The first {MAX_CURVES} of {len(curves)} runs. " * (len(curves) > MAX_CURVES)
    parts = ["<h2>How many good images</h2>", f'<p class="quiet">{names.html(some + EXPLANATION)}</p>']
    parts.append(f'<div class="charts">{chart}</div>')
    for run in runs:
        its = k_shot_curves(run)
        if its:
            lines = "<br>".join(map(names.html, readings(run, its)))
            parts += [f"<h3>{names.html(run.title)}</h3>", f"<p>{lines}</p>", to_html(k_shots_table(its))]
    return "\n".join(parts)


def _run_section(run: Run, rows: Sequence[ScoreRow], place: int, pictures: int) -> str:
    threshold = run.record.thresholds.image.value
    good, bad = ([row.score for row in rows if row.label == label] for label in (0, 1))
    parts = [f'<h2 id="run{place}">{names.html(run.title)}</h2>', _settings(run)]
    if masks := describe_mask_loss(run.record):
        parts.append(f"<p>{names.html(masks)}</p>")
    parts += ["<h3>Scores</h3>", f'<div class="charts">{histogram(good, bad, threshold, "test images")}</div>']
    parts.append(_losses(run.record.history))
    kinds = by_kind(rows, threshold, row_groups(run.record, rows))
    parts += ["<h3>By kind</h3>", confusion_table(kinds), average_by_label(kinds), _failures(run, pictures)]
    return "\n".join(part for part in parts if part)


def _losses(history: Mapping[str, Sequence[float | None]]) -> str:
    """Return training losses as a chart, or as text if there was only one epoch."""
    several = {name: values for name, values in history.items() if len(values) > 1}
    if several:
        return f'<h3>Training</h3><div class="charts">{loss_chart(several, "losses by epoch")}</div>'
    only = [f"{name} {values[0]:.4g}" for name, values in history.items() if values and values[0] is not None]
    return f"<h3>Training</h3><p>One epoch: {names.html(', '.join(only))}.</p>" if only else ""


def _settings(run: Run) -> str:
    record = run.record
    thresholds = [
        [level, one.value, one.rule, one.source + " (oracle)" * one.oracle, one.reason]
        for level, one in record.thresholds.by_level.items()
    ]
    settings = [*row_of(run).items(), *record.environment.to_dict().items()]
    return (
        to_html(Table(["threshold", "value", "rule", "from", "why"], thresholds))
        + "<details><summary>All settings, metrics and provenance</summary>"
        + to_html(Table(["what", "value"], settings))
        + "</details>"
    )


def _failures(run: Run, count: int) -> str:
    shown = ShownImages.of(run)
    if shown is None:
        return '<p class="quiet">No maps were kept, so there are no pictures.</p>'
    columns_shown = [COLUMNS[0], *(["ground truth"] if shown.masks is not None else []), *COLUMNS[1:]]
    words = f"Left to right: {', '.join(columns_shown)} (green: above the pixel threshold, magenta: ground truth)."
    parts = [f'<h3>Where it fails</h3><p class="quiet">{words}</p>', _scale(shown)]
    for title, indices in where_it_fails(shown.rows, shown.image_threshold, count).items():
        figures = "".join(_figure(shown, index) for index in indices)
        parts.append(f"<details open><summary><b>{title}</b></summary>{figures}</details>")
    return "\n".join(parts)


def _figure(shown: ShownImages, index: int) -> str:
    row = shown.rows[index]
    text, wrong = shown.verdict(index)
    try:
        pictures = "".join(f'<img alt="" src="{_embedded(tile)}">' for tile in shown.tiles(index, truth=True))
    except DataError as error:
        pictures = f'<span class="quiet">{names.html(str(error))}</span>'
    style = ' class="wrong"' if wrong else ""
    caption = f"{names.html(row.image_path)}: {names.html(text)}"
    return f'<figure><div class="tiles">{pictures}</div><figcaption{style}>{caption}</figcaption></figure>'


def _scale(shown: ShownImages) -> str:
    """Return HTML of the maps' colour scale with its end values and the pixel threshold."""
    scale = shown.scale
    bar = colour_map(np.linspace(scale.low, scale.high, 260)[None].repeat(14, axis=0), scale.low, scale.high)
    limit = "" if scale.threshold is None else f"; the contour is at the pixel threshold, {scale.threshold:.4g}"
    return (
        f'<p class="scale">{names.html(scale.label)} {scale.low:.4g}<img alt="" src="{_embedded(bar)}">'
        f"{scale.high:.4g}{limit}</p>"
    )


def _embedded(tile: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(tile).save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _pixel_curves(run: Run, rows: Sequence[ScoreRow]) -> dict[str, Points]:
    """Return a run's curves over pixels, on the grid of its metrics; empty without all maps or a pixel_AUROC."""
    if not run.has_all_maps or run.record.metrics.get("pixel_AUROC") is None:
        return {}
    images, _ = pixel_images(run)
    labelled = np.flatnonzero(columns(rows)[1] >= 0).tolist()
    return {} if images is None else pixel_curves(ImageSubset(images, labelled))
