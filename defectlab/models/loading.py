"""Rebuilding of a model from its checkpoint alone."""

from pathlib import Path
from typing import Any

from torch import nn

from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint import building_from, read_checkpoint_record, skeleton_backbone
from defectlab.models.processors import RecordedPreProcessor
from defectlab.models.registry import model_class


def restore(checkpoint_path: str | Path, backbone: nn.Module | None = None, *, verify: bool = True) -> BaseDetector:
    """Rebuild the model that a checkpoint holds, of any class, in eval mode on the CPU.

    `verify=False` does not compare the file with its digest.

    Raises:
        InputError: See `read_checkpoint_record` and `skeleton_backbone`.
    """
    record = read_checkpoint_record(checkpoint_path, verify=verify)
    with building_from(checkpoint_path, record):
        preprocessing = Preprocessing.from_dict(record["preprocessing"])
        backbone = backbone if backbone is not None else skeleton_backbone(record)
        given: dict[str, Any] = {
            **({} if backbone is None else {"backbone": backbone}),
            "pre_processor": RecordedPreProcessor(preprocessing),
            **{"image_size": None, "center_crop": None, "keep_aspect": False},  # the pre-processor has them
        }
        return model_class(record["model"]).load_from_checkpoint(checkpoint_path, verify=verify, **given).eval()
