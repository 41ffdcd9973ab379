"""Runs against each other, on the same test images: differences that can be told from chance, and ties."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from defectlab.errors import InputError, OptionError, unknown_name
from defectlab.evaluation.bootstrap import drawn_image_metrics, image_draws, too_few
from defectlab.evaluation.intervals import PairedTest, auroc_interval, delong_test, holm
from defectlab.evaluation.metrics import auroc
from defectlab.evaluation.paired import paired_bootstrap
from defectlab.evaluation.pixel_bootstrap import drawn_in_turn, pixel_counts
from defectlab.evaluation.pixels import NAMES
from defectlab.evaluation.sources import Chosen
from defectlab.results.evaluate import columns
from defectlab.results.grid import pixel_images
from defectlab.results.parts import row_parts
from defectlab.results.record import Run, ScoreRow
from defectlab.results.workbook.rows import LOWER_IS_BETTER

SIGNIFICANT = 0.05
RANKED_BY = "image_AUROC"
METRICS = (*(f"image_{name}" for name in NAMES if name != "AUPRO"), *(f"pixel_{name}" for name in NAMES))
Ends = tuple[float | None, float | None]


@dataclass(frozen=True)
class Compared:
    """One run beside the best of those compared; `test` and `p` (corrected by Holm) are None for the best itself.

    `value` is the metric, `interval` the ends of its 95 % interval.
    """

    run: Run
    metric: str
    value: float
    interval: Ends
    test: PairedTest | None
    p: float | None

    @property
    def tied(self) -> bool:
        """Whether it cannot be told from the best."""
        return self.p is None or self.p >= SIGNIFICANT


def compare_runs(runs: Sequence[Run], metric: str = RANKED_BY) -> list[Compared]:
    """Compare runs by a metric, best first, each with the best by a paired test, corrected by Holm.

    The image AUROC by DeLong's test, every other metric by the paired bootstrap. Where parts have several photographs
    (`data.group`), both take parts as what is independent.

    Raises:
        OptionError: No such metric.
        InputError: Fewer than two runs, other test images or pixel grids, too few images of a class, or a run for which
            the metric has no value.
    """
    if metric not in METRICS:
        raise OptionError(unknown_name("metric", metric, METRICS))
    if len(runs) < 2:
        raise InputError("Comparing needs at least two runs: defectlab compare RUN RUN ...")
    rows, labels, scores = _matched(runs)
    groups = row_parts(runs[0].record, rows)
    values, intervals = _values(runs, metric, labels, scores, groups)
    better = min if metric in LOWER_IS_BETTER else max
    best = better(range(len(runs)), key=lambda index: values[index])  # of equals the first given
    others = [index for index in range(len(runs)) if index != best]
    if metric == RANKED_BY:
        tests = {str(index): delong_test(scores[best], scores[index], labels, groups=groups) for index in others}
    else:
        drawn = _drawn(runs, metric, rows, labels, scores, groups)
        tests = {
            str(index): paired_bootstrap(values[best] - values[index], drawn[best], drawn[index]) for index in others
        }
    corrected = holm({index: test.p for index, test in tests.items()})
    found = [
        Compared(run, metric, values[index], intervals[index], tests.get(str(index)), corrected.get(str(index)))
        for index, run in enumerate(runs)
    ]
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(found, key=lambda one: (one.test is not None, sign * one.value))


def _values(
    runs: Sequence[Run], metric: str, labels: np.ndarray, scores: Sequence[np.ndarray], groups: Sequence[str] | None
) -> tuple[list[float], list[Ends]]:
    """Return each run's metric and the ends of its interval: of the image AUROC from the scores, else as recorded."""
    if metric == RANKED_BY:
        found = [auroc(its, labels) for its in scores]
        missing = next((one.reason for one in found if one.value is None), None)
        if missing:
            raise InputError(f"The image AUROC has no value on these test images: {missing}.")
        sure = [auroc_interval(its, labels, groups=groups) for its in scores]
        return [one.value or 0.0 for one in found], [(one.low, one.high) for one in sure]
    values, ends = [], []
    for run in runs:
        value = run.record["metrics"].get(metric)
        if value is None:
            reason = run.record.get("metric_reasons", {}).get(metric, "it was not computed: `defectlab evaluate RUN`")
            raise InputError(f"{metric} of {run.folder.name} has no value: {reason}.")
        interval: Mapping[str, float | None] = run.record.get("intervals", {}).get(metric) or {}
        values.append(float(value))
        ends.append((interval.get("low"), interval.get("high")))
    return values, ends


def _drawn(
    runs: Sequence[Run],
    metric: str,
    rows: Sequence[ScoreRow],
    labels: np.ndarray,
    scores: Sequence[np.ndarray],
    groups: Sequence[str] | None,
) -> list[NDArray[np.float64]]:
    """Return each run's metric on the same draws of the test images: (b,)."""
    lack = too_few(labels, groups)
    if lack:
        raise InputError(f"A paired test has nothing to go by: {lack}.")
    draws = image_draws(labels, groups)
    level, name = metric.split("_", 1)
    grids = {str(run.record.get("evaluation", {})) for run in runs}
    if level == "pixel" and len(grids) > 1:
        raise InputError(f"These runs' pixel metrics are on different grids ({'; '.join(sorted(grids))}).")
    found = []
    for run, its in zip(runs, scores, strict=True):
        threshold = run.record["thresholds"][level]["value"]
        if level == "image":
            found.append(drawn_image_metrics(its, labels, threshold, draws)[name])
            continue
        images, why = pixel_images(run) if run.has_all_maps else (None, "its maps were not kept")
        if images is None:
            raise InputError(f"{run.folder.name}: {why}, so its pixels cannot be drawn again.")
        place = {row.image_path: at for at, row in enumerate(run.scores("test"))}
        counts = pixel_counts(Chosen(images, [place[row.image_path] for row in rows]), threshold)
        found.append(drawn_in_turn(counts, draws)[name])
    return found


def _tested_on(run: Run) -> str:
    """Return what tells one test set from another: contents and labels; the whole manifest where it is all there is.

    Runs that were trained on different images, one on more of them, can be tested on the same ones.
    """
    file = run.folder / "manifest.json"
    if not file.is_file():
        return run.record["dataset"]["manifest"]
    entries = json.loads(file.read_text(encoding="utf-8"))["entries"]
    tested = [(entry["path"], entry["sha256"], entry["label"], entry["mask_sha256"]) for entry in entries
              if entry["split"] == "test"]  # fmt: skip
    return repr(sorted(tested, key=repr))


def _matched(runs: Sequence[Run]) -> tuple[list[ScoreRow], np.ndarray, list[np.ndarray]]:
    """Return the first run's rows, the labels of the shared test images and each run's scores of them, in one order."""
    first = runs[0]
    manifests = {run.record["dataset"]["manifest"] for run in runs}
    if len(manifests) > 1 and len({_tested_on(run) for run in runs}) > 1:
        names = ", ".join(f"{run.folder.name} on {run.record['dataset']['name']}" for run in runs)
        raise InputError(
            f"These runs have different images or splits ({names}): scores of different images cannot be paired. "
            "Train them on the same folder with the same seed and split options."
        )
    rows = [sorted(run.scores("test"), key=lambda row: row.image_path) for run in runs]
    for run, its in zip(runs, rows, strict=True):
        if not its:
            raise InputError(f"{run.folder} has no test scores (status {run.status}).")
        if [row.image_path for row in its] != [row.image_path for row in rows[0]]:
            raise InputError(f"{run.folder.name} and {first.folder.name} list other test images.")
    return rows[0], columns(rows[0])[1], [columns(its)[0] for its in rows]


def comparison_table(found: Sequence[Compared]) -> None:
    """Print the comparison: metric, its interval, the difference to the best and whether it can be told from chance."""
    metric = found[0].metric
    table = Table()
    for column in ("model", "run"):
        table.add_column(column, no_wrap=True)
    for column in (metric.replace("_", " "), "95 % interval", "from the best by", "p (Holm)", ""):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found:
        low, high = one.interval
        interval = f"{low:.3f} to {high:.3f}" if low is not None and high is not None else "-"
        test = one.test
        difference = _difference(test) if test else ""
        verdict = "best" if test is None else ("tied with the best" if one.tied else "worse")
        p = "" if one.p is None else f"{one.p:.4f}"
        names = (one.run.folder.parent.parent.name, one.run.folder.name)
        table.add_row(*names, f"{one.value:.4f}", interval, difference, p, verdict)
    console = Console()
    console.width = max(console.width, Measurement.get(console, console.options.update(width=1000), table).maximum)
    console.print(table)
    count = sum(row.label >= 0 for row in found[0].run.scores("test"))
    how = "DeLong's paired test" if metric == RANKED_BY else "Paired bootstrap over images"
    console.print(
        f"{count} test images. {how} against the best, p-values corrected for {len(found) - 1} "
        "comparisons (Holm); the best was picked on these images, which favours it.",
        soft_wrap=True,
    )


def _difference(test: PairedTest) -> str:
    around = f" ({test.low:.3f} to {test.high:.3f})" if test.low is not None else ""
    return f"{test.difference:.3f}{around}"
