"""An experiment as data: YAML both ways, a stable identity, and `run`. Importing this loads no torch."""

import inspect
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectlab.data.manifest.options import SEVERAL_FORMS, DataOptions
from defectlab.engine.trackers import check_trackers
from defectlab.evaluation.pixel.pixel_size import check_pixel_size
from defectlab.models.registry import model_info
from defectlab.utils import paths
from defectlab.utils.annotations import check_annotated, check_section
from defectlab.utils.config_files import as_yaml, config_file, read_yaml
from defectlab.utils.validation import check_integer, check_option_names, check_types
from defectlab_runtime.errors import DataError, OptionError

if TYPE_CHECKING:
    from defectlab.backbones.backbone import Backbone
    from defectlab.data.folder import Folder
    from defectlab.engine.engine import Engine
    from defectlab.models.base import BaseDetector
    from defectlab.results.run.run import Run

logger = logging.getLogger(__name__)

SETTINGS = "experiment.yaml"


@dataclass(frozen=True)
class BackboneConfig:
    """A backbone by name.

    Attributes:
        name: resnet18, resnet50, wide_resnet50_2, efficientnet_b7, cspdarknet53 or any timm model; default is the
            model's own, which `defectlab models list` shows.
        weights: A file, `random`, or nothing: then the name is looked for in the weights folders.
        precision: `bfloat16` or `float16` runs it under autocast, faster on GPUs; nothing is float32.
    """

    name: str | None = None
    weights: str | None = None
    precision: str | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """How results are measured.

    Attributes:
        pixel_size: Grid of the pixel metrics: input (the model's own), original (each mask's own) or [height, width].
        aupimo: Whether AUPIMO is computed too, through anomalib; it takes long.
    """

    pixel_size: str | list[int] = "input"
    aupimo: bool = False


_SECTIONS: dict[str, Any] = {"data": DataOptions, "backbone": BackboneConfig, "evaluation": EvaluationConfig}


@dataclass(frozen=True)
class Experiment:
    """One training with all its settings; `data.root` and `model.name` are required.

    Attributes:
        data: The images.
        model: `name`, as `defectlab models list` shows it, and the options of its class.
        backbone: The network whose features the model uses.
        evaluation: How results are measured.
        trainer: Lightning Trainer options, such as max_epochs and accelerator.
        seed: Of split, model and training.
        name: Name of the run; default is made from the settings.
        repeat: Train so many times, with seeds from `seed` on, on one split.
        categories: Run once for each of these folders below data.root: all, a group (textures, objects, or one of
            `groups`), a name, or a list. One model for all of them: data.categories.
        groups: Named groups of categories.
        loggers: Trackers that get a copy of the run: mlflow, tensorboard, csv, wandb, comet; with options as
            {name: wandb, project: wells}.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: dict[str, Any] = field(default_factory=dict)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    seed: int = 42
    name: str | None = None
    repeat: int = 1
    loggers: list[Any] = field(default_factory=list)
    categories: str | list[str] | None = None
    groups: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.model, Mapping) or not isinstance(self.trainer, Mapping):
            raise OptionError(
                "Sections 'model' and 'trainer' must be mappings of options, such as `model: {name: padim}`."
            )
        check_section("model", self.model)
        check_section("trainer", self.trainer)
        own = [key for key in ("name", "loggers", *asdict(self.evaluation)) if key in self.trainer]
        if own:
            raise OptionError(f"trainer.{own[0]} is no option of the trainer: it stands beside it, or in `evaluation`.")
        if not self.data.root and not self.data.normal_dir:
            raise OptionError("An experiment needs data.root, the folder of the images.")
        if not self.model.get("name") or not isinstance(self.model["name"], str):
            raise OptionError("An experiment needs model.name, such as patchcore (see `defectlab models list`).")
        if self.categories is not None and self.data.categories is not None:
            raise OptionError(
                "categories trains once for each of them, data.categories trains one model on all: give one of the two."
            )
        info = model_info(self.model["name"])
        check_pixel_size(self.evaluation.pixel_size)
        check_integer("An experiment", "repeat", self.repeat, low=1)
        check_trackers(self.loggers)
        if info.backbone is None and self.backbone != BackboneConfig() and self.backbone.name != "none":
            raise OptionError(f"Model {info.name} has no backbone: leave section 'backbone' out.")
        if not isinstance(self.evaluation.aupimo, bool):
            raise OptionError(f"evaluation.aupimo must be true or false, got {self.evaluation.aupimo!r}.")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Experiment":
        """Build an experiment from plain data.

        Raises:
            OptionError: Names every key that does not exist, with the closest that does, or a value of another type.
        """
        cls.check_names(data)
        given = {key: value for key, value in data.items() if value is not None}
        cls.check_types(given)
        return cls(**{key: _SECTIONS[key](**value) if key in _SECTIONS else value for key, value in given.items()})

    @classmethod
    def check_names(cls, data: Mapping[str, Any]) -> None:
        """Check that every key of an experiment and of its sections exists.

        Raises:
            OptionError: Names every one, with the closest that does exist.
        """
        check_option_names(data, [item.name for item in fields(cls)], "An experiment")
        for key, section in _SECTIONS.items():
            values = data.get(key)
            if values is not None and not isinstance(values, Mapping):
                raise OptionError(f"{key} must be a mapping of options, got {values!r}.")
            check_option_names(values or {}, [item.name for item in fields(section)], f"Section '{key}'")

    @classmethod
    def check_types(cls, data: Mapping[str, Any]) -> None:
        """Check that every value that is given, in the sections too, is of its option's type.

        Raises:
            OptionError: The first that is not, with its path.
        """
        check_types(cls, {key: value for key, value in data.items() if key not in _SECTIONS})
        for key, section in _SECTIONS.items():
            own = (*SEVERAL_FORMS, "pixel_size")  # have checks of their own
            values = {name: value for name, value in (data.get(key) or {}).items() if name not in own}
            check_types(section, values, key)

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Experiment":
        """Read an experiment from a YAML file.

        Raises:
            InputError: No such file, no YAML, or keys that do not exist.
        """
        return cls.from_dict(read_yaml(path))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; `from_dict` makes the same experiment of it."""
        return asdict(self)

    def to_yaml(self, path: str | Path) -> Path:
        """Write the experiment, all settings spelled out."""
        path = paths.resolve(path)
        path.write_text(as_yaml(self.to_dict()), encoding="utf-8")
        return path


class ComponentCache:
    """Backbones and datamodules that several experiments share: each is loaded, and its images are checked, once."""

    def __init__(self) -> None:
        self._backbones: dict[tuple[Any, ...], Backbone] = {}
        self._datamodules: dict[str, Folder] = {}

    def backbone(self, experiment: Experiment) -> "Backbone | None":
        """Return the experiment's backbone; None for a model that has none.

        Raises:
            InputError: A name or a weights file that cannot work.
        """
        from defectlab.backbones.loading import load_backbone

        given, info = experiment.backbone, model_info(experiment.model["name"])
        if info.backbone is None:
            return None
        key = (given.name or info.backbone, given.weights, experiment.seed, given.precision)
        if key not in self._backbones:
            self._backbones[key] = load_backbone(
                key[0], weights=given.weights, seed=experiment.seed, precision=given.precision or "float32"
            )
        return self._backbones[key]

    def datamodule(self, experiment: Experiment) -> "Folder":
        """Return the experiment's datamodule; no image is read yet."""
        from defectlab.data.folder import Folder

        data = {key: value for key, value in asdict(experiment.data).items() if value is not None}
        options = {"seed": experiment.seed, **data}
        return self._datamodules.setdefault(str(sorted(options.items())), Folder(**options))


def build(experiment: Experiment, components: ComponentCache | None = None) -> "tuple[BaseDetector, Folder, Engine]":
    """Return model, datamodule and engine of an experiment; every option is checked, no image is read yet.

    With `components`, experiments share what they have in common.

    Raises:
        InputError: An option, a weights file or a layer that cannot work.
    """
    from defectlab.engine.engine import Engine
    from defectlab.engine.input_region import apply_region
    from defectlab.engine.trainer_options import check_trainer_values
    from defectlab.models.registry import model_class

    if experiment.categories is not None:
        raise OptionError("An experiment on categories is several: see defectlab.sweeps.run_many.")
    components = components or ComponentCache()
    options = {"seed": experiment.seed, **experiment.model}
    cls = model_class(options.pop("name"))
    check_annotated("model", options, inspect.signature(cls.__init__).parameters)
    check_trainer_values(experiment.trainer)
    engine = Engine(
        name=experiment.name, loggers=experiment.loggers, **asdict(experiment.evaluation), **experiment.trainer
    )
    datamodule = components.datamodule(experiment)
    backbone = components.backbone(experiment)
    given: dict[str, Any] = {} if backbone is None else {"backbone": backbone}
    model: BaseDetector = cls(**given, **options)
    apply_region(model, datamodule)
    return model, datamodule, engine


def run(experiment: Experiment, *, test: bool = True) -> "Run":
    """Train and test one experiment and return its finished run; without the test it is `fitted`.

    Raises:
        InputError: Anything that cannot work, before training starts.
    """
    root = experiment.data.root
    if root and not paths.resolve(root).is_dir():  # before the seconds that torch and anomalib take to load
        raise DataError(f"There is no folder {paths.resolve(root)} (data.root).")
    return train_built(experiment, *build(experiment), test=test)


def train_built(
    experiment: Experiment,
    model: "BaseDetector",
    datamodule: "Folder",
    engine: "Engine",
    *,
    test: bool = True,
    verbose: bool = True,
) -> "Run":
    """Train, and test unless told otherwise, what `build` has made; return its run. `verbose` prints its metrics.

    The run folder gets `experiment.yaml`, all settings spelled out: `defectlab train --config` does the same again.
    """
    from defectlab.results.run.run import Run

    engine.fit(model=model, datamodule=datamodule)
    experiment.to_yaml((model.run_folder or Path()) / SETTINGS)
    if not test and experiment.data.k_shots:
        logger.info("k_shots: the fits with a few images come with the test, which is not made now")
    if test:
        engine.test(model=model, datamodule=datamodule, verbose=verbose)
    return Run.open(model.run_folder or "")


__all__ = ["Experiment", "build", "config_file", "read_yaml", "run", "train_built"]
