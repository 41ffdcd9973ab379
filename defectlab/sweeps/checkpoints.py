"""Which checkpoints a sweep keeps: all, the best one of each dataset, or none; and making those that are missing."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defectlab.kernels.coreset.cost import coreset_size
from defectlab.kernels.gaussian.fit import low_rank_is_smaller
from defectlab.results.run.run import Run
from defectlab.sweeps.configurations import Configuration
from defectlab.sweeps.refit import DEFAULT_METRIC, Wanted, best_runs, drop_checkpoints, write_checkpoints
from defectlab.sweeps.shared_work import SharedWork

logger = logging.getLogger(__name__)

MAX_AUTOMATIC_BYTES = 2 * 10**9  # up to so many, all are kept unless the sweep says otherwise


@dataclass(frozen=True)
class RetainedCheckpoints:
    """Runs that have a checkpoint as asked for, and in words what could not be made."""

    runs: Sequence[Run] = ()
    problems: Sequence[str] = ()


def checkpoint_policy(asked: str | None, configurations: Sequence[Configuration]) -> str:
    """Return what is kept: what was asked for, else `all` where that is little and `best` where it is much."""
    if asked is not None:
        return asked
    size = sum(checkpoint_bytes(one) for one in configurations)
    policy = "all" if size <= MAX_AUTOMATIC_BYTES else "best"
    logger.info(
        "checkpoints: %s, since all %d would take about %.1f GB (%s; checkpoints: none | best | all decides otherwise)",
        policy, len(configurations), size / 1e9, "at most 2 GB are kept without asking",
    )  # fmt: skip
    return policy


def checkpoint_bytes(one: Configuration) -> int:
    """Return about how large a configuration's checkpoint is."""
    model, options = one.model.model, one.model.options
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if one.model.model_name not in ("patchcore", "padim"):
        return size
    shapes = model.feature_extractor.feature_shapes(one.model.preprocessing.input_size)
    _, height, width = shapes[model.layers[0]]
    images = len(one.datamodule.manifest.split("train"))
    if one.model.model_name == "patchcore":
        rows = coreset_size(images * height * width, options["coreset_sampling_ratio"])
        return size + 4 * rows * sum(shape[0] for shape in shapes.values())
    channels = options["n_features"]
    covariance = images * (images + channels) if low_rank_is_smaller(images, channels) else channels**2
    return size + 4 * height * width * (channels + covariance)


def retain_checkpoints(
    policy: str,
    wanted: Wanted,
    configurations: Sequence[Configuration],
    runs: Mapping[str, Run],
    shared: SharedWork,
    sweep: str,
    objective: str = DEFAULT_METRIC,
) -> RetainedCheckpoints:
    """Make the checkpoints that a finished sweep is to have, and remove those that it is not.

    Args:
        policy: One of CHECKPOINTS in `config`.
        wanted: What was asked for beside it.
        configurations: All of the sweep.
        runs: Its finished runs, by run id.
        shared: Its shared work.
        sweep: Its name: checkpoints of runs that another sweep, or nobody's sweep, has made are never removed.
        objective: By which the best is chosen where the policy asks for it.
    """
    chosen = dict(runs) if policy == "all" else {}
    why: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    metrics = dict.fromkeys(wanted.metrics, True)
    if policy == "best":
        metrics = {objective: False} | metrics
    for metric, asked in metrics.items():
        found = best_runs(runs.values(), metric, test_if_needed=asked)
        chosen |= {one.run.record["run_id"]: one.run for one in found}
        why |= {one.run.record["run_id"]: one.to_dict() for one in found}
        if not found and not asked:
            logger.warning("No checkpoint: name one (refit), or ask for BEST, which then looks at the test images")
        elif not found:
            problems.append(f"nothing could be chosen by {metric}")
    for run_id, name in wanted.named.items():
        if run_id in runs:
            chosen[run_id] = runs[run_id]
            why.setdefault(run_id, {"named": name})
        else:
            problems.append(f"{name} is not finished")
    made = write_checkpoints(configurations, chosen, shared, why)
    missing = len(chosen) - len(made)
    problems += [f"{missing} of {len(chosen)} checkpoints could not be made; the log says why"] if missing else []
    if policy != "all":
        _drop(runs, made, sweep)
    for problem in problems:
        logger.error("Checkpoints: %s", problem)
    return RetainedCheckpoints(made, problems)


def _drop(runs: Mapping[str, Run], made: Sequence[Run], sweep: str) -> None:
    facts = {run_id: run.record.get("sweep") or {} for run_id, run in runs.items()}
    own = [run for run_id, run in runs.items() if facts[run_id].get("name") == sweep and "refit" not in facts[run_id]]
    gone = list(drop_checkpoints(own, made))
    if gone:
        logger.info(
            "Removed the checkpoints of %d other trained configurations (checkpoints: all keeps them)", len(gone)
        )
