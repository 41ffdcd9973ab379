"""The settings of a sweep as data: one base experiment and the options that are varied. Imports no torch."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from defectlab.backbones.feature_cache.store import DTYPES
from defectlab.data.manifest.categories import categories_in, chosen_categories, named_groups
from defectlab.engine.trackers import check_trackers
from defectlab.experiment import Experiment
from defectlab.models.registry import MODELS, model_info
from defectlab.results.run.identity import safe_name
from defectlab.sweeps.run_many import parse_seeds
from defectlab.sweeps.search_config import SearchConfig
from defectlab.sweeps.search_space import Choices, Options, expand, options_of, space_size
from defectlab.utils import paths
from defectlab.utils.config_files import config_file, read_yaml
from defectlab.utils.validation import check_option_names, check_range, check_types
from defectlab_runtime.errors import OptionError, unknown_name

logger = logging.getLogger(__name__)

MAX_CONFIGURATIONS = 100_000  # of a grid, whose configurations are all made before the first is trained
CHECKPOINTS = ("none", "best", "all")
SECTIONS = ("data", "backbone", "model", "evaluation", "trainer")
SWEEP_KEYS = (
    *("name", "grid", "search", "ray", "datasets", "groups", "seeds", "vary_split"),
    *("cache_gb", "cache_dtype", "checkpoints", "loggers"),
)


@dataclass(frozen=True)
class SweepConfig:
    """Settings of a sweep: those that all its experiments share, and those that vary.

    Attributes:
        name: Names the sweep's folder, `results/sweeps/<name>/`.
        base: Sections of an experiment, as in a file for `train`.
        grid: One mapping of dotted options for each model or family of settings, so that options of one model stand in
            its own mapping only.
        datasets: `{root: FOLDER, categories: all | a group | a name | a list}`: datasets side by side in one folder.
        groups: Named groups of categories, beside `textures` and `objects` of MVTec AD.
        seeds: Seeds of model and training; every configuration is run with each.
        vary_split: Whether each seed also splits anew.
        cache_gb: Size limit of the cache of features.
        cache_dtype: float32, or float16 for half the space: every feature rounded by up to 0.05 %.
        checkpoints: none, best (of each dataset, on its validation images) or all; None keeps all where they take at
            most 2 GB, else the best.
        search: Draw trials from the grid instead of running all of it.
        ray: Options of executor ray, as `RayConfig` has them.
        loggers: Trackers that get a copy of every run, as an experiment names them.
    """

    name: str = "sweep"
    base: dict[str, Any] = field(default_factory=dict)
    grid: tuple[dict[str, Options], ...] = ({},)
    datasets: dict[str, Any] | None = None
    groups: dict[str, list[str]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (42,)
    vary_split: bool = False
    cache_gb: float = 20.0
    cache_dtype: str = "float32"
    checkpoints: str | None = None
    search: SearchConfig | None = None
    ray: dict[str, Any] = field(default_factory=dict)
    loggers: list[Any] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], name: str = "sweep") -> "SweepConfig":
        """Build a sweep from plain data: sections of an experiment (`data`, `model`, ...) and the sweep's own keys.

        Raises:
            OptionError: Names every key that does not exist, with the closest that does.
        """
        check_option_names(data, [*SECTIONS, "seed", *SWEEP_KEYS], "A sweep")
        Experiment.check_names({key: data.get(key) for key in SECTIONS})
        Experiment.check_types({key: data[key] for key in SECTIONS if data.get(key)})
        base = {key: dict(data[key]) for key in SECTIONS if data.get(key)}
        own = {key: data[key] for key in SWEEP_KEYS if data.get(key) is not None}
        check_types(cls, {key: value for key, value in own.items() if key not in ("name", "grid", "seeds", "search")})
        if "seed" in data and "seeds" in own:
            raise OptionError("A sweep has seed or seeds, not both.")
        search = SearchConfig.from_dict(own.pop("search")) if "search" in own else None
        seeds = own.pop("seeds", data.get("seed", 42))
        listed = seeds if isinstance(seeds, list) else [seeds]
        if not all(isinstance(one, int | str) and not isinstance(one, bool) for one in listed):
            raise OptionError(f"A sweep: seeds must be whole numbers such as [0, 1, 2] or 0..4, got {seeds!r}.")
        config = cls(
            name=safe_name(str(own.pop("name", name))),
            base=base,
            grid=_grid(own.pop("grid", [{}]), base),
            seeds=parse_seeds(",".join(map(str, listed))),
            search=search,
            **own,
        )
        config.check()
        return config

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> "SweepConfig":
        """Read a sweep from a YAML file; `overrides` by dotted name win over it, in base and grid alike.

        Raises:
            InputError: No such file, no YAML, or keys that do not exist.
        """
        return cls.from_dict(with_overrides(read_yaml(path), overrides or {}), name=config_file(path).stem)

    def check(self) -> None:
        """Check the options of the sweep.

        Raises:
            OptionError: The first that cannot work.
        """
        check_range("A sweep", "cache_gb", self.cache_gb, low=0, open_low=True)
        if not isinstance(self.vary_split, bool):
            raise OptionError(f"A sweep: vary_split must be true or false, got {self.vary_split!r}.")
        if self.cache_dtype not in DTYPES:
            raise OptionError(f"A sweep: {unknown_name('cache_dtype', str(self.cache_dtype), DTYPES)}")
        if self.checkpoints is not None and self.checkpoints not in CHECKPOINTS:
            raise OptionError(f"A sweep: {unknown_name('checkpoints', str(self.checkpoints), CHECKPOINTS)}")
        check_trackers(self.loggers)
        if self.search is None:
            for branch in self.grid:
                for options in branch.values():
                    _ = options.count  # raises for an interval, which only a search can draw from
            size = len(self.seeds) * (space_size(self.grid) or 0)
            if size > MAX_CONFIGURATIONS:
                raise OptionError(
                    f"A sweep of {size} configurations is more than can be planned ({MAX_CONFIGURATIONS}): make the "
                    "grid smaller, or draw from it with a section `search`."
                )
        if self.datasets is not None:
            check_option_names(self.datasets, ["root", "categories"], "Section 'datasets'")
            if not self.datasets.get("root"):
                raise OptionError("Section 'datasets' needs root, the folder that holds one folder for each category.")
            varied = {*(self.base.get("data") or {}), *(name for branch in self.grid for name in branch)}
            if varied & {"categories", "data.categories"}:
                raise OptionError("datasets has a run for each category, data.categories one model for all: give one.")

    def roots(self) -> dict[str, str]:
        """Return name and folder of every dataset named by `datasets`; empty if `datasets` is not given.

        Raises:
            DataError: No such folder, or a category that is not there.
        """
        if self.datasets is None:
            return {}
        there = categories_in(paths.resolve(self.datasets["root"]))
        names = chosen_categories(self.datasets.get("categories", "all"), there, self.groups)
        return {name: f"{self.datasets['root']}/{name}" for name in names}

    def named_groups(self) -> dict[str, list[str]]:
        """Return every named group of categories."""
        return named_groups(self.groups)

    def expanded(self) -> Iterator[dict[str, Any]]:
        """Yield the experiments of the grid as plain data: every dataset, seed and combination, without duplicates."""
        seen = set()
        for branch in self.grid:
            for values in expand(branch):
                for data in self.completed(values):
                    key = json.dumps(data, sort_keys=True, default=str)
                    if key not in seen:
                        seen.add(key)
                        yield data

    def completed(self, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the experiments of one combination of options: one for every dataset and seed."""
        roots = self.roots()
        for root in roots.items() if roots else [None]:
            for seed in self.seeds:
                data = {section: dict(self.base.get(section, {})) for section in SECTIONS}
                for option, value in values.items():
                    section, _, key = option.partition(".")
                    data[section][key] = value
                if root is not None:
                    data["data"] |= {"name": root[0], "root": root[1]}
                if len(self.seeds) > 1 and data["data"].get("seed") is None:
                    data["data"]["seed"] = seed if self.vary_split else self.seeds[0]
                if self.common_grid and "pixel_size" not in data["evaluation"]:
                    data["evaluation"]["pixel_size"] = self.common_grid
                yield {**data, "seed": seed, **({"loggers": self.loggers} if self.loggers else {})}

    @cached_property
    def common_grid(self) -> list[int] | None:
        """Height and width of the largest image size in the sweep if it has several; else None.

        Pixel metrics of models that see images of several sizes compare only on one grid.
        """
        own = Choices((self.base.get("model", {}).get("image_size"),))
        values: list[Any] = [size for branch in self.grid for size in branch.get("model.image_size", own).values]
        sides = [[size, size] if isinstance(size, int) else size for size in values]
        sizes = {(size[0], size[1]) for size in sides if _is_size(size)}  # the model refuses another value
        if len(sizes) < 2:
            return None
        largest = max(sizes, key=lambda size: size[0] * size[1])
        logger.info("Several image sizes: pixel metrics of all on one grid, %d x %d, the largest", *largest)
        return [largest[0], largest[1]]


def with_overrides(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sweep's plain data with options given by dotted name overridden.

    An override replaces what base and grid say of the option. Where parts of the grid name it, it is one of theirs
    alone: options of one model stay with it. Else it goes to the base, or, as choices, to every part. Of parts that
    name models, `model.name` leaves those of the models it names.
    """
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in data.items()}
    given = result.get("grid") or [{}]
    branches = [given] if isinstance(given, Mapping) else given
    if not isinstance(branches, list) or not all(isinstance(branch, Mapping) for branch in branches):
        return result  # `from_dict` raises the error
    grid = [dict(branch) for branch in branches]
    for option, value in overrides.items():
        if "." in option:
            grid = _put(option, value, result, grid)
        else:
            result[option] = value
    return {**result, "grid": grid}


def _is_size(size: Any) -> bool:
    return isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)


def _put(option: str, value: Any, base: dict[str, Any], grid: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the grid with an override applied; an override of the base changes `base` in place instead."""
    section, _, key = option.partition(".")
    if not isinstance(base.get(section) or {}, Mapping):
        raise OptionError(f"{option}={value!r} cannot go into {section}, which is no mapping: {base[section]!r}.")
    if section not in SECTIONS:  # such as datasets.categories, where a list is one value
        base[section] = {**(base.get(section) or {}), key: value}
        return grid
    meant = options_of(option, value)
    chosen = _of_models(grid, meant.values) if option == "model.name" else []
    if chosen:
        return chosen
    if any(option in branch for branch in grid):
        return [{**branch, option: value} if option in branch else branch for branch in grid]
    if isinstance(meant, Choices) and len(meant.values) == 1:
        base[section] = {**(base.get(section) or {}), key: meant.values[0]}
        return grid
    return [{**branch, option: value} for branch in grid]


def _of_models(grid: list[dict[str, Any]], names: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Return the subspaces of a grid whose `model.name` includes any of `names`, restricted to those names."""
    found = []
    for branch in (branch for branch in grid if "model.name" in branch):
        its = [name for name in options_of("model.name", branch["model.name"]).values if name in names]
        found += [{**branch, "model.name": its}] if its else []
    return found


def _grid(grid: Any, base: Mapping[str, Any]) -> tuple[dict[str, Options], ...]:
    branches = [grid] if isinstance(grid, Mapping) else grid
    if not isinstance(branches, list) or any(not isinstance(branch, Mapping) for branch in branches) or not branches:
        raise OptionError(
            "grid must be a list of mappings such as `- {model.name: padim, model.n_features: [50, 100]}`."
        )
    parsed = []
    for branch in branches:
        for option in branch:
            section, _, key = str(option).partition(".")
            if section not in SECTIONS or not key:
                raise OptionError(
                    f"grid: '{option}' is no option by its dotted name, such as model.num_neighbors. Sections are "
                    f"{', '.join(SECTIONS)}; seeds and datasets have keys of their own."
                )
            if section not in ("model", "trainer"):
                Experiment.check_names({section: {key: None}})
        options = {str(option): options_of(str(option), value) for option, value in branch.items()}
        _check_models(options.get("model.name"), base)
        parsed.append(options)
    return tuple(parsed)


def _check_models(names: Options | None, base: Mapping[str, Any]) -> None:
    given = names.values if isinstance(names, Choices) else [base.get("model", {}).get("name")]
    for name in given:
        if not name:
            raise OptionError(f"A sweep needs model.name, in `model` or in each part of the grid: {', '.join(MODELS)}.")
        model_info(str(name))
