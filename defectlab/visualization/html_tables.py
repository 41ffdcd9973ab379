"""A report's tables as HTML text: rankings of configurations, and results by kind of defect."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from defectlab.results.comparison.dataset_means import DatasetMeans
from defectlab.results.comparison.ranking import BEST, RANKED_BY, TIED, Entry, Ranking
from defectlab.results.comparison.runs import KindResult
from defectlab.results.curves import Kind
from defectlab.results.workbook_row import KEY
from defectlab.utils.table import Cell, Table, interval_text, to_html

_METRICS = ("image_F1Score", "image_AUPR", "pixel_AUROC", "pixel_F1Score", "pixel_AUPRO")
_TITLES = ("image AUROC", "image F1", "image AUPR", "pixel AUROC", "pixel F1", "pixel AUPRO")
_STYLES = {BEST: "best", TIED: "tied"}


def ranking_table(ranking: Ranking) -> str:
    """Return a ranking as an HTML table, best first; the seeds of a configuration are listed below it."""
    header = [
        "",
        "verdict",
        "dataset",
        "test images",
        "model",
        "weights",
        "run",
        "seed",
        "image AUROC",
        "95 %",
        "p (corrected)",
        "sd of seeds",
    ]
    header += [*_TITLES[1:], "fit s", "images/s"]
    rows = []
    for rank, entry in enumerate(ranking.entries, 1):
        verdict = Cell(entry.verdict, _STYLES.get(entry.verdict, ""))
        weights = entry.weights.removesuffix(".safetensors")
        about = [rank, verdict if entry.verdict else "", entry.rows[0].get("dataset", ""), entry.images]
        who = [*about, entry.rows[0].get("model"), weights, Cell(entry.name, "name")]
        rows.append([*who, *_measured(entry, ranking)])
        seeds = entry.seeds if len(entry.rows) > 1 else ()
        rows += [["", "", "", "", "", "", Cell(seed.name, "quiet name"), *_measured(seed, ranking)] for seed in seeds]
    if ranking.trivial:
        who = ["", "", "", "", "", "", Cell("calls every image anomalous", "quiet"), "", 0.5, "", "", ""]
        rows.append([*who, *(ranking.trivial.get(metric, "") for metric in _METRICS), "", ""])
    used = [place for place in range(len(header)) if not place or any(row[place] != "" for row in rows)]
    return to_html(Table([header[place] for place in used], [[row[place] for place in used] for row in rows]))


def _measured(entry: Entry, ranking: Ranking) -> list[Any]:
    deviation = entry.spreads[RANKED_BY].deviation if RANKED_BY in entry.spreads else None
    interval = interval_text(entry.interval.low, entry.interval.high)
    speeds = [
        None if speed is None else f"{speed:.1f}" for speed in (entry.mean("fit_seconds"), entry.images_per_second)
    ]
    metrics = [_unless_trivial(entry.mean(metric), ranking.trivial.get(metric)) for metric in _METRICS]
    sureness = _blank([interval, entry.p, deviation])
    return [entry.seed_names, entry.mean(RANKED_BY), *sureness, *metrics, *_blank(speeds)]


def _blank(values: Iterable[Any]) -> list[Any]:
    return ["" if value is None else value for value in values]


def _unless_trivial(value: float | None, trivial: float | None) -> Any:
    """Return the value, marked as wrong if it is no better than that of calling every image anomalous."""
    return Cell(value, "wrong") if value is not None and trivial is not None and value <= trivial else value


def dataset_means_table(means: Sequence[DatasetMeans]) -> str:
    """Return an HTML table of the means of configurations over several datasets."""
    rows = []
    for one in means:
        who = [one.rank, one.first.rows[0].get("model"), one.first.weights, Cell(one.first.name, "name")]
        metrics = (one.means.get(metric, "") for metric in (RANKED_BY, *_METRICS))
        rows.append([*who, *metrics, Cell(one.note, "name quiet")])
    return to_html(Table(["", "model", "weights", "run", *_TITLES, ""], rows))


def kinds_side_by_side(ranking: Ranking, kinds: Mapping[str, Sequence[KindResult]]) -> str:
    """Return an HTML table of each run's results by kind: false alarms of good images, AUROC and counts of defects."""
    rows = [row for entry in ranking.entries for row in entry.rows if kinds.get(str(row[KEY]))]
    columns = sorted({(kind.label, kind.defect) for row in rows for kind in kinds[str(row[KEY])]})
    if not rows or not columns:
        return ""
    cells = []
    for row in rows:
        by_column = {(kind.label, kind.defect): kind for kind in kinds[str(row[KEY])]}
        cells.append([row.get("model"), row.get("run"), *(_kind_cell(by_column.get(column)) for column in columns)])
    return to_html(Table(["model", "run", *(defect or "unknown" for _, defect in columns)], cells))


def _kind_cell(kind: KindResult | None) -> Any:
    if kind is None:
        return ""
    verb = {0: "flagged", 1: "caught"}.get(kind.label, "above the threshold")
    flagged = "no threshold" if kind.flagged is None else f"{kind.flagged} of {kind.count} {verb}"
    wrong = kind.flagged is not None and (kind.flagged > 0 if kind.label == 0 else kind.flagged < kind.count)
    areas = [f"{kind.image_auroc:.3f}"] if kind.image_auroc is not None else []
    areas += [f"pixels {kind.pixel_auroc:.3f}"] if kind.pixel_auroc is not None else []
    text = "; ".join([*areas, flagged])
    return Cell(text, "wrong") if wrong and kind.label >= 0 else text


def confusion_table(kinds: Sequence[Kind]) -> str:
    """Return an HTML table of the kinds of test images with counts of decisions and statistics of the scores."""
    header = ["kind", "label", "images", "called good", "called anomalous", "average score", "lowest", "highest"]
    rows = []
    for kind in kinds:
        called: list[Any] = ["no threshold", "no threshold"]
        if kind.flagged is not None:
            called = [kind.count - kind.flagged, kind.flagged]
            mistake = {0: 1, 1: 0}.get(kind.label)
            if mistake is not None and called[mistake]:
                called[mistake] = Cell(called[mistake], "wrong")
        interval = interval_text(kind.interval.low, kind.interval.high) if kind.interval else None
        label = {0: "good", 1: "anomalous"}.get(kind.label, "unknown")
        auroc = kind.auroc if kind.label == 1 else ""
        scores = [kind.mean_score, kind.lowest, kind.highest]
        rows.append([kind.defect or "unknown", label, kind.count, *called, *scores, auroc, interval or ""])
    return to_html(Table([*header, "AUROC against good", "95 %"], rows))


def average_by_label(kinds: Sequence[Kind]) -> str:
    """Return an HTML table of the average score of good, anomalous and unknown test images, lowest first."""
    rows = []
    for label, name in ((0, "good"), (1, "anomalous"), (-1, "unknown")):
        own = [kind for kind in kinds if kind.label == label]
        if count := sum(kind.count for kind in own):
            rows.append((name, count, sum(kind.mean_score * kind.count for kind in own) / count))
    return to_html(Table(["label", "images", "average score"], sorted(rows, key=lambda row: (row[2], row[0], row[1]))))
