"""Options for augmentations of training images by name and strength. Does not use torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from defectlab.utils.validation import check_option_names, check_range
from defectlab_runtime.errors import OptionError

# name -> usual strength, largest, what it means
AUGMENTATIONS: dict[str, tuple[float, float, str]] = {
    "hflip": (0.5, 1.0, "probability of a mirror image, left and right"),
    "vflip": (0.5, 1.0, "probability of a mirror image, top and bottom"),
    "quarter_turns": (0.75, 1.0, "probability of 90, 180 or 270 degrees"),
    "rotate": (5.0, 180.0, "most degrees"),
    "shift": (0.02, 0.5, "largest share of width and of height"),
    "zoom": (0.05, 0.5, "largest share, in or out"),
    "brightness": (0.1, 1.0, "largest change of the factor 1"),
    "contrast": (0.1, 1.0, "largest change of the factor 1"),
    "blur": (1.0, 20.0, "largest sigma in pixels of the image"),
    "noise": (0.02, 1.0, "largest standard deviation, white being 1"),
}

Augment = Mapping[str, Any] | Sequence[str] | str


def check_augment(augment: Augment) -> dict[str, float]:
    """Validate the requested augmentations and return their strengths by name, in the order of application.

    Args:
        augment: Names and strengths, or names alone (the usual strengths); see `AUGMENTATIONS`.

    Raises:
        OptionError: A name that does not exist, a strength that cannot work, or nothing at all.
    """
    names = [augment] if isinstance(augment, str) else augment
    if not isinstance(names, Mapping | Sequence) or not all(isinstance(name, str) for name in names):
        raise OptionError(f"augment must be names with strengths such as {{hflip: 0.5}}, got {augment!r}.")
    given: dict[str, Any] = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, None)
    check_option_names(given, AUGMENTATIONS, "augment")
    strengths: dict[str, float] = {}
    for name, (usual, largest, _) in AUGMENTATIONS.items():
        if name in given:
            strength = usual if given[name] is None else given[name]
            check_range("augment", name, strength, low=0, high=largest, open_low=True)
            strengths[name] = float(strength)
    if not strengths:
        raise OptionError(f"augment names nothing; there are {', '.join(AUGMENTATIONS)}.")
    return strengths
