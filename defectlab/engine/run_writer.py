"""Writing of a run in fixed order: scores, thresholds, metrics, record, workbook row, copies at trackers."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.callbacks import Callback

from defectlab.data.manifest.manifest import Manifest, check_unchanged
from defectlab.engine.aupimo import aupimo as compute_aupimo
from defectlab.engine.run_start import RunOptions
from defectlab.engine.trackers.tracker import RunTracker
from defectlab.evaluation.metrics import Metric, sort_scores
from defectlab.evaluation.pixel.maps_and_masks import ImageSubset
from defectlab.evaluation.threshold import DefaultRule
from defectlab.models.base import BaseDetector
from defectlab.results.calibration import choosing_rows
from defectlab.results.evaluate import (
    AUPIMO,
    choose_thresholds,
    columns,
    evaluate_run,
    relabel_scores,
    threshold_by,
)
from defectlab.results.groups import choose_group_threshold
from defectlab.results.map_retention import drop_maps
from defectlab.results.mask_loss import measure_mask_loss
from defectlab.results.pixel_grid import left_out, pixel_images, pixel_labels, write_grid_masks
from defectlab.results.record_parts import no_thresholds, threshold_record, thresholds_by_category
from defectlab.results.run.category_run import category_runs, names_of
from defectlab.results.run.result_records import ThresholdRecord, Thresholds
from defectlab.results.run.run import Run
from defectlab.results.workbook import update_workbook
from defectlab.utils import paths
from defectlab.visualization.run_panel import save_panel
from defectlab.visualization.terminal import summary
from defectlab_runtime.scores import ScoreRow

logger = logging.getLogger(__name__)


class RunWriter:
    """Writes the record of one run, whose images may be scored by Lightning or by a sweep.

    Args:
        run: The run, as `start_run` begins it.
        options: What the engine was told about every run.
        trackers: Those that copy the run.
        callbacks: Lightning callbacks; one with `on_run_finished(run)` is told once the run is on record.
    """

    def __init__(
        self, run: Run, options: RunOptions, trackers: Sequence[RunTracker] = (), callbacks: Sequence[Callback] = ()
    ) -> None:
        self.run = run
        self.options = options
        self.trackers = trackers
        self.callbacks = callbacks

    def write_validation(
        self, rows: Sequence[ScoreRow], manifest: Manifest, rule: DefaultRule | None, epoch: int
    ) -> None:
        """Write the validation scores, and the thresholds chosen from them and from the maps in the run folder.

        `epoch`, counted from 0, is that of the weights.
        """
        run = self.run
        source = manifest.protocol.threshold_source
        run.write_scores([*rows, *run.scores("test")])
        if run.record.categories:
            alone = category_runs(run)
            chosen = {str(one.category): _choose(one, one.scores("validation"), rule, source) for one in alone}
            thresholds = thresholds_by_category(chosen, source)
        else:
            thresholds = _choose(run, rows, rule, source)
        relabel_scores(run, thresholds)
        run.update(thresholds=thresholds, validation_epoch=epoch)

    def write_test(self, rows: Sequence[ScoreRow]) -> None:
        """Write the test scores after those of the validation images."""
        self.run.write_scores([*self.run.scores("validation"), *rows])

    def take_thresholds(self, source: Run) -> None:
        """Copy the thresholds of the run that produced the weights, if it has thresholds and this run has none."""
        chosen = source.record.thresholds
        if chosen.recorded and not self.run.record.thresholds.recorded:
            logger.info("No validation images: using the thresholds of %s", source.folder.name)
            origin = f"run {source.record.run_id}"
            own = names_of(self.run.record)
            if names_of(source.record) != own:
                logger.warning(
                    "Those are of %s, this test is of %s: no thresholds, so no labels and no F1 scores",
                    ", ".join(names_of(source.record)) or source.dataset, ", ".join(own) or self.run.dataset,
                )  # fmt: skip
                self.run.update(thresholds=no_thresholds("the model's thresholds are of other categories"))
                return
            taken = {name: _from(one, origin) for name, one in chosen.categories.items()}
            self.run.update(thresholds=_from(chosen, origin).replaced(categories=taken))

    def complete_thresholds(self) -> None:
        """Record that there are no thresholds, if none have been recorded."""
        if not self.run.record.thresholds.recorded:
            logger.warning("No validation images: no thresholds, so no labels and no F1 scores")
            self.run.update(thresholds=no_thresholds("there were no validation images"))

    def finish(self, model: BaseDetector, manifest: Manifest, timings: Mapping[str, float], **fields: Any) -> None:
        """Compute the metrics of the recorded scores, draw the pictures and finish the record.

        `timings` (seconds by stage) and `fields` go into the record too.

        Raises:
            DataError: Images have changed meanwhile.
        """
        run = self.run
        self.complete_thresholds()
        check_unchanged(manifest)
        run.update(maps={"kept": "all"}, partial=_missing_scores(run, manifest))
        write_grid_masks(run, manifest)
        loss = measure_mask_loss(run, manifest)
        if loss is not None:
            run.update(evaluation=run.record.evaluation.replaced(mask_loss=loss))
        if self.options.aupimo:
            run.update(**_with_aupimo(run))
        results = evaluate_run(run, group_threshold=_group_threshold(model, run))
        problem = sort_scores(*columns(run.scores("test"))).problem
        if problem:
            logger.warning("%s: the model failed on these images, so there are no image metrics and no rank", problem)
        relabel_scores(run)
        save_panel(run)
        rounded = {stage: round(seconds, 3) for stage, seconds in timings.items()}
        run.advance(
            "finished",
            timings={**run.record.timings, **rounded},
            maps=drop_maps(run, self.options.keep_maps),
            **results,
            **fields,
        )

    def update_workbook(self, *, verbose: bool) -> None:
        """Add the finished run's row to the workbook; print it if `verbose`. An error is logged, not raised."""
        try:
            outcome = update_workbook(self.run)
            if verbose:
                summary(self.run, outcome.rows)
        except Exception:  # a person may have edited the workbook in any way
            logger.exception(
                "The run is finished and on record, but %s could not take its row. Mend the workbook or move it away, "
                "then run `defectlab compare`.",
                paths.workbook(),
            )

    def announce(self, *, trained_elsewhere: bool = False) -> None:
        """Notify callbacks and trackers that the run is tested and recorded; trackers copy it.

        With `trained_elsewhere` trackers could not follow the training and take its curves from the record too.
        """
        for callback in self.callbacks:
            if hasattr(callback, "on_run_finished"):
                callback.on_run_finished(self.run)
        for tracker in self.trackers:
            if trained_elsewhere:
                tracker.replay_training(self.run)
            tracker.copy_test(self.run)


def _choose(run: Run, rows: Sequence[ScoreRow], rule: DefaultRule | None, source: str) -> Thresholds:
    """Return the thresholds chosen from validation rows and from the maps in the run's folder."""
    maps, masks = run.maps("validation"), run.packed_masks("validation")
    choosing = choosing_rows(run.record, rows)
    image, pixel = choose_thresholds(choosing, maps, masks, rule, pixel_labels(run, choosing))
    return Thresholds(image=threshold_record(image, source), pixel=threshold_record(pixel, source))


def _from(thresholds: Thresholds, origin: str) -> Thresholds:
    """Return thresholds with the run that they were taken from as their source."""
    return thresholds.replaced(**{level: one.replaced(source=origin) for level, one in thresholds.by_level.items()})


def _missing_scores(run: Run, manifest: Manifest) -> str | None:
    """Return and log how many images of validation and test were scored where some were not, as by a limit of batches.

    Without validation scores the run has the thresholds of other images, or none, and says so already.
    """
    counts = {split: (len(run.scores(split)), len(manifest.split(split))) for split in ("validation", "test")}
    parts = [
        f"{scored} of {images} {split} images scored"
        for split, (scored, images) in counts.items()
        if scored < images and (scored or split == "test")
    ]
    if not parts:
        return None
    logger.warning("The run is partial and will not be ranked: %s", ", ".join(parts))
    return ", ".join(parts)


def _group_threshold(model: BaseDetector, run: Run) -> ThresholdRecord | None:
    """Choose the threshold of parts by the rule of the images' threshold; None for the default rule or another rule."""
    by = model.default_rule
    if by.rule == "f1" or run.record.thresholds.image.rule != by.rule:
        return None
    return choose_group_threshold(run, lambda scores, labels: threshold_by(by, scores, labels))


def _with_aupimo(run: Run) -> dict[str, Any]:
    """Return the recorded metrics and reasons with pixel_AUPIMO added, which depends on no threshold."""
    images, lack = pixel_images(run)
    rows = run.scores("test")
    excluded = frozenset(left_out(run, rows))
    known = [place for place, row in enumerate(rows) if row.label >= 0 and place not in excluded]
    metric = Metric(None, lack) if images is None else compute_aupimo(ImageSubset(images, known))
    reasons = run.record.metric_reasons
    return {
        "metrics": {**run.record.metrics, AUPIMO: metric.value},
        "metric_reasons": {**reasons, AUPIMO: metric.reason} if metric.value is None else reasons,
    }
