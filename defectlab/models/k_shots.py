"""Which fits with a few training images (`data.k_shots`) a model can make, known before any long work."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from defectlab.data.manifest.k_shots import numbers_of_images
from defectlab_runtime.errors import OptionError


@dataclass(frozen=True)
class PlannedFits:
    """The fits by number of images, draw and seed of the draw, and the numbers left out with the reason.

    `images` are those of the training split; there is one draw of so many.
    """

    images: int
    keys: tuple[tuple[int, int, int], ...]
    left_out: Mapping[str, str]


def plan_fits(model: Any, datamodule: Any) -> PlannedFits | None:
    """Return the fits that `data.k_shots` asks of a model; None where it is not given.

    Raises:
        OptionError: The model, the images or the options do not allow them.
    """
    options = getattr(datamodule, "settings", None)
    if options is None or options.k_shots is None:
        return None
    if not model.fits_once:
        raise OptionError(
            f"{model.name}: data.k_shots is for models that are fitted once, on features computed beforehand, such as "
            f"patchcore, padim and subspace. {model.name} trains by steps: each number of images would be a training "
            "of its own. Leave k_shots out, or take such a model."
        )
    if datamodule.train_augmentations is not None:
        raise OptionError("Data: k_shots fits on images as they are: leave the training augmentations out, or k_shots.")
    if getattr(model, "rotations", 1) > 1:
        raise OptionError(
            f"{model.name}: data.k_shots fits on features of images as they are, kept once for all draws: leave "
            "rotations out, or k_shots."
        )
    if model.options.get("precision", "float32") != "float32":
        raise OptionError(f"{model.name}: data.k_shots works with precision float32.")
    labels = {entry.label for entry in datamodule.manifest.split("test")}
    if not labels >= {0, 1}:
        raise OptionError(
            "Data: k_shots compares test results, and these test images are not both good and anomalous: leave it out."
        )
    images = len(datamodule.manifest.split("train"))
    possible, left_out = [], {}
    for number in numbers_of_images(options.k_shots, images):
        try:
            model.check_training_images(number)
        except OptionError as error:
            left_out[str(number)] = str(error)
        else:
            possible.append(number)
    if not possible:
        raise OptionError("Data: none of the numbers in k_shots can work. " + " ".join(left_out.values()))
    draws = {number: 1 if number == images else options.k_shot_draws for number in possible}
    keys = tuple((number, draw, datamodule.seed) for number in possible for draw in range(draws[number]))
    return PlannedFits(images, keys, left_out)
