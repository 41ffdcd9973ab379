"""What a run's record says about model, data and machine."""

import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from defectlab import __version__, paths
from defectlab.data.folder import Folder
from defectlab.errors import InputError
from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint import read_record
from defectlab.results.identity import experiment_facts, readable_name
from defectlab.results.record import CHECKPOINT, Run

logger = logging.getLogger(__name__)

_QUIET = {"enable_model_summary", "enable_progress_bar"}


def start_run(
    model: BaseDetector, datamodule: Folder, trainer_options: Mapping[str, Any], name: str | None, results: Path
) -> Run:
    """Begin the record of one experiment: `running`, with everything known before it starts."""
    manifest = datamodule.manifest
    record: dict[str, Any] = model.backbone_record
    experiment = {
        "name": name,
        "seed": model.seed,
        "data": datamodule.options,
        "backbone": {"name": record["name"], "weights": record["source"]},
        "model": {"name": model.model_name, **model.options},
        "evaluation": {"pixel_size": "input"},
        "trainer": {key: _plain(value) for key, value in trainer_options.items() if key not in _QUIET},
    }
    facts = experiment_facts(experiment, manifest.hash, record["sha256"])
    facts["model.preprocessing"] = model.preprocessing.hash
    run = Run.start(
        results,
        model.name,
        datamodule.name,
        name or readable_name(model.model_name, record["name"], model.options, trainer_options.get("max_epochs")),
        facts,
        {
            "experiment": experiment,
            "dataset": dataset_record(datamodule),
            "backbone": record,
            "preprocessing": model.preprocessing.to_dict() | {"hash": model.preprocessing.hash},
            "metrics": {},
            "thresholds": {},
            "timings": {},
            "environment": environment("unknown"),
            "checkpoint": CHECKPOINT,
        },
    )
    manifest.write(run.folder / "manifest.json")
    logger.info("Run %s: %s", run.record["run_id"], run.folder)
    return run


def dataset_record(datamodule: Folder) -> dict[str, Any]:
    """Return name, counts, manifest hash and protocol, as run.json holds them."""
    manifest = datamodule.manifest
    return {
        "name": datamodule.name,
        "root": paths.relative(manifest.root),
        "counts": manifest.counts(),
        "manifest": manifest.hash,
        "has_masks": manifest.has_masks,
        "protocol": asdict(manifest.protocol),
    }


def environment(device: str) -> dict[str, Any]:
    """Return versions, device and threads."""
    packages = ("anomalib", "torch", "torchvision", "lightning", "timm")
    return {
        "defectlab": __version__,
        **{package: version(package) for package in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
    }


def check_same_model(model: BaseDetector, checkpoint: Path) -> None:
    """Refuse a checkpoint of another model, other layers or another backbone, before its tensors are loaded.

    Raises:
        InputError: Names every difference.
    """
    record = read_record(checkpoint)
    differences = (
        [] if record["model"] == model.model_name else [f"model: {record['model']} there, {model.model_name} here"]
    )
    for option in ("layers", "n_features", "coupling_blocks", "condition_vector", "image_size", "center_crop"):
        there, here = record["options"].get(option), model.options.get(option)
        if there != here:
            differences.append(f"{option}: {there} there, {here} here")
    there, here = record["backbone"]["spec"]["architecture"], model.backbone_record["spec"]["architecture"]
    if there != here:
        differences.append(f"backbone: {there} there, {here} here")
    if differences:
        raise InputError(
            f"{checkpoint} does not fit the model given ({'; '.join(differences)}). Build the model with the "
            "checkpoint's settings, or leave model out: the checkpoint builds its own."
        )


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | dict | None) else repr(value)
