"""Recording of a configuration's raw scores and maps as if the configuration had been trained alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from defectlab.data.manifest.manifest import Entry
from defectlab.engine.run_start import environment
from defectlab.engine.split_writer import SplitWriter
from defectlab.experiment import SETTINGS
from defectlab.results.run.run import Run
from defectlab.sweeps.configurations import Configuration


@dataclass(frozen=True)
class RawScores:
    """Raw scores (n,) and maps (n, 1, H, W) of a configuration for `entries`."""

    configuration: Configuration
    entries: Sequence[Entry]
    scores: torch.Tensor
    maps: torch.Tensor


def write_run(
    scored: RawScores, masks: torch.Tensor | None, timings: Mapping[str, float], sweep: Mapping[str, Any]
) -> Run:
    """Write a configuration's record: raw scores and maps, thresholds, metrics, pictures; return the finished run.

    Its trackers take their copies.

    Args:
        scored: What its model gave.
        masks: (n, H, W) of the same images, on the model's input.
        timings: Seconds by stage.
        sweep: What the record says of the sweep.
    """
    one = scored.configuration
    manifest = one.datamodule.manifest
    writer = one.engine.begin(one.model, one.datamodule)
    run = writer.run
    with run.recording_failure():
        places = {entry.path: place for place, entry in enumerate(scored.entries)}
        rows = {}
        for split in ("validation", "test"):
            entries = manifest.split(split)
            split_writer = SplitWriter(run, split, manifest)
            if entries:
                split_writer.add(_batch(scored, masks, [places[entry.path] for entry in entries], entries, manifest))
                split_writer.close()
            rows[split] = split_writer.rows
        if rows["validation"]:
            writer.write_validation(rows["validation"], manifest, one.model.default_rule, 0)
        writer.write_test(rows["test"])
        run.advance("fitted", history={}, environment=environment(str(one.engine.device)), checkpoint=None)
        one.experiment.to_yaml(run.folder / SETTINGS)
        writer.finish(one.model, manifest, timings, sweep=dict(sweep))
    writer.announce()
    return run


def _batch(
    scored: RawScores, masks: torch.Tensor | None, places: Sequence[int], entries: Sequence[Entry], manifest: Any
) -> SimpleNamespace:
    """Return the chosen images as a batch with the fields that `SplitWriter.add` takes."""
    chosen = torch.as_tensor(places)
    return SimpleNamespace(
        image_path=[str(manifest.absolute(entry)) for entry in entries],
        pred_score=scored.scores[chosen.to(scored.scores.device)],
        anomaly_map=scored.maps[chosen.to(scored.maps.device)],
        gt_mask=None if masks is None else masks[chosen],
    )
