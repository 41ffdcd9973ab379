"""The option for the grid of the pixel metrics. Imports nothing heavy: commands check it at their start."""

from collections.abc import Sequence
from typing import Any

from defectlab_runtime.errors import OptionError

PixelSize = str | list[int]


def check_pixel_size(pixel_size: Any) -> PixelSize:
    """Return the option: "input" (the model's own), "original" (each mask's own), or [height, width].

    Raises:
        OptionError: It is none of these.

    >>> check_pixel_size((256, 512))
    [256, 512]
    """
    if pixel_size in ("input", "original"):
        return str(pixel_size)
    sides = list(pixel_size) if isinstance(pixel_size, Sequence) and not isinstance(pixel_size, str) else []
    if len(sides) != 2 or any(not isinstance(side, int) or isinstance(side, bool) or side < 1 for side in sides):
        raise OptionError(
            "pixel_size must be input (the model's own size), original (each mask's own size) or [height, width] in "
            f"whole pixels, got {pixel_size!r}."
        )
    return sides
