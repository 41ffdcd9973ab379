"""Checks that a checkpoint fits the model and the training that are to use it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint import read_checkpoint, read_checkpoint_record
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError

# Options that influenced the training but not the score of an image by given weights.
TRAINING_OPTIONS = {
    *("seed", "coreset_sampling_ratio", "fiber_batch_size", "lr", "momentum", "weight_decay", "decoder"),
    *("dtd_dir", "sspcab_lambda", "beta", "imagenet_dir", "teacher", "eps", "bank_sampling"),
    *("threshold_k", "explained_variance", "n_components", "rotations"),
}
REGION_OPTIONS = {"area", "tiling"}  # set by the images of the training, and taken over from the checkpoint


def run_of_weights(model: BaseDetector, checkpoint: Path | None) -> Run | None:
    """Return the run that produced the weights of the checkpoint or, without a checkpoint, of the model."""
    if checkpoint is None:
        folder = model.run_folder
        return Run.open(folder) if folder and (folder / "run.json").is_file() else None
    run = Run.of_checkpoint(checkpoint)
    return run if run is not None and run.checkpoint.resolve() == checkpoint.resolve() else None


def check_same_model(model: BaseDetector, checkpoint: Path) -> None:
    """Check, before tensors are loaded, that a checkpoint has the model's class, layers, options and backbone.

    Raises:
        InputError: Names every difference.
    """
    record = read_checkpoint_record(checkpoint)
    differences = (
        [] if record["model"] == model.model_name else [f"model: {record['model']} there, {model.model_name} here"]
    )
    for theirs, ours in ((record["options"], model.options), (record["preprocessing"], model.preprocessing.to_dict())):
        differences += [
            f"{option}: {theirs.get(option)} there, {ours.get(option)} here"
            for option in sorted({*theirs, *ours} - TRAINING_OPTIONS - REGION_OPTIONS)
            if theirs.get(option) != ours.get(option)
        ]
    there, here = _architecture(record["backbone"]), _architecture(model.backbone_record)
    if there != here:
        differences.append(f"backbone: {there} there, {here} here")
    if differences:
        raise InputError(
            f"{checkpoint} does not fit the model given ({'; '.join(differences)}). Build the model with the "
            "checkpoint's settings, or leave model out: the checkpoint builds its own."
        )


def check_resumable(checkpoint: Path) -> None:
    """Check that a checkpoint has the optimiser's state, without which a training cannot be continued.

    Raises:
        InputError: With the option that stores it.
    """
    if "optimizer_states" not in read_checkpoint(checkpoint):
        raise InputError(
            f"{checkpoint} has weights without the optimiser's state, so no training can go on from it. "
            "Train with Engine(keep_checkpoint='all') to keep that state."
        )


def _architecture(backbone: Mapping[str, Any]) -> str:
    return backbone["spec"]["architecture"] if backbone["spec"] else "none"
