"""The parity gate: an exported file scores its run's own images, and must say what the run's record says."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from defectlab.evaluation.paired_tests import delong_test
from defectlab.evaluation.suite import evaluate_images
from defectlab.export.detectors import score_files
from defectlab.export.records import ParityRecord
from defectlab.results.evaluate import columns
from defectlab.results.pixel_grid import pixel_images
from defectlab.results.run.arrays import ArrayWriter
from defectlab.results.run.category_run import category_runs
from defectlab.results.run.run import Run
from defectlab.results.run.scores import ScoreRow
from defectlab.utils import paths
from defectlab.utils.progress import progress_bar
from defectlab_runtime.decision import decision
from defectlab_runtime.detector import Detector
from defectlab_runtime.errors import InputError

SPLITS = ("validation", "test")
BATCH_SIZE = 4  # images
SCORE_TOLERANCE = 1e-4  # of a score's size, or of the spread of the run's scores where that is larger
MAP_TOLERANCE = 1e-3  # of the range of the validation maps
OTHER_DEVICE = 10  # times the tolerance for scores that a GPU computed
DIGITS = 4  # of the AUROC
METRICS = ("image_AUROC", "pixel_AUROC")

Levels = Mapping[str, tuple[float | None, float | None]]  # image and pixel threshold by category


class RescoredRun(Run):
    """A run with other scores and maps for the same images, so that metrics are computed as the run's own were."""

    def __init__(self, run: Run, rows: Sequence[ScoreRow], folder: Path) -> None:
        super().__init__(run.folder, run.record)
        self._rows = list(rows)
        self._maps = folder

    def scores(self, split: str | None = None) -> list[ScoreRow]:
        """Return the new rows: all, or those of one split."""
        return [row for row in self._rows if split in (None, row.split)]

    def maps_path(self, split: str) -> Path:
        """Return the path of the new maps of a split."""
        return self._maps / f"{split}.npy"


@contextmanager
def rescored(run: Run, detector: Detector) -> Iterator[tuple[RescoredRun, dict[str, float | None]]]:
    """Score a run's images anew; the block gets a `RescoredRun` and, by split, the largest difference of its maps."""
    with tempfile.TemporaryDirectory(prefix="defectlab-parity-") as name:
        rows: list[ScoreRow] = []
        differences: dict[str, float | None] = {}
        for split in SPLITS:
            found, differences[split] = _rescore(run, detector, split, Path(name) / f"{split}.npy")
            rows += found
        yield RescoredRun(run, rows, Path(name)), differences


def _rescore(run: Run, detector: Detector, split: str, maps_path: Path) -> tuple[list[ScoreRow], float | None]:
    rows, maps = run.scores(split), run.maps(split)
    recorded = _recorded_maps(run, split, len(rows), maps)
    found: list[ScoreRow] = []
    writer: ArrayWriter | None = None
    largest: float | None = None
    with progress_bar(f"Parity, {split} images", len(rows)) as progress:
        for begin in range(0, len(rows), BATCH_SIZE):
            part = rows[begin : begin + BATCH_SIZE]
            scores, new_maps = score_files(detector, [_image(row) for row in part])
            found += [replace(row, score=float(score)) for row, score in zip(part, scores, strict=True)]
            if new_maps is not None:
                writer = writer or ArrayWriter(maps_path, len(rows), new_maps.shape[1:], "float32")
                writer.append(new_maps)
                for place, one in enumerate(new_maps, begin):
                    if place in recorded and maps is not None:
                        difference = float(np.abs(one - maps[recorded[place]]).max())
                        largest = difference if largest is None else max(difference, largest)
            progress(begin + len(part), len(rows))
    if writer is not None:
        writer.close()
    return found, largest


def compare(
    run: Run,
    again: RescoredRun,
    differences: Mapping[str, float | None],
    map_range: tuple[float, float],
    levels: Levels | None = None,
) -> ParityRecord:
    """Compare a run's record with new scores and maps of the same images; labels at other `levels`, if given."""
    rows, new = [row for split in SPLITS for row in run.scores(split)], again.scores()
    before, after = columns(rows)[0], columns(new)[0]
    size = np.maximum(np.abs(before), np.ptp(before) if len(before) else 0.0)
    shares = np.abs(after - before) / np.maximum(size, np.finfo(np.float32).tiny)
    worst = int(np.argmax(np.nan_to_num(shares, nan=np.inf)))
    found = [one for one in differences.values() if one is not None]
    map_difference = max(found) / (map_range[1] - map_range[0]) if found else None
    levels = levels_of(run) if levels is None else levels
    labels = [decision(row.score, levels[row.category or ""][0]) for row in new]
    changed = [row.image_path for row, label in zip(rows, labels, strict=True) if row.pred_label != label]
    record = ParityRecord(
        images=len(rows),
        score_difference=float(shares[worst]),
        map_difference=map_difference,
        maps_compared="all" if run.record.maps is None else run.record.maps.policy,
        changed_labels=len(changed),
        before={name: run.record.metrics.get(name) for name in METRICS},
        after=_metrics(again),
        p_value=_p_value(run, again),
    )
    return record.replaced(problems=_problems(run, record, rows[worst].image_path, changed))


def _problems(run: Run, parity: ParityRecord, worst: str, changed: Sequence[str]) -> list[str]:
    """Return what differs by more than a file of full precision may."""
    factor = 1 if run.record.environment.device.startswith("cpu") else OTHER_DEVICE
    scores, maps = SCORE_TOLERANCE * factor, MAP_TOLERANCE * factor
    problems = []
    if not parity.score_difference <= scores:
        problems.append(
            f"scores differ by up to {parity.score_difference:.1e} of their size ({worst}); {scores:g} is allowed"
        )
    if parity.map_difference is not None and not parity.map_difference <= maps:
        problems.append(f"maps differ by up to {parity.map_difference:.1e} of their range; {maps:g} is allowed")
    if changed:
        problems.append(f"{len(changed)} of {parity.images} labels changed, such as that of {changed[0]}")
    for name, value in parity.after.items():
        recorded = parity.before[name]
        kept = run.has_all_maps or not name.startswith("pixel")  # else there may be no masks left to compute it by
        if recorded is not None and (kept if value is None else abs(recorded - value) >= 0.5 * 10**-DIGITS):
            problems.append(f"{name} is {value}, and the run's {recorded}")
    return problems


def levels_of(run: Run) -> Levels:
    """Return image and pixel threshold of a run under "", or of each of its categories by name."""
    thresholds = run.record.thresholds
    return {
        name: (one.image.value, one.pixel.value) for name, one in (thresholds.categories or {"": thresholds}).items()
    }


def _metrics(run: RescoredRun) -> dict[str, float | None]:
    """Return the AUROC of images and of pixels, for a run that serves several categories the means of theirs."""
    found: dict[str, list[float | None]] = {name: [] for name in METRICS}
    parts: list[Run] = [*category_runs(run)] or [run]
    for part in parts:
        scores, labels = columns(part.scores("test"))
        images, lack = pixel_images(part)
        values = evaluate_images(scores, labels, images, lack, image_threshold=None, pixel_threshold=None)
        for name in METRICS:
            found[name].append(values[name].value)
    return {name: _mean(values) for name, values in found.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _p_value(run: Run, again: Run) -> float | None:
    if run.record.categories:  # scores of different categories have different scales
        return None
    first, labels = columns(run.scores("test"))
    second, _ = columns(again.scores("test"))
    try:
        return delong_test(first, second, labels).p
    except InputError:  # too few images of a class
        return None


def _recorded_maps(run: Run, split: str, count: int, maps: np.ndarray | None) -> dict[int, int]:
    """Return the row in the recorded maps of each row of scores.csv that has one."""
    if maps is None:
        return {}
    kept = run.record.maps.rows if run.record.maps is not None and split == "test" else None
    if kept is not None:
        return {row: place for place, row in enumerate(kept)}
    return {row: row for row in range(count)} if len(maps) == count else {}


def _image(row: ScoreRow) -> Path:
    path = paths.resolve(row.image_path)
    if not path.is_file():
        raise InputError(
            f"{path}, an image of the run, is gone: an export is compared with the run's own scores. Put the images "
            "back, or set DEFECTLAB_HOME to the project that has them."
        )
    return path
