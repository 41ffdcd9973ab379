"""Input region, tiling and bit depth of a model's images: set by the training data and stored in the checkpoint."""

from pathlib import Path

from defectlab.data.folder import Folder
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint import read_checkpoint_record
from defectlab.utils.errors import DataError, InputError

MAX_LISTED = 20


def apply_region(model: BaseDetector, datamodule: Folder) -> None:
    """Set a model's input region, tiling and bit depth to those of its training images.

    Raises:
        InputError: The model cannot take it.
    """
    own, bit_depth = model.preprocessing, datamodule.settings.bit_depth
    if (own.region, own.tiling, own.bit_depth) != (datamodule.region, datamodule.tiling, bit_depth):
        model.set_input_region(datamodule.region, datamodule.tiling, bit_depth)


def apply_checkpoint_region(model: BaseDetector, checkpoint: Path) -> None:
    """Set a model's input region, tiling and bit depth to those of a checkpoint that the model will load."""
    preprocessing = Preprocessing.from_dict(read_checkpoint_record(checkpoint)["preprocessing"])
    model.set_input_region(preprocessing.region, preprocessing.tiling, preprocessing.bit_depth)


def check_region(model: BaseDetector, datamodule: Folder) -> None:
    """Check that a datamodule's images have the input region of a trained model, and that the region fits each image.

    A datamodule that names no region takes the model's.

    Raises:
        InputError: It names another region than the model was trained on.
        DataError: Images that the region does not fit.
    """
    region = model.preprocessing.region
    if datamodule.region not in (None, region):
        raise InputError(
            "valid_area_mask or crop_area differ from those that the model was trained with: leave them out, the "
            "checkpoint brings its own; or train again."
        )
    if datamodule.tiling not in (None, model.preprocessing.tiling):
        raise InputError("tiling differs from that of the training: leave it out, the checkpoint brings its own.")
    if datamodule.settings.bit_depth not in (None, model.preprocessing.bit_depth):
        raise InputError("bit_depth differs from that of the training: leave it out, the checkpoint brings its own.")
    if region is None:
        return
    problems = ((entry.path, region.problem((entry.height, entry.width))) for entry in datamodule.manifest.entries)
    lines = [f"  {path}: {problem}" for path, problem in problems if problem]
    if lines:
        raise DataError(
            "The part of the image that this model looks at does not fit:\n" + "\n".join(lines[:MAX_LISTED])
        )
