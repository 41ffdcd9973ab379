"""Checks of options that several models share."""

from collections.abc import Sequence

from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.kernels.maps import border_size
from defectlab_runtime.errors import OptionError

BLUR_SIGMA = 4  # radius in pixels of the blur of anomaly maps


def check_layers(model: str, layers: Sequence[str]) -> list[str]:
    """Return the layers as a list.

    Raises:
        OptionError: No layer, or a plain string.
    """
    if isinstance(layers, str) or not layers:
        raise OptionError(
            f"{model}: layers must be a list of layer names such as ['layer2', 'layer3'], got {layers!r}."
        )
    return list(layers)


def check_map_size(model: str, input_size: tuple[int, int]) -> None:
    """Check that an input size is large enough for the blur of the maps.

    Raises:
        OptionError: With the smallest size that works.
    """
    least = border_size(BLUR_SIGMA) + 1
    if min(input_size) < least:
        raise OptionError(
            f"{model}: the model's input of {input_size} is too small for its maps: at least {least} pixels."
        )


def check_unnormalised(model: str, preprocessing: Preprocessing) -> None:
    """Check that a pre-processor does not normalise, for a model that takes images in [0, 1].

    Raises:
        OptionError: With its mean and std.
    """
    if preprocessing.mean != (0.0, 0.0, 0.0) or preprocessing.std != (1.0, 1.0, 1.0):
        raise OptionError(
            f"{model} takes images in [0, 1], and this pre-processor normalises them (mean {preprocessing.mean}, "
            f"std {preprocessing.std}): leave Normalize out of the pre-processor."
        )
