"""Training images as inputs of a graph, on which NNCF measures the ranges of values for int8."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from defectlab.data.folder import Folder
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError
from defectlab_runtime.images import read_image
from defectlab_runtime.preprocessing import PreprocessingSettings

MAX_IMAGES = 300  # evenly spread over the training images


def training_inputs(run: Run, settings: PreprocessingSettings) -> Iterator[NDArray[np.float32]]:
    """Yield inputs (1, 3, H, W) of the graph made of the run's training images: never of validation or test images.

    Raises:
        InputError: The images are no longer those that the run was trained on.
    """
    training = ("passes", "train_augmentations", "val_augmentations", "test_augmentations")
    options = {key: value for key, value in run.record.experiment.data.items() if key not in training}
    manifest = Folder(**options).manifest
    if manifest.hash != run.record.dataset.manifest:
        raise InputError(
            f"The images in {run.record.dataset.root} are not those that {run.title} was trained on: int8 is "
            "calibrated on the training images. Put them back, or train the run again."
        )
    entries = manifest.split("train")
    for entry in entries[:: -(-len(entries) // MAX_IMAGES)]:
        yield settings.prepare(read_image(manifest.absolute(entry), settings.bit_depth))[None]
