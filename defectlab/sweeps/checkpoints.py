"""Selection of the checkpoints that a sweep keeps: all, the best one of each dataset, or none, and those named."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from defectlab.kernels.coreset.cost import coreset_size
from defectlab.kernels.gaussian.fit import low_rank_is_smaller
from defectlab.results.run.result_records import RefitRecord
from defectlab.results.run.run import Run
from defectlab.sweeps.configurations import Configuration
from defectlab.sweeps.refit import write_checkpoints
from defectlab.sweeps.selection import Choice, choose
from defectlab.sweeps.shared_work import SharedWork
from defectlab.utils import paths
from defectlab_runtime.errors import OptionError, did_you_mean

logger = logging.getLogger(__name__)

BEST = "BEST"
DEFAULT_METRIC = "image_AUROC"
MAX_AUTOMATIC_BYTES = 2 * 10**9  # up to this total size all are kept unless the sweep says otherwise


@dataclass(frozen=True)
class CheckpointRequest:
    """Requested checkpoints: metrics that choose the best run, and run ids with the name each was requested by."""

    metrics: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RetainedCheckpoints:
    """Runs that have a checkpoint as requested, and descriptions of the checkpoints that could not be made."""

    runs: Sequence[Run] = ()
    problems: Sequence[str] = ()


def parse_refit(
    refit: Sequence[str], configurations: Sequence[Configuration], earlier: Mapping[str, Run]
) -> CheckpointRequest:
    """Parse `refit`: each entry is `BEST`, `BEST:metric`, or a configuration by number, name, run id or run folder.

    Raises:
        OptionError: A configuration that is not of the sweep.
    """
    metrics: list[str] = []
    named: dict[str, str] = {}
    for text in map(str, refit):
        word, _, metric = text.partition(":")
        if word == BEST:
            metrics.append(metric or DEFAULT_METRIC)
            continue
        found = [one.run_id for one in configurations if text in _names(one, earlier.get(one.run_id))]
        if not found:
            names = [one.label.split(" ", 1)[-1] for one in configurations]
            raise OptionError(
                f"refit: the sweep has no configuration {text!r}.{did_you_mean(text, names)} It takes {BEST}, "
                f"{BEST}:METRIC, or a configuration by its number, name or run folder."
            )
        named |= dict.fromkeys(found, text)
    return CheckpointRequest(tuple(dict.fromkeys(metrics)), named)


def _names(one: Configuration, run: Run | None) -> set[str]:
    """Return every name by which a configuration may be requested."""
    names = {str(one.number), one.label, one.label.split(" ", 1)[-1], one.run_id}
    return names if run is None else names | {run.record.name, str(run.folder), paths.relative(run.folder)}


def checkpoint_policy(asked: str | None, configurations: Sequence[Configuration]) -> str:
    """Return the checkpoint policy: `asked` if given, else `all` up to `MAX_AUTOMATIC_BYTES` and `best` above."""
    if asked is not None:
        return asked
    size = sum(checkpoint_bytes(one) for one in configurations)
    policy = "all" if size <= MAX_AUTOMATIC_BYTES else "best"
    logger.info(
        "checkpoints: %s, since all %d would take about %.1f GB (at most 2 GB are kept without asking; checkpoints: "
        "none | best | all decides otherwise)", policy, len(configurations), size / 1e9,
    )  # fmt: skip
    return policy


def checkpoint_bytes(one: Configuration) -> int:
    """Return the estimated size of a configuration's checkpoint in bytes."""
    size = 4 * sum(parameter.numel() for parameter in one.model.model.parameters())
    if one.model.model_name not in ("patchcore", "padim", "subspace"):
        return size
    options, (bank_channels, height, width) = one.model.options, one.grid
    if one.model.model_name == "subspace":  # the sums in float64, and the axes outside the subspace
        return size + 12 * bank_channels**2
    images = len(one.datamodule.manifest.split("train"))
    if one.model.model_name == "patchcore":
        patches = images * options.get("rotations", 1) * height * width
        return size + 4 * bank_channels * coreset_size(patches, options["coreset_sampling_ratio"])
    channels = options["n_features"]
    covariance = images * (images + channels) if low_rank_is_smaller(images, channels) else channels**2
    return size + 4 * height * width * (channels + covariance)


def best_runs(runs: Iterable[Run], metric: str, *, test_if_needed: bool) -> list[Choice]:
    """Return the best run of each dataset; see `choose`."""
    by_dataset: dict[str, list[Run]] = {}
    for run in runs:
        by_dataset.setdefault(run.record.dataset.name, []).append(run)
    chosen = [choose(its, metric, test_if_needed=test_if_needed) for its in by_dataset.values()]
    return [choice for choice in chosen if choice is not None]


def retain_checkpoints(
    policy: str,
    request: CheckpointRequest,
    configurations: Sequence[Configuration],
    runs: Mapping[str, Run],
    shared: SharedWork,
    sweep: str,
    objective: str = DEFAULT_METRIC,
) -> RetainedCheckpoints:
    """Make the checkpoints that a finished sweep retains, and remove those that training left beside them.

    Args:
        policy: One of CHECKPOINTS in `config`.
        request: What was asked for beside it.
        configurations: All of the sweep.
        runs: Its finished runs, by run id.
        shared: Its shared work.
        sweep: Its name: checkpoints of runs that another sweep, or nobody's sweep, has made are never removed.
        objective: By which the best is chosen where the policy asks for it.
    """
    chosen = dict(runs) if policy == "all" else {}
    reasons: dict[str, RefitRecord] = {}
    problems: list[str] = []
    asked_for = {**({objective: False} if policy == "best" else {}), **dict.fromkeys(request.metrics, True)}
    for metric, asked in asked_for.items():
        found = best_runs(runs.values(), metric, test_if_needed=asked)
        chosen |= {one.run.record.run_id: one.run for one in found}
        reasons |= {one.run.record.run_id: RefitRecord(**one.to_dict()) for one in found}
        if not found and not asked:
            logger.warning("No checkpoint: name one (refit), or ask for BEST, which then looks at the test images")
        elif not found:
            problems.append(f"nothing could be chosen by {metric}")
    for run_id, name in request.named.items():
        if run_id in runs:
            chosen[run_id] = runs[run_id]
            reasons.setdefault(run_id, RefitRecord(named=name))
        else:
            problems.append(f"{name} is not finished")
    made = write_checkpoints(configurations, chosen, shared, reasons)
    missing = len(chosen) - len(made)
    problems += [f"{missing} of {len(chosen)} checkpoints could not be made; the log says why"] if missing else []
    if policy != "all":
        _remove_others(runs.values(), made, sweep)
    for problem in problems:
        logger.error("Checkpoints: %s", problem)
    return RetainedCheckpoints(made, problems)


def _remove_others(runs: Iterable[Run], retained: Sequence[Run], sweep: str) -> None:
    """Remove the checkpoints that training left in this sweep's runs, but for those that are retained or asked for."""
    folders, removed = {run.folder for run in retained}, 0
    for run in runs:
        facts = run.record.sweep
        own = facts is not None and facts.name == sweep and facts.refit is None
        if own and run.folder not in folders and run.checkpoint.is_file():
            run.checkpoint.unlink()
            run.update(checkpoint=None)
            removed += 1
    if removed:
        logger.info("Removed the checkpoints of %d other trained configurations (checkpoints: all keeps them)", removed)
