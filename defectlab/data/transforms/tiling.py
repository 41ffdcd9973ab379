"""Options for evaluating large images tile by tile. Does not use torch."""

from collections.abc import Mapping
from typing import Any

from defectlab.utils.validation import check_integer, check_option_names, check_range
from defectlab_runtime.errors import OptionError
from defectlab_runtime.tiling import Tiling


def tiling_option(given: Mapping[str, Any] | Tiling | None) -> Tiling | None:
    """Return the tiling given by a user's options; None if no tiling is given.

    Raises:
        OptionError: Names what cannot work.
    """
    if given is None or isinstance(given, Tiling):
        return given
    if not isinstance(given, Mapping):
        raise OptionError(f"tiling must be options such as {{image_size: [1024, 1024]}}, got {given!r}.")
    check_option_names(given, ("image_size", "overlap", "random_tiles"), "tiling")
    size, overlap, random_tiles = given.get("image_size"), given.get("overlap", 0.25), given.get("random_tiles")
    sides = [size, size] if isinstance(size, int) else list(size) if isinstance(size, list | tuple) else []
    if len(sides) != 2:
        raise OptionError(f"tiling: image_size must be the whole image's [height, width] in pixels, got {size!r}.")
    for side in sides:
        check_integer("tiling", "image_size", side, low=1)
    check_range("tiling", "overlap", overlap, low=0, high=0.9)
    if random_tiles is not None:
        check_integer("tiling", "random_tiles", random_tiles, low=1)
    return Tiling((sides[0], sides[1]), float(overlap), random_tiles)
