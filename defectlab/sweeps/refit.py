"""Checkpoints of a sweep's configurations, made from the same cached features as their scores."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from defectlab.experiment import SETTINGS, train_built
from defectlab.kernels.coreset.cost import coreset_size
from defectlab.models.memory_bank import embed
from defectlab.results.calibration import withdraw_recorded
from defectlab.results.run.result_records import RefitRecord, SweepRecord
from defectlab.results.run.run import Run
from defectlab.sweeps.configurations import Configuration, groups_of, prepare
from defectlab.sweeps.shared_work import SharedWork, as_tensor, scored_entries
from defectlab.sweeps.subspace import patch_sums
from defectlab.utils.config_files import read_yaml
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

MAX_CHECKED_IMAGES = 16  # number of images whose scores are compared after a fit
RELATIVE_TOLERANCE = 1e-4  # largest relative difference between recorded scores and those of the new fit


def configurations_of(runs: Iterable[Run]) -> list[Configuration]:
    """Return the configurations of finished runs, built from the settings in the run folders."""
    return prepare(read_yaml(run.folder / SETTINGS) for run in runs)[0]


def write_checkpoints(
    configurations: Sequence[Configuration],
    chosen: Mapping[str, Run],
    shared: SharedWork,
    reasons: Mapping[str, RefitRecord],
) -> list[Run]:
    """Write the checkpoint of each chosen run (by run id) that has none; return the runs that have one now.

    Args:
        configurations: All of the sweep.
        chosen: Finished runs.
        shared: Shared work, with the features and coreset orders that the scores came from.
        reasons: What the record of each says of its being chosen.
    """
    made = []
    for group in groups_of(configurations):
        rows: torch.Tensor | None = None
        for one in (one for one in group if one.run_id in chosen):
            run = Run.open(chosen[one.run_id].folder)
            try:
                if not run.checkpoint.is_file():
                    logger.info("Checkpoint of %s on %s", one.label, one.datamodule.name)
                    if not one.shares:
                        run = _train_again(one, run, shared)
                    else:
                        if one.model.model_name == "subspace":
                            rows = None
                        # PatchCore's are the same for all
                        elif rows is None or one.model.model_name == "padim":
                            rows = _rows(one, shared)
                        _fit_again(one, group, run, shared, rows)
                if one.run_id in reasons:
                    run.update(sweep=_sweep_record(run).replaced(refit=reasons[one.run_id]))
                    withdraw_recorded(run)
                made.append(run)
            except Exception:  # the run stays finished and recorded without its checkpoint
                logger.exception("%s has no checkpoint", one.label)
    return made


def _sweep_record(run: Run) -> SweepRecord:
    return run.record.sweep or SweepRecord()


def _fit_again(
    one: Configuration, group: Sequence[Configuration], run: Run, shared: SharedWork, rows: torch.Tensor | None
) -> None:
    """Fit a model on its rows (None: on the group's sums), compare scores with the recorded ones, write its checkpoint.

    Raises:
        InputError: Its scores are not those on record.
    """
    model: Any = one.model
    model.model.to(one.engine.device)
    if rows is None:
        model.model.fit(patch_sums(group, shared))
    elif model.model_name == "patchcore":
        manifest, (_, height, width) = one.datamodule.manifest, one.grid
        model.model.set_memory_bank(rows, _order(one, group, rows, shared))
        model.fitted_on([manifest.index(entry.path) for entry in manifest.split("train")], (height, width))
    else:
        model.model.fit(rows)
    model._is_fitted = torch.tensor([True], device=one.engine.device)
    try:
        _check_scores(one, run, shared)
        one.engine.write_checkpoint(model, run)
    finally:
        _free(model)


def _rows(one: Configuration, shared: SharedWork) -> torch.Tensor:
    """Return the training rows on which a configuration's model is fitted."""
    features, train = shared.features(one), one.datamodule.manifest.split("train")
    return one.model.model.rows(embed(one.model.model, features, train, one.engine.device))


def _order(one: Configuration, group: Sequence[Configuration], rows: torch.Tensor, shared: SharedWork) -> torch.Tensor:
    """Return the indices of the rows in the bank, from the sweep's coreset order if the cache still has it."""
    sizes = {other.run_id: coreset_size(len(rows), other.model.options["coreset_sampling_ratio"]) for other in group}
    stored = shared.store.get(shared.key(group, "coreset", size=max(sizes.values())))
    own = sizes[one.run_id]
    if own == len(rows):
        return torch.arange(own)
    return one.model.model.order(rows, own) if stored is None else as_tensor(stored[:own], rows.device)


def _check_scores(one: Configuration, run: Run, shared: SharedWork) -> None:
    entries = scored_entries(one.datamodule.manifest)[:MAX_CHECKED_IMAGES]
    embedding = embed(one.model.model, shared.features(one), entries, one.engine.device)
    with torch.no_grad():
        scores, _ = one.model.model.score(embedding, one.model.preprocessing.input_size)
    recorded = _recorded_scores(one, run)
    expected = np.array([recorded[entry.path] for entry in entries])
    _compare(one, scores.detach().flatten().cpu().numpy(), expected)


def _compare(one: Configuration, scores: np.ndarray, expected: np.ndarray) -> None:
    if scores.shape != expected.shape or not np.allclose(scores, expected, rtol=RELATIVE_TOLERANCE, atol=1e-6):
        raise InputError(
            f"{one.label} fitted again gives other scores than its record has: images, weights or this program have "
            "changed since. Delete its run folder and run the sweep again."
        )


def _train_again(one: Configuration, run: Run, shared: SharedWork) -> Run:
    """Train a model with epochs again, and check that its scores equal those of the recorded run."""
    earlier = _recorded_scores(one, run)
    if one.takes_features:
        one.model.use_features(shared.features(one))  # type: ignore[operator]
    again = train_built(one.experiment, one.model, one.datamodule, one.engine, verbose=False)
    again.update(sweep=_sweep_record(run))
    now = _recorded_scores(one, again)
    _compare(one, np.array(list(now.values())), np.array([earlier[path] for path in now]))
    return again


def _recorded_scores(one: Configuration, run: Run) -> dict[str, float]:
    """Return the recorded scores by image path relative to the root, since the folder may have been moved."""
    manifest = one.datamodule.manifest
    return {
        entry.path: row.score
        for split in ("validation", "test")
        for entry, row in zip(manifest.split(split), run.scores(split), strict=True)
    }


def _free(model: Any) -> None:
    """Free the fitted tensors of a model, since a sweep may hold hundreds of models."""
    if model.model_name == "patchcore":
        model.model.memory_bank = torch.empty(0)
        model.model._index = None
    elif model.model_name == "subspace":
        model.model.complement, model.model.sums = torch.empty(0), None
    else:
        for name, buffer in list(model.model.gaussian.named_buffers()):
            setattr(model.model.gaussian, name, buffer.new_empty(0))
