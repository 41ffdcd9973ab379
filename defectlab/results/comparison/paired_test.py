"""Paired tests between runs on the same test images, which tell significant differences from ties."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectlab.data.mask_content import MaskReading
from defectlab.evaluation.bootstrap import bootstrap_problem, resample_counts, resampled_image_metrics
from defectlab.evaluation.delong import group_indices
from defectlab.evaluation.intervals import auroc_interval
from defectlab.evaluation.metric_names import LOWER_IS_BETTER
from defectlab.evaluation.metrics import auroc, sort_scores
from defectlab.evaluation.multiple_comparisons import compare_auroc
from defectlab.evaluation.paired_tests import PairedTest, delong_test, paired_bootstrap
from defectlab.evaluation.pixel.bootstrap import resampled_pixel_metrics
from defectlab.evaluation.pixel.histograms import pixel_histograms
from defectlab.evaluation.pixel.maps_and_masks import ImageSubset
from defectlab.evaluation.pixel.metrics import NAMES
from defectlab.evaluation.swaps import Pool, compare_swapped, has_unvaried_class, image_pool, pixel_pool, swap_test
from defectlab.results.evaluate import columns
from defectlab.results.groups import paths_below_root, row_groups
from defectlab.results.pixel_grid import describe_grid, pixel_images
from defectlab.results.run.category_run import one_dataset
from defectlab.results.run.run import Run
from defectlab.utils.json_files import read_json
from defectlab.utils.json_object import JsonTypeError
from defectlab_runtime.errors import InputError, OptionError, unknown_name

SIGNIFICANT = 0.05
RANKED_BY = "image_AUROC"
METRICS = (*(f"image_{name}" for name in NAMES if name != "AUPRO"), *(f"pixel_{name}" for name in NAMES))
Ends = tuple[float | None, float | None]


@dataclass(frozen=True)
class _Matched:
    """The labelled test images that runs share, in one order: labels, groups (n,), and each run's scores and rows."""

    labels: NDArray[np.int64]
    groups: list[str] | None
    scores: list[NDArray[np.float64]]
    places: list[list[int]]


@dataclass(frozen=True)
class Compared:
    """One run compared with the best run; `test` and `p` (corrected for all comparisons) are None for the best run.

    `value` is the value of `metric`, and `interval` holds the ends of its 95 % interval.
    """

    run: Run
    metric: str
    value: float
    interval: Ends
    test: PairedTest | None
    p: float | None

    @property
    def tied(self) -> bool:
        """Whether the run does not differ significantly from the best run; True for the best run itself."""
        return self.p is None or self.p >= SIGNIFICANT


def compare_runs(runs: Sequence[Run], metric: str = RANKED_BY) -> list[Compared]:
    """Compare each run with the best run by a paired test and return the runs best first.

    Of more than two, p-values are corrected for all comparisons, and for the best having been picked on these images;
    see `defectlab.evaluation.multiple_comparisons`.

    The image AUROC is compared by DeLong's test, every other metric by the paired bootstrap, or by a swap test where a
    class of images shows no variation of the difference. Where parts have several
    photographs (`data.group`), both tests treat parts, not images, as independent.

    Raises:
        OptionError: No such metric.
        InputError: Fewer than two runs, other test images or pixel grids, too few images of a class, or a run for which
            the metric has no value.
    """
    if metric not in METRICS:
        raise OptionError(unknown_name("metric", metric, METRICS))
    if len(runs) < 2:
        raise InputError("Comparing needs at least two runs: defectlab compare RUN RUN ...")
    for run in runs:
        one_dataset(run, "a paired test")
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise InputError("A run is named twice: it cannot differ from itself, and would count as a comparison.")
    matched = _matched(runs)
    values, intervals = _values(runs, metric, matched)
    better = min if metric in LOWER_IS_BETTER else max
    best = better(range(len(runs)), key=lambda index: values[index])  # of equals the first given
    others = [index for index in range(len(runs)) if index != best]
    scores, labels, groups = matched.scores, matched.labels, matched.groups
    units = np.arange(labels.size) if groups is None else group_indices(groups, labels.size)
    corrected = None
    if metric == RANKED_BY:
        tests = {index: delong_test(scores[best], scores[index], labels, groups=groups) for index in others}
        if len(others) > 1:
            corrected = compare_auroc([its[None] for its in scores], labels, units)
    else:
        resampled, pools = _resampled(runs, metric, matched)
        tests = {}
        for index in others:
            difference = values[best] - values[index]
            pool = pools([best, index])
            if has_unvaried_class(pool, labels, units):
                tests[index] = PairedTest(difference, None, None, swap_test(pool, units))
            else:
                tests[index] = paired_bootstrap(difference, resampled[best], resampled[index])
        if len(others) > 1:
            everything = pools(list(range(len(runs))))
            corrected = compare_swapped(
                everything, np.array(values), units, higher_is_better=metric not in LOWER_IS_BETTER
            )
    p_values = {index: tests[index].p if corrected is None else float(corrected[index]) for index in others}
    found = [
        Compared(run, metric, values[index], intervals[index], tests.get(index), p_values.get(index))
        for index, run in enumerate(runs)
    ]
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return sorted(found, key=lambda one: (one.test is not None, sign * one.value))


def _values(runs: Sequence[Run], metric: str, matched: _Matched) -> tuple[list[float], list[Ends]]:
    """Return each run's metric and interval ends, computed from the scores for the image AUROC, else as recorded."""
    if metric == RANKED_BY:
        found = [auroc(sort_scores(its, matched.labels)) for its in matched.scores]
        missing = next((one.reason for one in found if one.value is None), None)
        if missing:
            raise InputError(f"The image AUROC has no value on these test images: {missing}.")
        sure = [auroc_interval(its, matched.labels, groups=matched.groups) for its in matched.scores]
        return [one.value or 0.0 for one in found], [(one.low, one.high) for one in sure]
    values, ends = [], []
    for run in runs:
        value = run.record.metrics.get(metric)
        if value is None:
            reason = run.record.metric_reasons.get(metric, "it was not computed: `defectlab evaluate RUN`")
            raise InputError(f"{metric} of {run.folder.name} has no value: {reason}.")
        interval = run.record.intervals.get(metric)
        values.append(float(value))
        ends.append((interval.low, interval.high) if interval else (None, None))
    return values, ends


def _resampled(
    runs: Sequence[Run], metric: str, matched: _Matched
) -> tuple[list[NDArray[np.float64]], Callable[[list[int]], Pool]]:
    """Return each run's metric on common bootstrap resamples (b,), and a function of the pool of runs, by place."""
    labels = matched.labels
    lack = bootstrap_problem(labels, matched.groups)
    if lack:
        raise InputError(f"A paired test has nothing to go by: {lack}.")
    draws = resample_counts(labels, matched.groups)
    level, name = metric.split("_", 1)
    thresholds = [run.record.thresholds.by_level[level].value for run in runs]
    if level == "image":
        pairs = zip(matched.scores, thresholds, strict=True)
        found = [resampled_image_metrics(its, labels, threshold, draws)[name] for its, threshold in pairs]
        return found, lambda places: image_pool(
            name, [matched.scores[place] for place in places], labels, [thresholds[place] for place in places]
        )
    readings = dict(map(_mask_reading, runs))
    if len(readings) > 1:
        raise InputError(
            f"These runs' masks mark other pixels ({'; '.join(readings.values())}), so their pixel metrics have other "
            "ground truth: train them with the same mask_threshold and mask_inverted."
        )
    grids = {describe_grid(run.record) for run in runs}
    if len(grids) > 1:
        raise InputError(f"These runs' pixel metrics are on different grids ({'; '.join(sorted(grids))}).")
    counts = []
    for run, threshold, places in zip(runs, thresholds, matched.places, strict=True):
        images, why = pixel_images(run) if run.has_all_maps else (None, "its maps were not kept")
        if images is None:
            raise InputError(f"{run.folder.name}: {why}, so its pixels cannot be drawn again.")
        counts.append(pixel_histograms(ImageSubset(images, places), threshold))
    found = [resampled_pixel_metrics(one, draws)[name] for one in counts]
    return found, lambda places: pixel_pool(name, [counts[place] for place in places])


def _mask_reading(run: Run) -> tuple[str, str]:
    """Return a key that is equal where the same pixels of masks are marked, and which these are, in words."""
    reading = run.record.dataset.protocol.mask_reading
    reading = reading if reading and not reading["not_zero"] else None
    words = MaskReading.from_dict(reading).describe()
    other = " of opacity or a palette's numbers" if reading and words == "not 0" else ""
    return repr(reading), f"{words}{other} in {run.folder.name}"


def _tested_on(run: Run) -> str:
    """Return a key that identifies the run's test set: the paths, contents, labels and masks of its test images.

    Without a manifest.json the key is the hash of the whole manifest. Runs with different training images can share a
    test set.
    """
    file = run.folder / "manifest.json"
    if not file.is_file():
        return run.record.dataset.manifest
    try:
        below = 0 if run.category is None else len(f"{run.category}/")
        tested = [
            (
                *(entry["path"][below:], entry["sha256"], entry["label"]),
                *(entry["mask_sha256"], entry.get("mask_orientation", 1)),
            )
            for entry in read_json(file)["entries"]
            if entry["split"] == "test" and entry.get("category") == run.category
        ]
    except (OSError, JsonTypeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({error}). Restore it, or train the run again.") from error
    return repr(sorted(tested, key=repr))


def _matched(runs: Sequence[Run]) -> _Matched:
    """Match the runs' labelled test images by their paths relative to each dataset's root."""
    first = runs[0]
    manifests = {run.record.dataset.manifest for run in runs}
    if len(manifests) > 1 and len({_tested_on(run) for run in runs}) > 1:
        names = ", ".join(f"{run.folder.name} on {run.record.dataset.name}" for run in runs)
        raise InputError(
            f"These runs have different images or splits ({names}): scores of different images cannot be paired. "
            "Train them on the same folder with the same seed and split options."
        )
    scores, places, images, groups = [], [], [], []
    for run in runs:
        rows = run.scores("test")
        if not rows:
            raise InputError(f"{run.folder} has no test scores (status {run.status}).")
        paths = paths_below_root(run.record, [row.image_path for row in rows])
        known = (place for place, row in enumerate(rows) if row.label >= 0)  # the others decide nothing
        order = sorted(known, key=lambda place: paths[place])
        ordered = [rows[place] for place in order]
        images.append([(paths[place], rows[place].label) for place in order])
        groups.append(row_groups(run.record, ordered))
        scores.append(columns(ordered)[0])
        places.append(order)
        if images[-1] != images[0]:
            raise InputError(
                f"{run.folder.name} and {first.folder.name} list other test images, or label them otherwise."
            )
        if groups[-1] != groups[0]:
            raise InputError(
                f"{run.folder.name} and {first.folder.name} say otherwise which images show one part (data.group): "
                "give both the same."
            )
    labels = np.array([label for _, label in images[0]], dtype=np.int64)
    return _Matched(labels, groups[0], scores, places)
