"""A report's tables as HTML text: who is best, kinds of defect side by side and of one run."""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defectlab.results.comparison.dataset_means import Across
from defectlab.results.comparison.leaderboard import BEST, RANKED_BY, TIED, Board, Entry
from defectlab.results.comparison.runs import KindResult
from defectlab.results.curves import Kind
from defectlab.results.rows import KEY

_METRICS = ("image_F1Score", "image_AUPR", "pixel_AUROC", "pixel_F1Score", "pixel_AUPRO")


@dataclass(frozen=True)
class Marked:
    """A cell with a class of the page's style: wrong, quiet, best, tied or number."""

    value: Any
    style: str


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return an HTML table that scrolls sideways where it is wide; None is shown as n/a, text is escaped."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    style = ""
    if isinstance(value, Marked):
        value, style = value.value, value.style
    if value is None:
        return '<td class="quiet">n/a</td>'
    if isinstance(value, float):
        return f'<td class="{f"number {style}".strip()}">{value:.4f}</td>'
    if isinstance(value, int) and not isinstance(value, bool):
        style = f"number {style}".strip()
    classes = f' class="{style}"' if style else ""
    return f"<td{classes}>{html.escape(str(value))}</td>"


def standings(board: Board) -> str:
    """Return the board as a table, best first; the seeds of a configuration below it."""
    header = ["", "verdict", "model", "weights", "run", "seed", "image AUROC", "95 %", "p (Holm)", "sd of seeds"]
    header += [metric.replace("_", " ").replace("Score", "") for metric in _METRICS] + ["fit s", "images/s"]
    rows = []
    for rank, entry in enumerate(board.entries, 1):
        style = {BEST: "best", TIED: "tied"}.get(entry.verdict, "")
        head = [rank, Marked(entry.verdict, style) if entry.verdict else "", entry.rows[0].get("model")]
        head += [entry.weights.removesuffix(".safetensors"), Marked(entry.name, "name")]
        rows.append([*head, *_measured(entry, board)])
        if len(entry.rows) > 1:
            rows += [["", "", "", "", Marked(part.name, "quiet name"), *_measured(part, board)] for part in entry.parts]
    if board.trivial:
        names = ["", "", "", "", Marked("calls every image anomalous", "quiet"), "", 0.5, "", "", ""]
        rows.append([*names, *(board.trivial.get(metric, "") for metric in _METRICS), "", ""])
    used = [place for place in range(len(header)) if not place or any(row[place] != "" for row in rows)]
    return table([header[place] for place in used], [[row[place] for place in used] for row in rows])


def means_over_datasets(together: Sequence[Across]) -> str:
    """Return configurations that are on several datasets, with their means, as a table."""
    metrics = (RANKED_BY, *_METRICS)
    header = ["", "model", "weights", "run", *(metric.replace("_", " ").replace("Score", "") for metric in metrics), ""]
    rows = []
    for rank, one in enumerate(together, 1):
        who = [rank, one.first.rows[0].get("model"), one.first.weights, Marked(one.first.name, "name")]
        rows.append([*who, *(one.means.get(metric, "") for metric in metrics), Marked(one.note, "name quiet")])
    return table(header, rows)


def _measured(entry: Entry, board: Board) -> list[Any]:
    deviation = entry.spreads[RANKED_BY].deviation if RANKED_BY in entry.spreads else None
    values = [_unless_trivial(entry.mean(metric), board.trivial.get(metric)) for metric in _METRICS]
    seconds, speed = entry.mean("fit_seconds"), entry.images_per_second
    return [
        ", ".join(str(row.get("seed", "?")) for row in entry.rows),
        entry.mean(RANKED_BY),
        interval_text(entry.interval.low, entry.interval.high),
        "" if entry.p is None else entry.p,
        "" if deviation is None else deviation,
        *values,
        "" if seconds is None else f"{seconds:.1f}",
        "" if speed is None else f"{speed:.1f}",
    ]


def _unless_trivial(value: float | None, trivial: float | None) -> Any:
    """Mark a value that calling every image anomalous reaches as well."""
    return Marked(value, "wrong") if value is not None and trivial is not None and value <= trivial else value


def interval_text(low: float | None, high: float | None) -> str:
    """Return both ends in words, empty where there is no interval.

    >>> interval_text(0.5, 0.75)
    '0.500 to 0.750'
    """
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def kinds_side_by_side(board: Board, kinds: Mapping[str, Sequence[KindResult]]) -> str:
    """Return what each run does with each kind: false alarms of the good, AUROC and share caught of each defect."""
    rows = [row for entry in board.entries for row in entry.rows if kinds.get(str(row[KEY]))]
    columns = sorted({(kind.label, kind.defect) for row in rows for kind in kinds[str(row[KEY])]})
    if not rows or not columns:
        return ""
    header = ["model", "run", *(defect or "unknown" for _, defect in columns)]
    cells = []
    for row in rows:
        its = {(kind.label, kind.defect): kind for kind in kinds[str(row[KEY])]}
        cells.append([row.get("model"), row.get("run"), *(_kind_cell(its.get(column)) for column in columns)])
    return table(header, cells)


def _kind_cell(kind: KindResult | None) -> Any:
    if kind is None:
        return ""
    verb = {0: "flagged", 1: "caught"}.get(kind.label, "above the threshold")
    found = "no threshold" if kind.flagged is None else f"{kind.flagged} of {kind.count} {verb}"
    wrong = kind.flagged is not None and (kind.flagged > 0 if kind.label == 0 else kind.flagged < kind.count)
    areas = [f"{kind.image_auroc:.3f}"] if kind.image_auroc is not None else []
    areas += [f"pixels {kind.pixel_auroc:.3f}"] if kind.pixel_auroc is not None else []
    text = "; ".join([*areas, found])
    return Marked(text, "wrong") if wrong and kind.label >= 0 else text


def confusion(kinds: Sequence[Kind]) -> str:
    """Return kinds of test image against what they were called, with their average scores, lowest first."""
    header = ["kind", "label", "images", "called good", "called anomalous", "average score", "lowest", "highest"]
    header += ["AUROC against good", "95 %"]
    cells = []
    for kind in kinds:
        called: list[Any] = ["no threshold", "no threshold"]
        if kind.flagged is not None:
            called = [kind.count - kind.flagged, kind.flagged]
            mistake = {0: 1, 1: 0}.get(kind.label)
            if mistake is not None and called[mistake]:
                called[mistake] = Marked(called[mistake], "wrong")
        sure = interval_text(kind.interval.low, kind.interval.high) if kind.interval else ""
        label = {0: "good", 1: "anomalous"}.get(kind.label, "unknown")
        scores = [kind.mean_score, kind.lowest, kind.highest]
        area = "" if kind.label != 1 else kind.auroc
        cells.append([kind.defect or "unknown", label, kind.count, *called, *scores, area, sure])
    return table(header, cells)


def average_by_label(kinds: Sequence[Kind]) -> str:
    """Return the average score of all good and of all anomalous test images, the lower first."""
    found = []
    for label, name in ((0, "good"), (1, "anomalous"), (-1, "unknown")):
        its = [kind for kind in kinds if kind.label == label]
        count = sum(kind.count for kind in its)
        if count:
            found.append((sum(kind.mean_score * kind.count for kind in its) / count, name, count))
    return table(["label", "images", "average score"], [[name, count, mean] for mean, name, count in sorted(found)])
