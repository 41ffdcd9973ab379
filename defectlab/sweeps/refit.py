"""Checkpoints of a sweep's configurations, made from the same cached features as their scores."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defectlab.experiment import SETTINGS, train_built
from defectlab.kernels.coreset.cost import coreset_size
from defectlab.results.run.run import Run
from defectlab.sweeps.configurations import Configuration, groups_of, prepare
from defectlab.sweeps.selection import Choice, choose
from defectlab.sweeps.shared_work import SharedWork, as_tensor, embed, scored_entries
from defectlab.utils import paths
from defectlab.utils.config_files import read_yaml
from defectlab.utils.errors import InputError, OptionError, did_you_mean

logger = logging.getLogger(__name__)

BEST = "BEST"
DEFAULT_METRIC = "image_AUROC"
CHECKED = 16  # images whose scores are compared after a fit
RELATIVE = 1e-4  # as far as a fast path may be from the plain one


@dataclass(frozen=True)
class Wanted:
    """Whose checkpoints are asked for: metrics to choose the best by, and run ids with the name each was asked by."""

    metrics: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)


def wanted_of(refit: Sequence[str], configurations: Sequence[Configuration], earlier: Mapping[str, Run]) -> Wanted:
    """Return what `refit` names: `BEST`, `BEST:metric`, or a configuration by number, name, run id or run folder.

    Raises:
        OptionError: A configuration that is not of the sweep.
    """
    metrics: list[str] = []
    named: dict[str, str] = {}
    for text in refit:
        word, _, metric = str(text).partition(":")
        if word == BEST:
            metrics.append(metric or DEFAULT_METRIC)
            continue
        found = [one.run_id for one in configurations if str(text) in _names(one, earlier.get(one.run_id))]
        if not found:
            names = [one.label.split(" ", 1)[-1] for one in configurations]
            raise OptionError(
                f"refit: the sweep has no configuration {text!r}.{did_you_mean(str(text), names)} It takes {BEST}, "
                f"{BEST}:METRIC, or a configuration by its number, name or run folder."
            )
        named |= dict.fromkeys(found, str(text))
    return Wanted(tuple(dict.fromkeys(metrics)), named)


def configurations_of(runs: Iterable[Run]) -> list[Configuration]:
    """Return the configurations of finished runs, from the settings in their folders."""
    return prepare(read_yaml(run.folder / SETTINGS) for run in runs)[0]


def _names(one: Configuration, run: Run | None) -> set[str]:
    names = {str(one.number), one.label, one.label.split(" ", 1)[-1], one.run_id}
    if run is not None:
        names |= {run.record["name"], str(run.folder), paths.relative(run.folder)}
    return names


def best_runs(runs: Iterable[Run], metric: str, *, test_if_needed: bool) -> list[Choice]:
    """Return the best run of each dataset; see `choose`."""
    by_dataset: dict[str, list[Run]] = {}
    for run in runs:
        by_dataset.setdefault(run.record["dataset"]["name"], []).append(run)
    chosen = [choose(its, metric, test_if_needed=test_if_needed) for its in by_dataset.values()]
    return [choice for choice in chosen if choice is not None]


def write_checkpoints(
    configurations: Sequence[Configuration], chosen: Mapping[str, Run], shared: SharedWork, why: Mapping[str, Any]
) -> list[Run]:
    """Give each chosen run (by run id) its checkpoint, unless it has one; return those that have one now.

    Args:
        configurations: All of the sweep.
        chosen: Finished runs.
        shared: Shared work, with the features and coreset orders that the scores came from.
        why: What the record of each says of its being chosen.
    """
    made = []
    for group in groups_of(configurations):
        members = [one for one in group if one.run_id in chosen]
        rows: torch.Tensor | None = None
        for one in members:
            run = Run.open(chosen[one.run_id].folder)
            try:
                if not run.checkpoint.is_file():
                    if one.shares and rows is None and one.model.model_name == "patchcore":
                        rows = _rows(one, shared)  # the same for all of the group
                    run = _refit(one, group, run, shared, rows)
                if one.run_id in why:
                    run.update(sweep={**run.record.get("sweep", {}), "refit": why[one.run_id]})
                made.append(run)
            except Exception:  # the run is finished and on record whatever happens to its checkpoint
                logger.exception("%s has no checkpoint", one.label)
    return made


def _refit(
    one: Configuration, group: Sequence[Configuration], run: Run, shared: SharedWork, rows: torch.Tensor | None
) -> Run:
    """Fit a model again and write its checkpoint.

    Raises:
        InputError: Its scores are not those on record.
    """
    logger.info("Checkpoint of %s on %s", one.label, one.datamodule.name)
    if not one.shares:
        return _train_again(one, run, shared)
    model: Any = one.model
    fitted = _rows(one, shared) if rows is None else rows
    model.model.to(one.engine.device)
    if model.model_name == "patchcore":
        model.model.keep(fitted, _order(one, group, fitted, shared))
        train, manifest = one.datamodule.manifest.split("train"), one.datamodule.manifest
        _, height, width = model.model.feature_extractor.feature_shapes(model.preprocessing.input_size)[
            model.model.layers[0]
        ]
        model.fitted_on([manifest.index(entry.path) for entry in train], (height, width))
    else:
        model.model.fit(fitted)
    model._is_fitted = torch.tensor([True], device=one.engine.device)
    try:
        _check_scores(one, run, shared)
        one.engine.write_checkpoint(model, run)
    finally:
        _empty(model)
    return run


def _rows(one: Configuration, shared: SharedWork) -> torch.Tensor:
    features, train = shared.features(one), one.datamodule.manifest.split("train")
    return one.model.model.rows(embed(one.model.model, features, train, one.engine.device))


def _order(one: Configuration, group: Sequence[Configuration], rows: torch.Tensor, shared: SharedWork) -> torch.Tensor:
    """Return which rows the bank keeps: from the order that the scores came from, where it is still in the cache."""
    sizes = [coreset_size(len(rows), other.model.options["coreset_sampling_ratio"]) for other in group]
    own = coreset_size(len(rows), one.model.options["coreset_sampling_ratio"])
    stored = shared.store.get(shared.key(group, "coreset", size=max(sizes)))
    return one.model.model.order(rows, own) if stored is None else as_tensor(stored[:own], rows.device)


def _check_scores(one: Configuration, run: Run, shared: SharedWork) -> None:
    entries = scored_entries(one.datamodule.manifest)[:CHECKED]
    embedding = embed(one.model.model, shared.features(one), entries, one.engine.device)
    with torch.no_grad():
        scores, _ = one.model.model.score(embedding, one.model.preprocessing.input_size)
    recorded = _recorded(one, run)
    expected = np.array([recorded[entry.path] for entry in entries])
    _compare(one, scores.detach().flatten().cpu().numpy(), expected)


def _compare(one: Configuration, scores: np.ndarray, expected: np.ndarray) -> None:
    if scores.shape != expected.shape or not np.allclose(scores, expected, rtol=RELATIVE, atol=1e-6):
        raise InputError(
            f"{one.label} fitted again gives other scores than its record has: images, weights or this program have "
            "changed since. Delete its run folder and run the sweep again."
        )


def _train_again(one: Configuration, run: Run, shared: SharedWork) -> Run:
    """Train a model with epochs again, into the run's own place."""
    earlier = _recorded(one, run)
    if one.takes_features:
        one.model.use_features(shared.features(one))  # type: ignore[operator]
    again = train_built(one.experiment, one.model, one.datamodule, one.engine, verbose=False)
    again.update(sweep=run.record.get("sweep", {}))
    now = _recorded(one, again)
    _compare(one, np.array(list(now.values())), np.array([earlier[path] for path in now]))
    return again


def _recorded(one: Configuration, run: Run) -> dict[str, float]:
    """Return the scores on record by the images' paths below the root: the folder may have been moved since."""
    manifest = one.datamodule.manifest
    return {
        entry.path: row.score
        for split in ("validation", "test")
        for entry, row in zip(manifest.split(split), run.scores(split), strict=True)
    }


def _empty(model: Any) -> None:
    """Free what a fit holds: there may be hundreds of models."""
    if model.model_name == "patchcore":
        model.model.memory_bank = torch.empty(0)
        model.model._prepared = None
    else:
        for name, buffer in list(model.model.gaussian.named_buffers()):
            setattr(model.model.gaussian, name, buffer.new_empty(0))


def drop_checkpoints(runs: Iterable[Run], kept: Sequence[Run]) -> Iterator[Path]:
    """Remove, and yield, the checkpoints that training left in this sweep's runs, but for those of `kept`."""
    folders = {run.folder for run in kept}
    for run in runs:
        if run.folder not in folders and run.checkpoint.is_file():
            run.checkpoint.unlink()
            run.update(checkpoint=None)
            yield run.checkpoint
