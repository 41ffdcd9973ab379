"""The start of a run's record: facts on model, data and machine that are known before anything is computed."""

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from defectlab.backbones.backbone import weights_sha256
from defectlab.data.folder import Folder
from defectlab.data.manifest.manifest import Manifest
from defectlab.evaluation.pixel.pixel_size import PixelSize
from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint_thresholds import weights_identity
from defectlab.models.tiled import BY_FEATURES, BY_IMAGES
from defectlab.results.model_names import class_name
from defectlab.results.pixel_grid import pixel_size_of
from defectlab.results.run.identity import experiment_facts, readable_name
from defectlab.results.run.location import CHECKPOINT
from defectlab.results.run.run import Run
from defectlab.results.run.setup_records import AdditionRecord
from defectlab.utils import paths
from defectlab.utils.git import git_state
from defectlab.utils.version import __version__
from defectlab_runtime.errors import OptionError

logger = logging.getLogger(__name__)

DISPLAY_OPTIONS = {"enable_model_summary", "enable_progress_bar"}  # of the trainer; they change no result


@dataclass(frozen=True)
class RunOptions:
    """Options of an engine for all its runs: the results folder, and the options of `Engine` with the same names."""

    results: Path
    name: str | None = None
    keep_maps: str = "all"
    pixel_size: PixelSize = "input"
    aupimo: bool = False


def start_run(
    model: BaseDetector,
    datamodule: Folder,
    trainer_options: Mapping[str, Any],
    options: RunOptions,
    weights_of: str | None = None,
) -> Run:
    """Begin the record of one experiment, with status `running` and everything known before the start.

    `weights_of` identifies given weights that this run only tests: such a run is never the same experiment as a
    training.
    """
    if options.aupimo and datamodule.manifest.categories:
        raise OptionError(
            "evaluation.aupimo and data.categories do not go together: AUPIMO's bounds are of the good images of one "
            "category. Leave aupimo out, or train on the categories one by one (`--categories`)."
        )
    paths.workbook()  # a name that no workbook can have is refused now, not after the training
    backbone: dict[str, Any] = model.backbone_record
    experiment, facts = describe_run(model, datamodule, trainer_options, options)
    name = options.name or readable_name(
        model.model_name, backbone["name"], model.options, trainer_options.get("max_epochs")
    )
    addition: AdditionRecord | None = getattr(datamodule, "addition_record", None)
    if addition is not None and not options.name:
        name += f"_added-{len(addition.images)}"
    if weights_of:
        facts["weights_of"] = weights_of
        name += f"_weights-of-{weights_of}"
    run = Run.start(
        options.results,
        name,
        facts,
        {
            "experiment": experiment,
            "dataset": dataset_record(datamodule),
            **_category_records(datamodule.manifest),
            "backbone": backbone,
            "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
            "preprocessing": model.preprocessing.to_dict() | {"hash": model.preprocessing.hash},
            "evaluation": {
                "pixel_size": options.pixel_size,
                "grid": None,
                "mask_reduction": datamodule.settings.mask_reduction,
            },
            "metrics": {},
            "thresholds": {},
            "timings": {},
            "environment": environment("unknown"),
            "git": git_state(paths.project_root()),
            "checkpoint": CHECKPOINT,
            **({"sources": dict(model.sources)} if model.sources else {}),
            **({} if model.name == class_name(model.model_name) else {"model_class": model.name}),
            **_tiling_record(model),
            **({} if addition is None or weights_of else {"addition": addition.to_dict()}),
        },
    )
    datamodule.manifest.write(run.folder / "manifest.json")
    logger.info("Run %s: %s", run.record.run_id, run.folder)
    return run


def describe_run(
    model: BaseDetector, datamodule: Folder, trainer_options: Mapping[str, Any], options: RunOptions
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the experiment as run.json stores it, and the facts from which its run id is computed."""
    backbone: dict[str, Any] = model.backbone_record
    precision = {key: value for key, value in (backbone["spec"] or {}).items() if key == "precision"}
    experiment = {
        "name": options.name,
        "seed": model.seed,
        "data": datamodule.options,
        "backbone": {"name": backbone["name"], "weights": backbone["source"]} | precision,
        "model": {"name": model.model_name, **model.options},
        "evaluation": {"pixel_size": options.pixel_size} | ({"aupimo": True} if options.aupimo else {}),
        "trainer": {key: _plain(value) for key, value in trainer_options.items() if key not in DISPLAY_OPTIONS},
    }
    facts = experiment_facts(experiment, datamodule.manifest.hash, backbone["sha256"])
    facts["model.preprocessing"] = model.preprocessing.hash
    if trainer_options.get("find_batch_size"):
        facts.pop("data.train_batch_size", None)  # known when the training begins: the experiment is to find it
    facts |= {f"model.{name}": summary for name, summary in model.sources.items()}
    addition: AdditionRecord | None = getattr(datamodule, "addition_record", None)
    if addition is not None:
        facts["added_to"] = addition.parent
    return experiment, facts


def run_to_test(
    model: BaseDetector, datamodule: Folder, checkpoint: Path | None, source: Run | None, options: RunOptions
) -> Run:
    """Return the run a test writes to: the `source` of the weights if images, grid and masks are alike, or a new."""
    trainer_options: Mapping[str, Any] = {} if source is None else source.record.experiment.trainer
    if source is None:
        logger.info("These weights belong to no run on record: this test becomes a run of its own")
        weights = weights_identity(checkpoint) if checkpoint else weights_sha256(model.model)
    elif source.record.dataset.manifest != datamodule.manifest.hash:
        logger.info("The images are not those of %s: this test becomes a run of its own", source.folder.name)
        _warn_of_known_images(source, datamodule)
        weights = source.record.run_id
    elif (own := pixel_size_of(source)) != options.pixel_size:
        logger.info(
            "%s measures pixels at %s, not at %s: this test becomes a run of its own",
            source.folder.name, own, options.pixel_size,
        )  # fmt: skip
        weights = source.record.run_id
    elif datamodule.manifest.has_masks and (
        (reduced := source.record.evaluation.mask_reduction) != datamodule.settings.mask_reduction
    ):
        logger.info(
            "Masks of %s came to the grid by mask_reduction %s, not %s: this test becomes a run of its own",
            source.folder.name, reduced, datamodule.settings.mask_reduction,
        )  # fmt: skip
        weights = source.record.run_id
    else:
        return source
    run = start_run(model, datamodule, trainer_options, options, weights_of=weights[:12])
    file = checkpoint or (source.checkpoint if source else None)
    run.update(checkpoint=paths.relative(file) if file else None)
    if source is not None and source.record.monitor is not None and _validate_alike(source, datamodule):
        run.update(monitor=source.record.monitor)  # these validation images chose the epoch of the weights
    return run


def _validate_alike(source: Run, datamodule: Folder) -> bool:
    """Return whether any validation image is among those of the run that the weights come from."""
    file = source.folder / "manifest.json"
    known = {entry.sha256 for entry in Manifest.read(file).split("validation")} if file.is_file() else set()
    return any(entry.sha256 in known for entry in datamodule.manifest.split("validation"))


def _warn_of_known_images(source: Run, datamodule: Folder) -> None:
    """Log a warning if test images are among those the run was trained on or chose its thresholds on."""
    file = source.folder / "manifest.json"
    if not file.is_file():
        return
    known, tested = Manifest.read(file), datamodule.manifest.split("test")
    for split, what in (("train", "was trained on"), ("validation", "chose its thresholds on")):
        hashes = {entry.sha256 for entry in known.split(split)}
        count = sum(entry.sha256 in hashes for entry in tested)
        if count:
            logger.warning(
                "%d of these %d test images are among those that %s %s: it knows them, and new images may do worse",
                count, len(tested), source.folder.name, what,
            )  # fmt: skip


def dataset_record(datamodule: Folder) -> dict[str, Any]:
    """Return the record of a dataset for run.json: name, root, counts, manifest hash and protocol.

    `without_mask` names the defects left out of the pixel metrics, and `calibration` the good validation images that
    choose nothing, as scores.csv names them.
    """
    manifest = datamodule.manifest
    return _dataset_record(manifest, datamodule.name) | {"near_duplicates": _count_near_duplicates(manifest)}


def _category_records(manifest: Manifest) -> dict[str, Any]:
    """Return the records of the categories, each as of a dataset of its own; empty for one dataset."""
    categories = [{"name": one.name, "dataset": _dataset_record(one, one.name)} for one in manifest.categories]
    return {"categories": categories} if categories else {}


def _dataset_record(manifest: Manifest, name: str) -> dict[str, Any]:
    left_out = manifest.without_mask if manifest.protocol.missing_masks == "leave_out" else ()
    held_back = [paths.relative(manifest.absolute(e)) for e in manifest.entries if not manifest.chooses(e)]
    without_mask = [paths.relative(manifest.absolute(entry)) for entry in left_out]
    return {
        "name": name,
        "root": paths.relative(manifest.root),
        "counts": manifest.counts(),
        "manifest": manifest.hash,
        "has_masks": manifest.has_masks,
        "protocol": manifest.protocol.to_dict(),
        **({"without_mask": without_mask} if without_mask else {}),
        **({"calibration": held_back} if held_back else {}),
    }


def _count_near_duplicates(manifest: Manifest) -> int | None:
    from defectlab.data.manifest.near_duplicates import count_leaks

    known = [entry for entry in manifest.entries if entry.label >= 0]
    splits, contents = {e.path: e.split for e in known}, {e.path: e.sha256 for e in known}
    return count_leaks(manifest.root, splits, contents, manifest.protocol.bit_depth)


def environment(device: str) -> dict[str, Any]:
    """Return versions of packages and Python, platform, device and number of threads for the record."""
    packages = ("anomalib", "torch", "torchvision", "lightning", "timm")
    return {
        "defectlab": __version__,
        **{package: version(package) for package in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
    }


def _tiling_record(model: BaseDetector) -> dict[str, Any]:
    """Return the positions of tiles and the rule for an image's score; empty if images are not tiled."""
    grid = model.preprocessing.grid
    if grid is None:
        return {}
    rule = BY_FEATURES if model.tiled_by == "features" else BY_IMAGES
    logger.info("Each image is %d tiles of %d x %d: %s", len(grid.places), *grid.tile, rule)
    tiles = {"tile": list(grid.tile), "rows": list(grid.rows), "columns": list(grid.columns)}
    return {"tiling": {**tiles, "image_size": list(grid.whole), "image_score": rule}}


def _plain(value: Any) -> Any:
    """Convert a value to plain data; other objects become their class name, since a repr may change between runs."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__
