"""Tables of runs for terminal or notebook: one run's metrics, its rank among others, seeds, paired tests."""

from collections.abc import Mapping, Sequence
from typing import Any

from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.evaluation.paired_tests import PairedTest
from defectlab.results.comparison.paired_test import RANKED_BY, Compared
from defectlab.results.comparison.repeats import Repeats
from defectlab.results.run.record import RunRecord
from defectlab.results.run.result_records import GroupsRecord
from defectlab.results.run.run import Run
from defectlab.results.workbook_row import KEY, is_partial, number, ranked_within, ranking_key
from defectlab.utils import paths
from defectlab.utils.progress import in_notebook
from defectlab.utils.table import Column, Table, interval_text, numbers, print_line, print_table
from defectlab.visualization.k_shots import print_k_shots

SHOWN_RUNS = 5
GROUP_METRICS = ("part_AUROC", "part_F1Score")  # printed in addition to BARE_METRICS if data.group is set
METRIC_COLUMNS = ("image AUROC", "image F1", "pixel AUROC", "pixel F1")  # of BARE_METRICS


def summary(run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the results of a finished run: metrics, place among the workbook's rows, and pictures."""
    metrics_table(run)
    print_k_shots([run])
    peers_table(run, rows)
    show_picture(run)


def metrics_table(run: Run) -> None:
    """Print the metrics of one run and the path of its folder."""
    record, groups = run.record, run.record.groups
    rows = [(name, _value_or_reason(name, record)) for name in BARE_METRICS]  # run.json and the workbook have them all
    rows += [(name, _value_or_reason(name, groups)) for name in GROUP_METRICS if groups]
    print_line(f"{run.model} on {run.dataset}: {run.folder.name}")
    print_table(Table([Column("metric", wrap=True), Column("value", ".4f", right=True, wrap=True)], rows))
    if record.categories:
        categories_table(record)
    for line in _caveats(record):
        print_line(line)
    print_line(f"Record: {paths.relative(run.folder)}")


def categories_table(record: RunRecord) -> None:
    """Print the metrics of each category that a run serves, at its own thresholds; the means are the run's metrics."""
    rows = [
        [one.name, *(one.metrics.get(name) for name in BARE_METRICS), _threshold_of(record, one.name)]
        for one in record.categories
    ]
    rows.append(["mean", *(record.metrics.get(name) for name in BARE_METRICS), None])
    print_line(f"One model for {len(record.categories)} categories, each at its own thresholds:")
    columns = ["category", *numbers(*METRIC_COLUMNS, form=".4f"), *numbers("image threshold", form=".6g")]
    print_table(Table(columns, rows), bold=[len(rows) - 1], width=120)


def _threshold_of(record: RunRecord, category: str) -> float | None:
    thresholds = record.thresholds.categories.get(category)
    return None if thresholds is None else thresholds.image.value


def _value_or_reason(metric: str, record: RunRecord | GroupsRecord) -> float | str | None:
    value, reason = record.metrics.get(metric), record.metric_reasons.get(metric)
    return f"not available: {reason}" if value is None and reason else value


def _caveats(record: RunRecord) -> list[str]:
    """Return lines with the interval of the image AUROC, the trivial image F1, and facts on parts if there are any."""
    lines = []
    if interval := _interval(record, "image_AUROC"):
        lines.append(f"image_AUROC, 95 % interval: {interval}")
    trivial = record.trivial.get("image_F1Score")
    if trivial is not None and record.metrics.get("image_F1Score") is not None:
        lines.append(f"image_F1Score of calling every image anomalous: {trivial:.4f}")
    if groups := record.groups:
        interval = _interval(groups, "part_AUROC")
        around = f"; 95 % interval {interval}" if interval else ""
        lines.append(
            f"part_AUROC: {groups.count} parts ({groups.counts['anomalous']} anomalous) of {groups.images} images, "
            f"each scored by the highest of its images{around}"
        )
    return lines


def _interval(record: RunRecord | GroupsRecord, metric: str) -> str | None:
    interval = record.intervals.get(metric)
    return interval_text(interval.low, interval.high) if interval else None


def peers_table(run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the run's row of the workbook among the best of the same images and split, and its rank by each metric."""
    own = next((row for row in rows if row[KEY] == run.record.run_id), None)
    if own is None:
        return
    peers = [row for row in rows if ranking_key(row) == ranking_key(own) and not is_partial(row)]
    added = f"Its row is in {paths.workbook().name}"
    if is_partial(own):
        print_line(f"{added}, not ranked: {own['state']}")
        return
    if len(peers) == 1:
        print_line(f"{added}: the first on these images")
        return
    print_line(f"{added}. On {own.get('dataset')}, same split: {_places(own, peers)}")
    ranked = sorted(peers, key=lambda row: -(number(row, BARE_METRICS[0]) or -1.0))
    shown = ranked[:SHOWN_RUNS] + [row for row in ranked[SHOWN_RUNS:] if row is own]
    cells = [
        ["this run" if row is own else "", row.get("model", ""), row.get("run", ""), *_bare_metrics(row)]
        for row in shown
    ]
    columns = ["", "model", "run", *numbers(*METRIC_COLUMNS, form=".4f")]
    print_table(Table(columns, cells), bold=[place for place, row in enumerate(shown) if row is own], width=120)


def _bare_metrics(row: Mapping[str, Any]) -> list[float | None]:
    return [number(row, metric) for metric in BARE_METRICS]


def _places(own: Mapping[str, Any], peers: Sequence[Mapping[str, Any]]) -> str:
    """Return a row's rank by each metric as text; ties share the better rank, pixel metrics rank within one grid."""
    parts = []
    for metric in BARE_METRICS:
        among = [row for row in peers if ranked_within(row, metric) == ranked_within(own, metric)]
        values = [value for row in among if (value := number(row, metric)) is not None]
        mine = number(own, metric)
        if mine is not None:
            parts.append(f"place {1 + sum(value > mine for value in values)} of {len(values)} by {metric}")
    return ", ".join(parts) if parts else "no metrics"


def show_picture(run: Run) -> None:
    """Show the run's pictures: the image itself in a notebook, otherwise its path."""
    picture = run.folder / "pictures.png"
    if not picture.is_file():
        return
    if in_notebook():
        from IPython.display import Image, display

        display(Image(filename=str(picture)))
    else:
        print_line(f"Pictures: {paths.relative(picture)}")


def runs_table(runs: Sequence[Run], title: str) -> None:
    """Print a table of runs, with one row for each."""
    rows = []
    for run in runs:
        metrics = [run.record.metrics.get(name) for name in BARE_METRICS]
        seconds = [run.record.timings.get(stage, "") for stage in ("fit", "test")]
        rows.append([run.record.dataset.name, run.model, run.folder.name, *metrics, *seconds])
    columns = [
        "dataset",
        "model",
        "run",
        *numbers(*METRIC_COLUMNS, form=".4f"),
        *numbers("fit s", "test s", form=".1f"),
    ]
    print_line(title)
    print_table(Table(columns, rows), width=120)


def repeats_table(repeats: Repeats) -> None:
    """Print mean, standard deviation and interval of each metric over runs that differ only in the seed."""
    rows: list[list[Any]] = []
    for name in BARE_METRICS:
        one = repeats.metrics.get(name)
        known = [one.mean, one.deviation, interval_text(one.low, one.high, 4), one.count] if one else [None] * 3 + [0]
        rows.append([name, *known])
    first = repeats.runs[0]
    seeds = ", ".join(map(str, repeats.seeds))
    print_line(f"{first.model} on {first.dataset}, seeds {seeds}:")
    print_table(Table(["metric", *numbers("mean", "std", "95 % interval of the mean", "seeds")], rows), width=100)
    print_line("The spread is of training alone: all were tested on the same images.")


def comparison_table(found: Sequence[Compared]) -> None:
    """Print a comparison of runs: metric, interval, difference to the best run, p-value and verdict.

    Runs of one name, such as a model for several categories and one for this category alone, are told by the folders of
    their datasets.
    """
    rows = []
    folders = [one.run.folder.name for one in found]
    several_named = {name for name in folders if folders.count(name) > 1}
    for one in found:
        verdict = "best" if one.test is None else ("tied with the best" if one.tied else "worse")
        p = "" if one.p is None else (one.p if one.p >= 0.0001 else "< 0.0001")
        difference = _difference(one.test) if one.test else ""
        folder = one.run.folder
        name = f"{folder.parent.name}/{folder.name}" if folder.name in several_named else folder.name
        rows.append([one.run.model, name, one.value, interval_text(*one.interval), difference, p, verdict])
    metric = found[0].metric
    titles = (metric.replace("_", " "), "95 % interval", "from the best by", "p (corrected)", "")
    print_table(Table(["model", "run", *numbers(*titles, form=".4f")], rows), fit=True)
    labels = [row.label for row in found[0].run.scores("test")]
    count = f"{found[0].run.record.dataset.name}: {labels.count(0)} good and {labels.count(1)} anomalous"
    how = "DeLong's paired test" if metric == RANKED_BY else "Paired bootstrap over images"
    several = (
        f"; p-values for {len(found)} runs, all compared with each other, so that the best having been picked on these "
        "images counts"
    )
    print_line(f"{count} test images. {how} against the best{several * (len(found) > 2)}.")


def _difference(test: PairedTest) -> str:
    interval = interval_text(test.low, test.high)
    return f"{test.difference:.3f} ({interval})" if interval else f"{test.difference:.3f}"
