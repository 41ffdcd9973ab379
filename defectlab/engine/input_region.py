"""Input region, tiling and bit depth of a model's images: set by the training data and stored in the checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from defectlab.data.folder import Folder
from defectlab.data.image_facts import ImageFacts, probe_all
from defectlab.data.manifest.bit_depth import fits
from defectlab.data.manifest.findings import format_lines
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint import read_checkpoint_record
from defectlab_runtime.errors import DataError, InputError

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

    A datamodule that names no region, tiling or bit depth takes the model's.

    Raises:
        InputError: It names another region than the model was trained on.
        DataError: Images that the region does not fit, or images to validate or test beyond the model's bit depth.
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
    manifest = datamodule.manifest
    check_values(model, [manifest.absolute(entry) for entry in manifest.entries if entry.split != "train"])
    if region is None:
        return
    problems = ((entry.path, region.problem((entry.height, entry.width))) for entry in manifest.entries)
    lines = [f"  {path}: {problem}" for path, problem in problems if problem]
    if lines:
        raise DataError(
            "The part of the image that this model looks at does not fit:\n" + "\n".join(lines[:MAX_LISTED])
        )


def check_values(model: BaseDetector, files: Sequence[Path]) -> None:
    """Check that image files can be read with the bit depth that a model was trained with.

    Raises:
        DataError: Some cannot.
    """
    depth = model.preprocessing.bit_depth
    if depth is None:
        return
    unfit = [(file, fact) for file, fact in zip(files, probe_all(files), strict=True) if not fits(fact, depth)]
    if unfit:
        title = f"The model was trained with bit_depth {depth} (values up to {2**depth - 1}), which these images exceed"
        raise DataError(
            format_lines(title, [f"{file}: {_excess(fact)}" for file, fact in unfit])
            + "\nGive images of the camera that it was trained on, or train again with a bit_depth that fits all."
        )


def _excess(fact: ImageFacts) -> str:
    return "colours of 16 bits, save them as 8-bit colour" if fact.deep_colour else f"values up to {fact.largest}"
