"""Running groups of configurations: shared work is done once, and a failure affects only those that depend on it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from defectlab.experiment import train_built
from defectlab.results.run.run import Run
from defectlab.sweeps.attempt import PrunedTrialError, attempt
from defectlab.sweeps.configurations import Configuration, Refused, earlier_runs
from defectlab.sweeps.padim import score_padim
from defectlab.sweeps.patchcore import score_patchcore
from defectlab.sweeps.record_scores import RawScores, write_run
from defectlab.sweeps.shared_work import SharedWork, scored_entries
from defectlab.sweeps.subspace import score_subspace
from defectlab.sweeps.table import Outcome
from defectlab.utils import paths
from defectlab_runtime.errors import BusyError, InputError

logger = logging.getLogger(__name__)

SCORERS: dict[str, Callable[..., Iterator[RawScores]]] = {
    "patchcore": score_patchcore,
    "padim": score_padim,
    "subspace": score_subspace,
}
Report = Callable[[Outcome], None]


def outcome_of(one: Configuration, status: str, run: Run | None = None, **more: Any) -> Outcome:
    """Return the outcome of a configuration, with metrics and record of its run if there is one."""
    data = {key: value for key, value in asdict(one.experiment.data).items() if not _is_place(key)}
    backbone = one.model.backbone_record
    settings = {
        "model": one.experiment.model,
        "backbone": [backbone["name"], "random" if backbone["source"].startswith("random") else backbone["sha256"]],
        "trainer": one.experiment.trainer,
        "data": data,
        "evaluation": asdict(one.experiment.evaluation),
    }
    metrics = dict(run.record.metrics) if run is not None and status in ("finished", "kept") else {}
    record = None if run is None else paths.relative(run.folder)
    return Outcome(
        one.number, one.label, one.datamodule.name, one.model.seed, status, settings, metrics, record, **more
    )


def _is_place(option: str) -> bool:
    """Whether a data option gives the location of images or the seed of the split, and not how images are used."""
    return option in ("root", "name", "seed", "valid_area_mask") or option.endswith("_dir")


def earlier_outcome(one: Configuration, run: Run) -> Outcome:
    """Return the outcome of a configuration that is not run again, from its recorded run."""
    if run.status == "finished":
        return outcome_of(one, "kept", run)
    return outcome_of(one, "failed", run, error=run.record.error_summary)


def refused_outcome(refused: Refused) -> Outcome:
    """Return the outcome of a combination of settings that cannot work."""
    data = refused.data["data"]
    dataset = str(data.get("name") or Path(str(data.get("root"))).name)
    return Outcome(refused.number, refused.label, dataset, int(refused.data["seed"]), "refused", error=refused.error)


def is_pruned(run: Run | None) -> bool:
    """Whether a search has pruned this run, that is, ended its training early."""
    return run is not None and PrunedTrialError.__name__ in (run.record.error_summary or "")


def run_group(
    group: Sequence[Configuration], pending: Sequence[Configuration], shared: SharedWork, sweep: str, report: Report
) -> None:
    """Run the pending configurations of a group; a failure is recorded and reported, and the others still run.

    Configurations that another process has finished since the sweep was planned are reported as kept, and those that
    another process is running as busy.
    """
    pending = _still_pending(pending, shared.store.dtype, report)
    if not pending:
        return
    if not group[0].shares:
        for one in pending:
            report(_attempt(one, partial(_train, one, shared, sweep)))
        return
    waiting = {one.run_id: one for one in pending}
    try:
        masks = shared.masks(group[0], scored_entries(group[0].datamodule.manifest))
        for scored in SCORERS[group[0].model.model_name](group, pending, shared):
            one = waiting.pop(scored.configuration.run_id)
            facts = _sweep_facts(one, shared, sweep) | {"shared_by": len(pending)}
            report(_attempt(one, partial(write_run, scored, masks, {}, facts)))
    except Exception as error:
        logger.exception("The work that %d configurations share failed", len(waiting))
        for one in waiting.values():
            report(failed_outcome(one, error))


def _still_pending(pending: Sequence[Configuration], dtype: str, report: Report) -> list[Configuration]:
    found = earlier_runs(pending, dtype)
    finished = {run_id for run_id, run in found.items() if run.status == "finished"}
    for one in pending:
        if one.run_id in finished:
            report(outcome_of(one, "kept", found[one.run_id]))
    return [one for one in pending if one.run_id not in finished]


def _attempt(one: Configuration, work: Callable[[], Run]) -> Outcome:
    """Run one configuration and return its outcome; an error is turned into an outcome too."""
    tried = attempt(one.label, work, expected=(BusyError, PrunedTrialError))
    if isinstance(tried.error, BusyError):
        return outcome_of(one, "busy", error=f"being run by another process. {tried.error}")
    if tried.error is not None:
        status = "pruned" if isinstance(tried.error, PrunedTrialError) else "failed"
        return outcome_of(one, status, error=tried.summary)
    return outcome_of(one, "finished", tried.run, seconds=tried.seconds)


def _train(one: Configuration, shared: SharedWork, sweep: str) -> Run:
    """Train and test one configuration through Lightning, on features from the cache where its model takes them."""
    if one.takes_features:
        one.model.use_features(shared.features(one))  # type: ignore[operator]
    one.engine.feature_store = shared.store
    run = train_built(one.experiment, one.model, one.datamodule, one.engine, verbose=False)
    run.update(sweep=_sweep_facts(one, shared, sweep))
    return run


def failed_outcome(one: Configuration, error: Exception) -> Outcome:
    """Record an error of shared work for a configuration that needed the work, and return its outcome."""
    try:
        writer = one.engine.begin(one.model, one.datamodule)
        with writer.run.recording_failure():
            raise error
    except InputError as refusal:  # another process runs this very configuration
        if refusal is not error:
            logger.warning("%s: %s", one.label, refusal)
    except Exception as raised:  # such as a full disk: this configuration has no record, and the others go on
        if raised is not error:
            logger.error("%s: its error cannot be recorded (%s): %s", one.label, raised, error)
    return outcome_of(one, "failed", error=f"{type(error).__name__}: {error}")


def _sweep_facts(one: Configuration, shared: SharedWork, sweep: str) -> dict[str, Any]:
    """Return the record's facts on the sweep: name, seconds of the shared work so far, precision of the features."""
    seconds = {what: round(value, 3) for what, value in shared.seconds.items()}
    rounded = one.takes_features and shared.store.dtype != "float32"
    dtype = {"cache_dtype": shared.store.dtype} if rounded else {}
    return {"name": sweep, "number": one.number, "shared_seconds": seconds, **dtype}
