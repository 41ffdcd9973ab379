"""A checkpoint's own copy of the thresholds, which decides where the file is used without its run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from defectlab.backbones.weights_manifest import file_sha256
from defectlab.evaluation.metrics import stored_threshold
from defectlab.models.checkpoint import CHECKPOINT_KEY, read_checkpoint, read_checkpoint_record, write_checkpoint
from defectlab.results.run.result_records import Thresholds
from defectlab.utils.files import replacing

IDENTITY = "trained_sha256"


def weights_identity(checkpoint: Path) -> str:
    """Return the sha256 of a checkpoint file as the training wrote it, whatever thresholds were set in it since."""
    record = read_checkpoint_record(checkpoint)
    return str(record.get(IDENTITY) or file_sha256(checkpoint))


def stored_thresholds(thresholds: Thresholds) -> dict[str, Any]:
    """Return the thresholds as a checkpoint's record has them: by level, float32 values that decide alike.

    Those of categories, where one model serves several, follow by name.
    """
    values = {level: one.value for level, one in thresholds.by_level.items()}
    stored: dict[str, Any] = {
        level: None if value is None else stored_threshold(value) for level, value in values.items()
    }
    if thresholds.categories:
        stored["categories"] = {name: stored_thresholds(one) for name, one in thresholds.categories.items()}
    return stored


def is_current(record: Mapping[str, Any], thresholds: Thresholds) -> bool:
    """Return whether the record of a checkpoint has these thresholds."""
    return bool(record["thresholds"] == stored_thresholds(thresholds))


@contextmanager
def rewritten(checkpoint: Path, thresholds: Thresholds) -> Iterator[None]:
    """Write a copy of a checkpoint with these thresholds; it takes the file's place if the block ends without an error.

    Everything but the thresholds stays as it is: weights, ranges of the validation scores, state of the optimiser.

    Raises:
        InputError: The file is no checkpoint of DefectLab.
        OSError, RuntimeError: It cannot be written.
    """
    if is_current(read_checkpoint_record(checkpoint), thresholds):
        yield
        return
    with replacing(checkpoint) as partial:
        _write_copy(checkpoint, partial, thresholds)
        yield


def _write_copy(checkpoint: Path, target: Path, thresholds: Thresholds) -> None:
    identity = weights_identity(checkpoint)
    content = read_checkpoint(checkpoint)
    for level, one in thresholds.by_level.items():
        buffer = f"post_processor._{level}_threshold"
        if buffer in content["state_dict"]:  # not with post_processor=False
            old = content["state_dict"][buffer]
            content["state_dict"][buffer] = torch.full_like(old, stored_threshold(one.value))
    changed = {"thresholds": stored_thresholds(thresholds), IDENTITY: identity}
    content[CHECKPOINT_KEY] = content[CHECKPOINT_KEY] | changed
    write_checkpoint(content, target)
