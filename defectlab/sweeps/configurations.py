"""The configurations of a sweep, built and checked before any long work, and grouped by the work they share."""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defectlab.backbones.backbone import Backbone
from defectlab.data.folder import Folder
from defectlab.engine.engine import Engine
from defectlab.experiment import ComponentCache, Experiment, build
from defectlab.models.base import BaseDetector
from defectlab.models.registry import model_info
from defectlab.results.evaluate import AUPIMO
from defectlab.results.run.identity import readable_name
from defectlab.results.run.run import Run, find_runs
from defectlab.utils import paths
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

EXTRACTORS = ("feature_extractor", "encoder")  # attribute names of the feature extractor in the torch models
# Models whose configurations are prefixes of one computation, and the option that sets the length of the prefix.
PREFIX = {"patchcore": "coreset_sampling_ratio", "padim": "n_features", "subspace": "explained_variance"}
SHARED = tuple(PREFIX)
# Options with which shared work gives the results of a training, of every model and of each: an option of the same name
# may mean other work elsewhere. With other options a configuration is trained alone.
COMMON_OPTIONS = {"layers", "seed", "image_size", "center_crop", "keep_aspect", "interpolation"}
KNOWN_OPTIONS: dict[str, set[str]] = {
    "patchcore": {PREFIX["patchcore"], "num_neighbors"},
    "padim": {PREFIX["padim"]},
    "subspace": {PREFIX["subspace"], "n_components", "top_share"},
}
KNOWN_TRAINER = {
    *("accelerator", "devices", "strategy", "max_epochs", "default_root_dir", "logger", "loggers", "name"),
    *("keep_maps", "keep_checkpoint", "monitor", "patience", "keep", "deterministic", "benchmark"),
    *("enable_progress_bar", "enable_model_summary", "log_every_n_steps", "num_sanity_val_steps", "inference_mode"),
}


@dataclass
class Configuration:
    """One experiment of a sweep with the objects built for it; `run_id` is that of the same experiment run alone.

    In a search `is_placeholder` marks one that is never run but sets the size of shared work, `prefix_values`
    holds the values of its prefix option (see `PREFIX`) that others can have, and `more_layers` the layers that others
    take.
    """

    number: int
    experiment: Experiment
    model: BaseDetector
    datamodule: Folder
    engine: Engine
    backbone: Backbone | None
    run_id: str
    label: str
    is_placeholder: bool = False
    prefix_values: tuple[float, ...] = ()
    more_layers: tuple[str, ...] = ()

    @property
    def shares(self) -> bool:
        """Whether features, fit and scores of this configuration are parts of what its group computes."""
        options = {key for key, value in self.model.options.items() if (key, value) != ("precision", "float32")}
        known = COMMON_OPTIONS | KNOWN_OPTIONS.get(self.model.model_name, set())
        plain = options <= known and set(self.experiment.trainer) <= KNOWN_TRAINER
        other = self.datamodule.train_augmentations is not None or self.model.preprocessing.tiling is not None
        return self.model.model_name in SHARED and plain and not other

    @property
    def takes_features(self) -> bool:
        """Whether the configuration is trained and tested on cached features, alone or as a part of its group."""
        other = self.datamodule.train_augmentations is not None or self.model.preprocessing.tiling is not None
        return self.shares or (hasattr(self.model, "use_features") and not other)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Sum of the channels of all layers, and height and width of the first layer's feature map."""
        model = self.model.model
        shapes = model.feature_extractor.feature_shapes(self.model.preprocessing.input_size)
        _, height, width = shapes[model.layers[0]]
        return sum(shape[0] for shape in shapes.values()), height, width

    @property
    def feature_key(self) -> Hashable:
        """Key that is equal for configurations with the same datamodule, preprocessing and backbone."""
        record = self.model.backbone_record
        precision = (record["spec"] or {}).get("precision")
        return (id(self.datamodule), self.model.preprocessing.hash, record["sha256"], precision)

    @property
    def group_key(self) -> Hashable:
        """Key that is equal for configurations that share everything but the sizes of prefixes."""
        if not self.shares:
            return self.number
        options = self.model.options
        return (self.feature_key, self.model.model_name, tuple(options["layers"]), options["seed"])


@dataclass(frozen=True)
class Refused:
    """A combination of settings that cannot work, with the reason; it is never run."""

    number: int
    data: dict[str, Any]
    error: str

    @property
    def label(self) -> str:
        """Model name and model options of the combination as text."""
        model = {key: value for key, value in self.data["model"].items() if key != "name"}
        return f"{self.data['model'].get('name')} " + ", ".join(f"{key}={value}" for key, value in model.items())


def prepare(experiments: Iterable[Mapping[str, Any]]) -> tuple[list[Configuration], list[Refused]]:
    """Build every experiment, given as plain data; those that cannot work are returned with the reason.

    Raises:
        InputError: None of them can work: each reason once.
    """
    ready, refused = _build(experiments, ComponentCache(), 1)
    if not refused and not ready:
        raise InputError("The sweep has no configuration.")
    if not ready:
        reasons = _by_reason(refused)
        what = refused[0].label if len(refused) == 1 else f"None of the {len(refused)} configurations can work"
        raise InputError(f"{what}: {next(iter(reasons))}" if len(reasons) == 1 else "\n".join([f"{what}.", *reasons]))
    _log_refused(refused)
    ready, duplicates = _without_duplicates(ready)
    return ready, [*refused, *duplicates]


def build_all(
    experiments: Iterable[Mapping[str, Any]], components: ComponentCache, first: int = 1
) -> tuple[list[Configuration], list[Refused]]:
    """Build every experiment, numbered from `first` on, with the components of a cache; duplicates are not removed."""
    ready, refused = _build(experiments, components, first)
    _log_refused(refused)
    return ready, refused


def _build(
    experiments: Iterable[Mapping[str, Any]], components: ComponentCache, first: int
) -> tuple[list[Configuration], list[Refused]]:
    ready, refused = [], []
    extractors: dict[Hashable, Any] = {}
    for number, data in enumerate(experiments, start=first):
        try:
            one = _configuration(number, Experiment.from_dict(data), components)
        except InputError as error:
            refused.append(Refused(number, dict(data), str(error)))
            continue
        if one.takes_features:  # one copy of the backbone for all configurations of the same layers
            model, key = one.model.model, (one.feature_key, tuple(one.model.options["layers"]))
            name = next(name for name in EXTRACTORS if hasattr(model, name))
            setattr(model, name, extractors.setdefault(key, getattr(model, name)))
        ready.append(one)
    return ready, refused


def _by_reason(refused: Iterable[Refused]) -> dict[str, list[Refused]]:
    reasons: dict[str, list[Refused]] = {}
    for one in refused:
        reasons.setdefault(one.error, []).append(one)
    return reasons


def _log_refused(refused: Iterable[Refused]) -> None:
    for reason, ones in _by_reason(refused).items():
        numbers = ", ".join(str(one.number) for one in ones)
        what = f"Configuration {numbers}, {ones[0].label}, cannot work and is left out"
        if len(ones) > 1:
            what = f"{len(ones)} configurations cannot work and are left out ({numbers})"
        logger.warning("%s: %s", what, reason)


def _configuration(number: int, experiment: Experiment, components: ComponentCache) -> Configuration:
    root = experiment.data.root
    if root and not paths.resolve(root).is_dir():
        raise InputError(f"There is no folder {paths.resolve(root)} (data.root).")
    model, datamodule, engine = build(experiment, components)
    model.check_training(datamodule)
    run_id = engine.run_id(model, datamodule)
    epochs = experiment.trainer.get("max_epochs", model_info(model.model_name).default_epochs)
    name = experiment.name or readable_name(model.model_name, model.backbone_record["name"], model.options, epochs)
    backbone = components.backbone(experiment)
    return Configuration(number, experiment, model, datamodule, engine, backbone, run_id, f"{model.name} {name}")


def _without_duplicates(configurations: list[Configuration]) -> tuple[list[Configuration], list[Refused]]:
    """Remove configurations that are the same experiment as an earlier one, such as a default given explicitly.

    Those with the same images under another dataset's name are returned as refused, so that the result lists them.
    """
    first: dict[str, Configuration] = {}
    refused = []
    for one in configurations:
        same = first.setdefault(one.run_id, one)
        if same.datamodule.name != one.datamodule.name:
            why = (
                f"Its images and their names are those of {same.datamodule.name}, so that it is the same experiment as "
                f"configuration {same.number}: leave one of the two folders out."
            )
            logger.warning("%s on %s: %s", one.label, one.datamodule.name, why)
            refused.append(Refused(one.number, one.experiment.to_dict(), why))
        elif same is not one:
            logger.info("Configuration %d is the same experiment as %d (%s)", one.number, same.number, same.label)
    return list(first.values()), refused


def groups_of(configurations: Iterable[Configuration]) -> list[list[Configuration]]:
    """Return the configurations in groups that share work, ordered by the first configuration of each group."""
    groups: dict[Hashable, list[Configuration]] = {}
    for one in configurations:
        groups.setdefault(one.group_key, []).append(one)
    return list(groups.values())


def largest_of(group: Sequence[Configuration]) -> Configuration:
    """Return the configuration with the longest prefix, which contains the prefixes of all others of the group."""
    return max(group, key=lambda one: one.model.options[PREFIX[one.model.model_name]])


def pending_groups(
    configurations: Iterable[Configuration], pending: Iterable[Configuration]
) -> list[tuple[list[Configuration], list[Configuration]]]:
    """Return every group of configurations that share work, each with the members that are to be run."""
    waiting = {one.run_id for one in pending}
    return [
        (group, [one for one in group if one.run_id in waiting and not one.is_placeholder])
        for group in groups_of(configurations)
    ]


class RunIndex:
    """Index of recorded runs by run id; each results folder is read once, and runs that end later are added.

    Args:
        dtype: The precision of cached features that is asked for; see `satisfies`.
    """

    def __init__(self, dtype: str = "float32") -> None:
        self._dtype = dtype
        self._folders: set[Path] = set()
        self._runs: dict[str, list[Run]] = {}

    def add(self, run: Run) -> None:
        """Add a run to the index."""
        self._runs.setdefault(run.record.run_id, []).append(run)

    def runs_of(self, configurations: Iterable[Configuration]) -> dict[str, Run]:
        """Return, by run id, a recorded run that satisfies each experiment: a finished one if any, else the last."""
        wanted = {one.run_id: one for one in configurations}
        for folder in sorted({one.engine.results_folder for one in wanted.values()} - self._folders):
            self._folders.add(folder)
            for run in find_runs(folder):
                self.add(run)
        found = {}
        for run_id, one in wanted.items():
            runs = [run for run in self._runs.get(run_id, ()) if satisfies(run, one, self._dtype)]
            if runs:
                found[run_id] = next((run for run in runs if run.status == "finished"), runs[-1])
        return found


def earlier_runs(configurations: Iterable[Configuration], dtype: str = "float32") -> dict[str, Run]:
    """Return the recorded runs of these experiments, by run id; see `RunIndex`."""
    return RunIndex(dtype).runs_of(configurations)


def satisfies(run: Run, one: Configuration, dtype: str) -> bool:
    """Whether a run of the same experiment has everything that the configuration requests.

    Features rounded more than `dtype` rounds them change the numbers; AUPIMO is no part of an experiment's identity.
    """
    lacks_aupimo = one.experiment.evaluation.aupimo and run.status == "finished" and AUPIMO not in run.record.metrics
    return run.features_dtype in ("float32", dtype) and not lacks_aupimo
