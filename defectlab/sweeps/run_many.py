"""Running several experiments, or one with several seeds: all are checked first, finished ones are not run again."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from defectlab.data.manifest.categories import categories_in, chosen_categories
from defectlab.experiment import ComponentCache, Experiment, build, train_built
from defectlab.results.run.identity import safe_name
from defectlab.sweeps.attempt import attempt
from defectlab.utils import paths
from defectlab.utils.files import write_csv
from defectlab_runtime.errors import OptionError

if TYPE_CHECKING:
    from defectlab.results.run.run import Run

logger = logging.getLogger(__name__)

MAX_SEEDS = 1000


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse seeds from text such as `0..4` (both ends included), `0,1,2`, or a combination, `0..4,42`.

    Raises:
        OptionError: Another form, a seed twice, or more than a thousand.

    >>> parse_seeds("0..2,42")
    (0, 1, 2, 42)
    """
    seeds: list[int] = []
    for part in str(text).split(","):
        found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise OptionError(f"seeds must be whole numbers such as 0..4 or 0,1,2, got {text!r}.")
        if last - first >= MAX_SEEDS:
            raise OptionError(f"seeds={text!r} are more than {MAX_SEEDS}.")
        seeds += range(first, last + 1)
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise OptionError(f"seeds={text!r} names {', '.join(map(str, twice))} twice: a repeat needs a seed of its own.")
    return tuple(seeds)


def with_seeds(
    experiment: Experiment, seeds: Sequence[int] | None = None, *, vary_split: bool = False
) -> list[Experiment]:
    """Return the experiment once for each seed: the given seeds, else `repeat` seeds that start at its own.

    The seed of model and training varies. The split stays that of `data.seed` (or of the experiment's own seed), so
    that all are tested on the same images; with `vary_split` each seed splits anew.
    """
    if seeds is None:
        seeds = range(experiment.seed, experiment.seed + experiment.repeat)
    if len(seeds) == 1 and seeds[0] == experiment.seed:
        return [replace(experiment, repeat=1)]
    split = experiment.seed if experiment.data.seed is None else experiment.data.seed
    logger.info(
        "%d seeds (%s): model and training vary; the split %s",
        len(seeds),
        ", ".join(map(str, seeds)),
        "varies with them, so the runs are tested on different images"
        if vary_split
        else f"stays that of seed {split}, so the spread is that of training, not of other images",
    )
    return [
        replace(
            experiment,
            seed=seed,
            repeat=1,
            data=replace(experiment.data, seed=seed if vary_split else split),
            model={**experiment.model, **({"seed": seed} if "seed" in experiment.model else {})},
        )
        for seed in seeds
    ]


def run_many(
    experiments: Sequence[Experiment],
    *,
    rerun: bool = False,
    after: "Callable[[Experiment, Run | None, str | None], None] | None" = None,
) -> "list[Run]":
    """Run experiments one after another and return the finished runs; one with `repeat` runs with several seeds.

    All are built, so checked, before the first is trained: those that differ in nothing but their seed once. One that
    is on record as finished is not trained again, unless `rerun`. One that fails leaves its error in its record and in
    the log, and the next is run. The end says what failed, and sums up runs that differ in nothing but their seed.
    `after` hears of each one as it ends, with its run or its error.

    Raises:
        InputError: An experiment that cannot work, before any is trained.
    """
    every = [one for experiment in experiments for one in with_seeds(experiment)]
    components = ComponentCache()  # for these checks; each run then loads its own
    for experiment in {_without_seed(one): one for one in reversed(every)}.values():
        build(experiment, components)
    del components
    finished: list[Run] = []
    failed: list[str] = []
    for place, experiment in enumerate(every, start=1):
        what = f"{place} of {len(every)}, {experiment.name or experiment.model['name']}, seed {experiment.seed}"
        tried = attempt(f"Run {what}", partial(_run_unless_finished, experiment, what, rerun), expected=())
        if tried.run is not None:
            finished.append(tried.run)
        else:
            failed.append(f"{what}: {tried.error}")
        if after is not None:
            after(experiment, tried.run, None if tried.error is None else str(tried.error))
    _report_repeats(finished)
    if failed:
        logger.error("%d of %d runs failed:\n  %s", len(failed), len(every), "\n  ".join(failed))
    return finished


def _run_unless_finished(experiment: Experiment, what: str, rerun: bool) -> "Run":
    from defectlab.results.workbook import update_workbook

    model, datamodule, engine = build(experiment)
    earlier = None if rerun else engine.finished_run(model, datamodule)
    if earlier is not None:
        logger.info("Run %s: finished already, not trained again: %s", what, earlier.folder)
        if engine.fit_few(model, datamodule, earlier):
            update_workbook(earlier)
        return earlier
    logger.info("Run %s", what)
    return train_built(experiment, model, datamodule, engine)


def _without_seed(experiment: Experiment) -> str:
    """Return the settings of an experiment without its seeds, as text for comparison."""
    model = {key: value for key, value in experiment.model.items() if key != "seed"}
    return repr(replace(experiment, seed=0, data=replace(experiment.data, seed=None), model=model))


def _report_repeats(runs: "Sequence[Run]") -> None:
    """Print a summary of runs that differ only in their seed; log why other runs have no common summary."""
    from defectlab.results.comparison.repeats import summarise
    from defectlab.results.workbook_row import repeat_key
    from defectlab.visualization.terminal import repeats_table

    by_key: dict[str, dict[str, Run]] = {}
    for one in runs:
        by_key.setdefault(repeat_key(one), {})[one.record.run_id] = one
    for repeats in by_key.values():
        if len(repeats) > 1:
            repeats_table(summarise(list(repeats.values())))
    alone = [next(iter(its.values())).record.facts for its in by_key.values() if len(its) == 1]
    if len({str(facts.get("seed")) for facts in alone}) > 1:
        keys = sorted({key for facts in alone for key in facts if any(facts[key] != one.get(key) for one in alone)})
        more = ", ".join(key for key in keys if key not in ("seed", "model.seed"))
        logger.info("No common summary of %d runs: they differ in more than their seed (%s)", len(alone), more)


METRICS = ("image_AUROC", "image_AUPR", "image_F1Score", "pixel_AUROC", "pixel_AUPRO", "pixel_F1Score")
# Data options that a table's name tells at any value; a later option is told where it differs from its default, so that
# tables keep their names.
_NAMED = (
    *("root", "name", "normal_dir", "normal_test_dir", "abnormal_dir", "mask_dir", "normal_val_dir"),
    *("abnormal_val_dir", "val_mask_dir", "extensions", "train_batch_size", "eval_batch_size", "num_workers"),
    *("test_split_mode", "test_split_ratio", "val_split_mode", "val_split_ratio", "seed", "on_duplicate", "group"),
    *("n_val_good", "unknown_dir", "mask_suffix", "missing_masks", "task", "valid_area_mask", "crop_area", "augment"),
    *("passes", "tiling"),
)
HEADER = ("category", "seed", "status", *METRICS, "run", "error")


def per_category(experiment: Experiment) -> list[Experiment]:
    """Return the experiment once for each of its categories, which are folders below `data.root`.

    Raises:
        OptionError: There is no root, or folders are named, which differ between categories.
        DataError: A category that is not there.
    """
    root = experiment.data.root
    if experiment.categories is None or not root:
        raise OptionError("categories are folders below data.root: give both.")
    if experiment.data.name or any(value and key.endswith("_dir") for key, value in vars(experiment.data).items()):
        raise OptionError("With categories leave out data.name and the folders: each has a layout known by itself.")
    names = chosen_categories(experiment.categories, categories_in(paths.resolve(root)), experiment.groups)
    alone = replace(experiment, categories=None, groups={})
    return [replace(alone, data=replace(experiment.data, root=f"{root}/{name}", name=name)) for name in names]


def run_categories(experiments: Sequence[Experiment], table: Path, *, rerun: bool = False) -> "list[Run]":
    """Run experiments, one for each category and seed, as `run_many` does; rewrite the table after each one.

    The table has a row for each run, finished or failed, and last the mean over the finished runs. Runs that are
    finished already are not run again, so a crash costs one category.

    Returns:
        The finished runs.
    """
    rows: list[dict[str, object]] = []

    def add(experiment: Experiment, run: "Run | None", error: str | None) -> None:
        row: dict[str, object] = {"category": experiment.data.name, "seed": experiment.seed, "error": error}
        if run is None:
            rows.append({**row, "status": "failed"})
        else:
            rows.append({**row, **run.record.metrics, "status": "finished", "run": paths.relative(run.folder)})
        write_table(table, rows)

    finished = run_many(experiments, rerun=rerun, after=add)
    logger.info("%d of %d runs finished: %s", len(finished), len(experiments), paths.relative(table))
    return finished


def write_table(table: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows and, last, the mean of each metric over the finished rows that have the metric.

    Column `status` of the mean gives the number of rows, and separately that of each metric that some of them lack.
    """
    finished = sum(row["status"] == "finished" for row in rows)
    mean: dict[str, object] = {"category": "mean", "status": f"of {finished}"}
    for name in METRICS:
        values = [value for row in rows if isinstance(value := row.get(name), float)]
        mean[name] = sum(values) / len(values) if values else None
        if 0 < len(values) < finished:
            mean["status"] = f"{mean['status']}; {name} of {len(values)}"
    write_csv(table, HEADER, [[row.get(name) for name in HEADER] for row in [*rows, mean]])


def table_of(experiment: Experiment) -> Path:
    """Return the path of an experiment's table, named by its categories, its name or model, and its settings' hash."""
    asked = experiment.categories
    what = asked if isinstance(asked, str) else "-".join(asked or ())
    options = ((field, getattr(experiment.data, field.name)) for field in fields(experiment.data))
    named = ", ".join(f"{f.name}={value!r}" for f, value in options if f.name in _NAMED or value != f.default)
    settings = repr(replace(experiment, seed=0)).replace(repr(experiment.data), f"DataConfig({named})", 1)
    short = hashlib.sha256(settings.encode()).hexdigest()[:6]
    name = safe_name(f"{what[:40]}_{experiment.name or experiment.model['name']}_{short}")
    return paths.results_dir() / "categories" / f"{name}.csv"
