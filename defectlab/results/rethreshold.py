"""Choosing another threshold for a finished run from the run's record alone, without the model."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from defectlab.evaluation.pixel.thresholds import choose_by_pixels
from defectlab.evaluation.threshold import RuleOptions, Threshold, check_options
from defectlab.evaluation.threshold_rules import choose
from defectlab.results.calibration import PROMISES, checked_promise, rows_for_rule
from defectlab.results.evaluate import columns, evaluate_run, relabel_scores
from defectlab.results.groups import choose_group_threshold, group_columns, row_groups
from defectlab.results.pixel_grid import check_rows, pixel_labels
from defectlab.results.record_parts import threshold_record, thresholds_by_category
from defectlab.results.run.category_run import category_run, category_runs
from defectlab.results.run.result_records import EarlierThresholds, ThresholdRecord, Thresholds
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError, OptionError
from defectlab_runtime.scores import ScoreRow

logger = logging.getLogger(__name__)

LEVELS = ("image", "pixel")

Alongside = Callable[[Thresholds], AbstractContextManager[None]]


def set_threshold(
    run: Run,
    rule: str,
    options: RuleOptions,
    levels: Sequence[str],
    alongside: Alongside = lambda _: nullcontext(),
    category: str | None = None,
) -> dict[str, Threshold]:
    """Choose new thresholds on the run's validation images, relabel every image and recompute the metrics.

    At pixel level good_max, quantile and conformal take each good image's highest pixel, so the false-alarm rate is of
    good images with any pixel flagged; mean_plus_k_std takes the pixels of good images; f1, mean_of_means and recall
    take pixels by their masks. Where groups have several images (`data.group`) conformal counts groups, each by its
    highest image: images of one group are not independent, and its guarantee would not hold. Where images were held
    back (`data.calibration_share`) conformal calibrates on these and other rules use the others; without them its
    promise is withdrawn if the same images chose an epoch or a configuration. The record changes at once or, on an
    error, not at all; it keeps the thresholds before (`restore_thresholds`). Only the record and scores.csv change:
    `defectlab.inference.threshold.apply_threshold` brings checkpoint, pictures, reports and workbook along.

    Of a run that serves several categories each gets a threshold of its own, chosen on its images, or `category` alone.

    `alongside` is entered with the new thresholds before anything is written, and left once it has been.

    Raises:
        InputError: The run has no validation scores, or its maps were dropped.
        OptionError: The rule cannot work on these images or at this level.
    """
    _check(run, rule, levels)
    check_options(rule, options)
    source = run.record.dataset.protocol.threshold_source
    if run.record.categories:
        thresholds, chosen = _choose_by_category(run, rule, options, levels, category)
    elif category is not None:
        raise InputError(f"{run.folder.name} is of one dataset, not of categories: leave category={category!r} out.")
    else:
        thresholds, chosen = _choose(run, rule, options, levels)
    of_groups = _group_threshold(run, rule, options, source) if "image" in levels else None
    earlier = run.record.earlier_thresholds
    if thresholds != run.record.thresholds:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        group = None if run.record.groups is None else run.record.groups.thresholds.group
        earlier = [*earlier, EarlierThresholds(thresholds=run.record.thresholds, group=group, until=now)]
    _write(run, thresholds, of_groups, earlier, alongside)
    return chosen


def _choose(
    run: Run, rule: str, options: RuleOptions, levels: Sequence[str]
) -> tuple[Thresholds, dict[str, Threshold]]:
    """Return a run's thresholds with those of the levels chosen anew, and what was chosen by level."""
    rows, source = run.scores("validation"), run.record.dataset.protocol.threshold_source
    choosers = {"image": image_threshold, "pixel": _pixel_threshold}
    chosen = {level: choosers[level](run, rows, rule, options, source) for level in levels}
    records = {level: threshold_record(threshold, source) for level, threshold in chosen.items()}
    return run.record.thresholds.replaced(**records), chosen


def _choose_by_category(
    run: Run, rule: str, options: RuleOptions, levels: Sequence[str], category: str | None
) -> tuple[Thresholds, dict[str, Threshold]]:
    """Return what `_choose` does, chosen on each category's own images, or on those of the given one."""
    if rule == "manual" and category is None:
        raise OptionError(
            "Each category has a scale of its own: name the one whose threshold this is, such as --category "
            f"{run.record.categories[0].name}."
        )
    asked = category_runs(run) if category is None else [category_run(run, category)]
    chosen: dict[str, Threshold] = {}
    changed = dict(run.record.thresholds.categories)
    for one in asked:
        try:
            changed[str(one.category)], found = _choose(one, rule, options, levels)
        except InputError as error:  # of all, or none changes
            raise type(error)(f"Category {one.category}: {error}") from error
        chosen |= {f"{one.category} {level}": threshold for level, threshold in found.items()}
    return thresholds_by_category(changed, run.record.dataset.protocol.threshold_source), chosen


def restore_thresholds(run: Run, alongside: Alongside = lambda _: nullcontext()) -> Thresholds:
    """Take back the last `set_threshold`: the thresholds before it, with the labels and the metrics they give.

    Raises:
        InputError: None was set since the training, or the maps that a pixel threshold needs were dropped since.
    """
    earlier = run.record.earlier_thresholds
    if not earlier:
        raise InputError(f"{run.folder} has the thresholds of its training: there is nothing to take back.")
    last = earlier[-1]
    if _pixels_of(last.thresholds) != _pixels_of(run.record.thresholds):
        _check_maps(run)
    _write(run, last.thresholds, last.group, earlier[:-1], alongside)
    return last.thresholds


def _pixels_of(thresholds: Thresholds) -> list[ThresholdRecord]:
    return [thresholds.pixel, *(one.pixel for one in thresholds.categories.values())]


def _write(
    run: Run,
    thresholds: Thresholds,
    of_groups: ThresholdRecord | None,
    earlier: Sequence[EarlierThresholds],
    alongside: Alongside,
) -> None:
    results: dict[str, Any] = {}
    if run.status == "finished":
        results = evaluate_run(run, thresholds, of_groups)
    with alongside(thresholds):
        if results:
            relabel_scores(run, thresholds)  # after all computations that can fail
        try:
            run.update(thresholds=thresholds, earlier_thresholds=list(earlier), **results)
        except BaseException:
            if results:
                relabel_scores(run)
            raise


def _group_threshold(run: Run, rule: str, options: RuleOptions, source: str) -> ThresholdRecord | None:
    """Choose the group threshold by the image threshold's rule; the record notes if there are too few groups."""

    def by_rule(scores: np.ndarray, labels: np.ndarray) -> Threshold:
        try:
            return checked_promise(run.record, choose(rule, scores, labels, options, f"parts of {source}"))
        except OptionError as error:
            logger.warning("No threshold for parts: %s", error)
            return Threshold(None, rule, source, str(error))

    return choose_group_threshold(run, by_rule, rule)


def _check(run: Run, rule: str, levels: Sequence[str]) -> None:
    unknown = [level for level in levels if level not in LEVELS]
    if unknown or not levels:
        raise OptionError(f"level must be image, pixel or both, got {', '.join(unknown) or 'nothing'}.")
    if rule == "manual" and len(levels) > 1:
        raise OptionError("Image scores and maps have scales of their own: give --level image or --level pixel.")
    if rule == "cost" and "pixel" in levels:
        raise OptionError("Rule cost weighs parts, not pixels: give --level image.")
    if not run.scores("validation") and rule != "manual":
        raise InputError(
            f"{run.folder} has no validation images to choose a threshold on. Rule manual needs none: --rule manual "
            "--level image --value SCORE."
        )
    if "pixel" in levels:
        _check_maps(run)


def _check_maps(run: Run) -> None:
    if not run.has_all_maps:
        raise InputError(
            f"{run.folder} did not keep its maps, so nothing about pixels can be computed again: give --level image."
        )


def image_threshold(run: Run, rows: Sequence[ScoreRow], rule: str, options: RuleOptions, source: str) -> Threshold:
    """Choose the image threshold from validation rows; the rule conformal uses groups where they are defined.

    Raises:
        OptionError: The rule cannot work on these images.
    """
    groups = row_groups(run.record, rows)
    used = rows_for_rule(run.record, rows, rule)
    if groups is None or rule not in PROMISES:
        return checked_promise(run.record, choose(rule, *columns(used), options, source))
    if rule == "recall":
        found = choose(rule, *columns(used), options, source)
        return replace(found, withdrawn="images of one part are not independent (data.group)")
    found = choose(rule, *group_columns(used, groups), options, f"parts of {source}")
    return checked_promise(run.record, _counted_in_groups(found))


def count_for_promise(run: Run) -> int:
    """Return how many good validation images (groups, with `data.group`) the promise of the rule conformal counts."""
    used = rows_for_rule(run.record, run.scores("validation"), "conformal")
    groups = row_groups(run.record, used)
    labels = columns(used)[1] if groups is None else group_columns(used, groups)[1]
    return int((labels == 0).sum())


def _counted_in_groups(found: Threshold) -> Threshold:
    return replace(found, reason=f"{found.reason}; counted in parts, each by its highest image (data.group)")


def _pixel_threshold(run: Run, rows: Sequence[ScoreRow], rule: str, options: RuleOptions, source: str) -> Threshold:
    maps = run.maps("validation")
    if rule == "manual":
        return choose(rule, [], [], options, source)
    if maps is None:
        raise InputError(f"{run.folder} has no validation maps: give --level image.")
    check_rows(run, maps, "validation")
    groups, labels = row_groups(run.record, rows), pixel_labels(run, rows_for_rule(run.record, rows, rule))
    found = choose_by_pixels(rule, maps, run.packed_masks("validation"), labels, options, source, groups)
    return checked_promise(run.record, found if groups is None or rule != "conformal" else _counted_in_groups(found))
