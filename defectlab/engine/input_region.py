"""What part of the images a model looks at, and in which tiles: taken from the data it trains on, kept ever after."""

from pathlib import Path

from defectlab.data.folder import Folder
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint import read_record
from defectlab.utils.errors import DataError, InputError

SHOWN = 20


def follow_data(model: BaseDetector, datamodule: Folder) -> None:
    """Let a model that is about to train look at the part of the images that the datamodule names.

    Raises:
        InputError: The part cannot be read.
    """
    if (model.preprocessing.area, model.preprocessing.tiling) != (datamodule.area, datamodule.tiling):
        model.look_at(datamodule.area, datamodule.tiling)


def follow_checkpoint(model: BaseDetector, checkpoint: Path) -> None:
    """Let a model that is about to load a checkpoint look at what the checkpoint's did."""
    seen = Preprocessing.from_dict(read_record(checkpoint)["preprocessing"])
    model.look_at(seen.area, seen.tiling)


def check_follows(model: BaseDetector, datamodule: Folder) -> None:
    """Refuse images that a trained model cannot look at as it did in training.

    A datamodule that names no part of its images is looked at as the training images were.

    Raises:
        InputError: It names another part than the model was trained on.
        DataError: Images that the part does not fit.
    """
    area = model.preprocessing.area
    if datamodule.area not in (None, area):
        raise InputError(
            "valid_area_mask or crop_area differ from those that the model was trained with: leave them out, the "
            "checkpoint brings its own; or train again."
        )
    if datamodule.tiling not in (None, model.preprocessing.tiling):
        raise InputError("tiling differs from that of the training: leave it out, the checkpoint brings its own.")
    if area is None:
        return
    sizes = ((entry.path, area.problem((entry.height, entry.width))) for entry in datamodule.manifest.entries)
    lines = [f"  {path}: {why}" for path, why in sizes if why]
    if lines:
        raise DataError("The part of the image that this model looks at does not fit:\n" + "\n".join(lines[:SHOWN]))
