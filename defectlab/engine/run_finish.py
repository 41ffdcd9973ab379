"""From raw scores on record to a finished run: the same steps whether Lightning or a sweep has scored the images."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from defectlab.data.manifest.manifest import Manifest, check_unchanged
from defectlab.engine.aupimo import aupimo as compute_aupimo
from defectlab.evaluation.metrics import Metric
from defectlab.evaluation.pixel.maps_and_masks import ImageSubset
from defectlab.evaluation.thresholds import DefaultRule
from defectlab.models.base import BaseDetector
from defectlab.results.evaluate import (
    AUPIMO,
    choose_thresholds,
    evaluate_run,
    labelled,
    no_thresholds,
    threshold_by,
    threshold_record,
)
from defectlab.results.groups import choose_part_threshold
from defectlab.results.map_retention import drop_maps
from defectlab.results.pixel_grid import left_out, pixel_images, pixel_labels, write_grid_masks
from defectlab.results.run.run import Run
from defectlab.results.run.scores import ScoreRow
from defectlab.visualization.run_panel import save_panel

logger = logging.getLogger(__name__)


def record_thresholds(
    run: Run, rows: Sequence[ScoreRow], manifest: Manifest, by: DefaultRule | None, epoch: int
) -> None:
    """Choose the thresholds from the validation rows and the run's validation maps, and put both on record."""
    source = "test" if manifest.protocol.validation_is_test else "validation"
    maps, masks = run.maps("validation"), run.packed_masks("validation")
    image, pixel = choose_thresholds(rows, maps, masks, by, pixel_labels(run, rows))
    run.write_scores([*(labelled(row, image.value) for row in rows), *run.scores("test")])
    run.update(
        thresholds={"image": threshold_record(image, source), "pixel": threshold_record(pixel, source)},
        validation_epoch=epoch,
    )


def complete_thresholds(run: Run) -> None:
    """Where nothing could choose thresholds, say so in log and record."""
    if not run.record["thresholds"]:
        logger.warning("No validation images: no thresholds, so no labels and no F1 scores")
        run.update(thresholds=no_thresholds("there were no validation images"))


def finish_run(
    run: Run,
    model: BaseDetector,
    manifest: Manifest,
    timings: Mapping[str, float],
    *,
    keep_maps: str = "all",
    aupimo: bool = False,
    **fields: Any,
) -> None:
    """Compute the metrics of a run whose test images are scored, draw its pictures and finish its record.

    Raises:
        DataError: Images have changed meanwhile.
    """
    check_unchanged(manifest)
    run.update(maps={"kept": "all"})
    write_grid_masks(run, manifest)
    if aupimo:
        run.update(**_with_aupimo(run))
    results = evaluate_run(run, part_threshold=_part_threshold(model, run))
    save_panel(run)
    rounded = {stage: round(seconds, 3) for stage, seconds in timings.items()}
    run.advance(
        "finished", timings={**run.record["timings"], **rounded}, maps=drop_maps(run, keep_maps), **results, **fields
    )


def _part_threshold(model: BaseDetector, run: Run) -> dict[str, Any] | None:
    """Choose the parts' threshold as the images' was; None leaves it to the record, or there are no parts."""
    by = model.default_rule
    if by.rule == "f1" or run.record["thresholds"]["image"]["rule"] != by.rule:
        return None
    return choose_part_threshold(run, lambda scores, labels: threshold_by(by, scores, labels))


def _with_aupimo(run: Run) -> dict[str, Any]:
    """Return the record's metrics and reasons with pixel_AUPIMO among them; no threshold changes it."""
    images, lack = pixel_images(run)
    rows = run.scores("test")
    blank = frozenset(left_out(run, rows))
    known = [place for place, row in enumerate(rows) if row.label >= 0 and place not in blank]
    found = Metric(None, lack) if images is None else compute_aupimo(ImageSubset(images, known))
    reasons = run.record.get("metric_reasons", {})
    return {
        "metrics": {**run.record["metrics"], AUPIMO: found.value},
        "metric_reasons": {**reasons, AUPIMO: found.reason} if found.value is None else reasons,
    }
