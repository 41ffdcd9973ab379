"""Conversion of a run to a flat, typed row of the workbook, with a column for each option. Needs no openpyxl."""

import hashlib
import re
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from defectlab.data.mask_content import MaskReading
from defectlab.evaluation.metric_names import BARE_METRICS, LOWER_IS_BETTER, METRICS, ORACLE, is_metric
from defectlab.results.model_names import TITLES
from defectlab.results.pixel_grid import describe_grid
from defectlab.results.run.category_run import CategoryRun, names_of
from defectlab.results.run.identity import experiment_id
from defectlab.results.run.record import RunRecord
from defectlab.results.run.result_records import ThresholdRecord
from defectlab.results.run.run import Run
from defectlab.results.run.setup_records import ProtocolRecord
from defectlab.utils import paths
from defectlab_runtime import names

Row = dict[str, Any]
RankingKey = tuple[str, str, str]  # dataset, split, pixel size

KEY, GRID = "run_id", "pixel_grid"
FINISHED, GONE, IMPORTED, ELSEWHERE = "finished", "record not found", "imported", "recorded elsewhere"
ONE_MODEL = "one model for"  # the categories that the model serves; the row of the run has the means over them
PARTIAL = "partial"  # beginning of the state of a run that has not scored all of its images

_WITH_INTERVAL = (*BARE_METRICS, "image_AUPR", "pixel_AUPR", "pixel_AUPRO")
_FIRST = ("date (UTC)", "dataset", "model", "backbone", "weights", "run")
_VARIED = tuple(f"model.{option}" for option in ("layers", "n_features", "coreset_sampling_ratio", "num_neighbors"))
_TRIVIAL = {f"trivial {metric}": metric for metric in ("image_F1Score", "image_AUPR")}
_SURE = ("image_AUROC 95% low", "image_AUROC 95% high", *_TRIVIAL)
_LAST = (
    "image_threshold",
    "pixel_threshold",
    "threshold_rule",
    "thresholds_from",
    "fit_seconds",
    "validation_seconds",
    "test_seconds",
    "checkpoint_MB",
    "parameters",
    "protocol",
    "train_images",
    "validation_images",
    "test_images",
    "near_duplicates",
    GRID,
    "not_available",
    "chosen",
    "groups",
    ONE_MODEL,
)
_END = ("device", "checkpoint", "record", "state", "weights_sha256", "manifest", "repeat_key", "project", KEY)
_OPTIONS = ("data.", "backbone.", "trainer.", "evaluation.")
_OPTION = re.compile(r"(model|data|backbone|trainer|evaluation)\.[a-z]\w*")
# Columns of their own already, or the same for every run, or no option of the run itself.
_NOT_OPTIONS = (
    *("model.name", "model.seed", "data.name", "backbone.name", "backbone.weights"),
    *("data.k_shots", "data.k_shot_draws"),
)


def row_of(run: Run) -> Row:
    """Return a finished run's workbook row, without columns for which the run has no value."""
    record, groups = run.record, run.record.groups
    experiment, dataset, thresholds = record.experiment, record.dataset, record.thresholds
    sections = {
        "model": experiment.model,
        "data": experiment.data,
        "backbone": experiment.backbone,
        "trainer": experiment.trainer,
        "evaluation": {**experiment.evaluation, "pixel_size": record.evaluation.pixel_size},
    }
    options = {
        f"{section}.{option}": cell_value(value) for section, its in sections.items() for option, value in its.items()
    }
    counts = dataset.protocol.counts
    row = {
        "date (UTC)": _date(record.finished or record.process.started),
        "dataset": dataset.name,
        "model": TITLES.get(experiment.model_name, record.model),
        "backbone": record.backbone.name,
        "weights": paths.relative(record.backbone.source),
        "run": record.name,
        "seed": experiment.seed,
        **{key: value for key, value in options.items() if key not in _NOT_OPTIONS},
        "data.root": dataset.root,
        **{ORACLE.get(metric, metric): value for metric, value in record.metrics.items()},
        **{metric: value for metric, value in (groups.metrics if groups else {}).items() if is_metric(metric)},
        **_intervals_and_baselines(record),
        "image_threshold": thresholds.image.value,
        "pixel_threshold": thresholds.pixel.value,
        "threshold_rule": _both(_rule(thresholds.image), _rule(thresholds.pixel)),
        "thresholds_from": _both(thresholds.image.source, thresholds.pixel.source)
        + " (oracle)" * (thresholds.image.oracle or thresholds.pixel.oracle),
        **{f"{stage}_seconds": seconds for stage, seconds in record.timings.items()},
        "checkpoint_MB": _megabytes(run),
        "parameters": record.parameters,
        "protocol": _protocol(dataset.protocol),
        **{f"{split}_images": sum(counts.get(split, {}).values()) for split in ("train", "validation", "test")},
        "near_duplicates": dataset.near_duplicates,
        GRID: describe_grid(record),
        "not_available": _not_available(record.metric_reasons),
        "chosen": _chosen(record),
        "groups": ", ".join(record.sweep_facts.groups),
        ONE_MODEL: _served(run),
        "device": record.environment.device,
        "checkpoint": _checkpoint(run),
        "record": paths.relative(run.folder),
        "state": f"{PARTIAL}: {record.partial}" if record.partial else FINISHED,
        "weights_sha256": record.backbone.sha256,
        "manifest": dataset.manifest,
        "repeat_key": repeat_key(run),
        "project": project_id(),
        KEY: record.run_id,
    }
    return {key: _clean(value) for key, value in row.items() if value not in (None, "")}


def project_id() -> str:
    """Return an identifier of this project root on this machine that does not reveal its path."""
    return hashlib.sha256(f"{socket.gethostname()}\n{paths.project_root()}".encode()).hexdigest()[:12]


def column_order(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the columns of all rows in order: identifying columns, metrics, the model's options, then the rest."""
    seen = list(dict.fromkeys(key for row in rows for key in row))
    groups: list[list[str]] = [
        [*_FIRST, *BARE_METRICS, *_SURE],
        [column for metric in _WITH_INTERVAL[1:] for column in interval_columns(metric)],
        [*sorted(key for key in seen if is_metric(key) and key not in BARE_METRICS), *ORACLE.values()],
        [*_VARIED, *sorted(key for key in seen if key.startswith("model.") and key not in _VARIED), "seed"],
        list(_LAST),
        sorted(key for key in seen if key.startswith(_OPTIONS)),
        list(_END),
    ]
    known = [key for group in groups for key in group]
    always = {*_FIRST, "seed", *BARE_METRICS, *_END}
    return [key for key in known if key in seen or key in always] + [key for key in seen if key not in known]


def is_ours(header: Any) -> bool:
    """Return whether DefectLab writes this column, as opposed to one that a user added."""
    text = str(header)
    fixed = (*_FIRST, *_SURE, "seed", *_LAST, *_END, *ORACLE.values())
    return text in fixed or bool(_OPTION.fullmatch(text)) or is_metric(text) or is_interval(text)


def current_name(header: str) -> str:
    """Return the current name of a column, which may have an older name in earlier workbooks.

    >>> current_name("image_F1Max"), current_name("verdict")
    ('oracle image_F1Max', 'verdict')
    """
    return ORACLE.get(header, header)


def interval_columns(metric: str) -> tuple[str, str]:
    """Return the names of the two columns of a metric's 95 % interval.

    >>> interval_columns("image_AUROC")
    ('image_AUROC 95% low', 'image_AUROC 95% high')
    """
    return f"{metric} 95% low", f"{metric} 95% high"


def is_interval(header: str) -> bool:
    """Return whether a column holds an end of a metric's interval."""
    return any(header in interval_columns(metric) for metric in _WITH_INTERVAL)


def is_partial(row: Mapping[str, Any]) -> bool:
    """Return whether a row is of a run that has not scored all of its images, and so is not ranked."""
    return str(row.get("state", FINISHED)).startswith(PARTIAL)


def is_imported(row: Mapping[str, Any]) -> bool:
    """Return whether a row was imported from a hand-kept workbook and so has no run record."""
    return str(row.get(KEY, "")).startswith(f"{IMPORTED}-")


def number(row: Mapping[str, Any], metric: str) -> float | None:
    """Return a row's value of a column as a number; None if it is missing or not a number."""
    value = row.get(metric)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def ranking_key(row: Mapping[str, Any]) -> RankingKey:
    """Return the key shared by comparable rows: dataset, split, and grid of the pixel metrics."""
    split = str(row.get("manifest", row.get("state", "")))
    return str(row.get("dataset", "")), split, str(row.get("evaluation.pixel_size", "input"))


def ranked_within(row: Mapping[str, Any], metric: str) -> tuple[RankingKey, str, str]:
    """Return the key shared by rows whose values of a metric can be ranked; pixel metrics add the grid's size."""
    return ranking_key(row), metric, str(row.get(GRID, "")) if metric.startswith("pixel") else ""


def best_rows(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[RankingKey, str, str], Any]:
    """Return the best value of each metric, keyed by `ranked_within`."""
    best: dict[tuple[RankingKey, str, str], Any] = {}
    for row in rows:
        for metric in () if is_partial(row) else METRICS:
            value = number(row, metric)
            if value is not None:
                key, better = ranked_within(row, metric), min if metric in LOWER_IS_BETTER else max
                best[key] = better(best.get(key, value), value)
    return best


def cell_value(value: Any) -> Any:
    """Return an option's value as stored in a cell: numbers stay numbers, lists become text.

    >>> cell_value(["layer2", "layer3"]), cell_value([256, 256]), cell_value(0.1)
    ('layer2, layer3', '256 x 256', 0.1)
    """
    if isinstance(value, list | tuple):
        sizes = bool(value) and all(isinstance(item, int) for item in value)
        return (" x " if sizes else ", ").join(str(item) for item in value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _intervals_and_baselines(record: RunRecord) -> Row:
    """Return the recorded intervals and the metrics of a trivial detector that calls every image anomalous."""
    found = {title: record.trivial.get(metric) for title, metric in _TRIVIAL.items()}
    for metric in _WITH_INTERVAL:
        if interval := record.intervals.get(metric):
            found |= dict(zip(interval_columns(metric), (interval.low, interval.high), strict=True))
    return found


def _both(image: str, pixel: str) -> str:
    return image if image == pixel else f"{image} / {pixel}"


def _rule(threshold: ThresholdRecord) -> str:
    return f"{threshold.rule} (promise withdrawn)" if threshold.withdrawn else threshold.rule


def _not_available(reasons: Mapping[str, str | None]) -> str:
    """Return each reason for missing values once, with the metrics that it applies to."""
    metrics: dict[str, list[str]] = {}
    for metric, reason in reasons.items():
        metrics.setdefault(str(reason), []).append(metric)
    return "; ".join(f"{reason}: {', '.join(names)}" for reason, names in metrics.items())


def _protocol(protocol: ProtocolRecord) -> str:
    validation = "the test images themselves" if protocol.validation_is_test else protocol.validation_from
    parts = [f"validation: {validation}; good test images: {protocol.test_normal_from}"]
    if protocol.calibration_share:
        parts.append(
            f"{protocol.calibration_share:.0%} of the good validation images choose nothing (calibration_share)"
        )
    if protocol.missing_masks:
        counted = {"whole": "count as defect as a whole", "leave_out": "are left out of the pixel metrics"}
        parts.append(f"defects without a mask {counted[protocol.missing_masks]}")
    if protocol.mask_reading and not protocol.mask_reading["not_zero"]:
        reading = MaskReading.from_dict(protocol.mask_reading)
        parts.append(f"of masks, what is {reading.describe()} counts as defect")
    if protocol.task == "classification":
        parts.append("task: classification, masks not used")
    if unknown := protocol.counts.get("test", {}).get("unknown"):
        parts.append(f"{unknown} images of unknown label predicted, not scored")
    return "; ".join(parts)


def _served(run: Run) -> str:
    """Return the categories that a model serves, in words, and whether the row has means; empty for one dataset."""
    whole = run.whole if isinstance(run, CategoryRun) else run
    names_ = names_of(whole.record)
    if not names_:
        return ""
    served = f"{len(names_)} categories: {', '.join(names_)}"
    return served if whole is not run else f"{served} (metrics: the mean over them)"


def _chosen(record: RunRecord) -> str | None:
    """Return a description of how a sweep selected this run as its best."""
    refit = record.sweep_facts.refit
    if refit is None or refit.metric is None:
        return None
    images = "test images (oracle)" if refit.oracle else "validation images"
    return f"best of {refit.among} by {refit.metric} of the {images}"


def _checkpoint(run: Run) -> str | None:
    recorded = run.record.checkpoint
    return paths.relative(run.checkpoint) if run.checkpoint.is_file() else recorded


def _megabytes(run: Run) -> float | None:
    """Return the size of the checkpoint that the scores come from, in MB of 10^6 bytes."""
    file = run.checkpoint_path
    return round(file.stat().st_size / 1e6, 3) if file.is_file() else None


def _clean(value: Any) -> Any:
    return names.cell(value) if isinstance(value, str) else value


def _date(text: str) -> datetime:
    """Return a date in UTC without a time zone, since a cell cannot store one."""
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)


RANDOM = "random"  # what the source of weights begins with that were drawn by the seed


_SEEDS = ("seed", "model.seed")


def repeat_key(run: Run) -> str:
    """Return twelve hex digits that are equal for runs that differ only in the seed of model and experiment.

    The split's own seed (`data.seed`) and its images stay part of it: other test images are no repetition. Random
    weights are drawn by the seed, so they are what is repeated, whatever their hash.
    """
    return experiment_id(_settings(run))


def _seed(run: Run) -> int:
    return run.record.seed


def _settings(run: Run) -> dict[str, Any]:
    """Return the settings that identify the experiment, without its seed."""
    settings = {key: value for key, value in run.record.facts.items() if key not in _SEEDS}
    if run.record.backbone.source.startswith(RANDOM):
        settings["backbone.sha256"] = RANDOM
    return settings
