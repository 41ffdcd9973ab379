"""Functions that read the record of the model in a checkpoint without building the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from anomalib.utils.serialization import anomalib_safe_globals

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.registry import BackboneSpec, build
from defectlab.backbones.weights import WeightsInfo
from defectlab.utils.errors import InputError

CHECKPOINT_KEY = "defectlab"
CHECKPOINT_FORMAT = 1


def read_checkpoint_record(checkpoint_path: str | Path) -> dict[str, Any]:
    """Return the record of the model in a checkpoint, without building the model.

    Raises:
        InputError: The file is missing, unreadable or not written by DefectLab.
    """
    path = Path(checkpoint_path)
    if not path.is_file():
        raise InputError(f"There is no checkpoint at {path}. Give the path of a model.ckpt or of a run folder.")
    try:
        with anomalib_safe_globals():
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a checkpoint with weights_only=True ({type(error).__name__}: "
            f"{_first_line(error)}). It may be damaged, or written by plain anomalib with a live module inside: "
            "train it again with defectlab."
        ) from error
    record = checkpoint.get(CHECKPOINT_KEY) if isinstance(checkpoint, dict) else None
    if not record:
        raise InputError(
            f"{path} was not written by DefectLab: it has no '{CHECKPOINT_KEY}' record. Load it with anomalib."
        )
    if record["format"] > CHECKPOINT_FORMAT:
        raise InputError(f"{path} was written by DefectLab {record['version']}, newer than this one; update defectlab.")
    return record | {"epoch": checkpoint.get("epoch")}


def skeleton_backbone(record: Mapping[str, Any]) -> Backbone | None:
    """Return the backbone of a checkpoint's record, untrained: the checkpoint's tensors fill it. None: it has none.

    Raises:
        InputError: The backbone is of unknown code.
    """
    backbone = record["backbone"]
    if backbone["spec"] is None:
        return None
    spec = BackboneSpec.from_dict(backbone["spec"])
    if spec.library == "unknown":
        raise InputError(
            f"This model was trained with a backbone of unknown code ({spec.name}), which a checkpoint cannot rebuild: "
            "pass the same module as backbone=..."
        )
    weights = WeightsInfo(source=backbone["source"], path=None, sha256=backbone["sha256"], kind=backbone["kind"])
    return Backbone(build(spec), spec, weights)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else ""
