"""Numbers of good images to fit with, and seeded draws of so many. Imports neither torch nor numpy."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from defectlab_runtime.errors import OptionError
from defectlab_runtime.image_files import nfc

ALL = "all"


def check_k_shots(values: Any) -> list[int | str]:
    """Return numbers of images in ascending order, each once, with `all` last.

    Raises:
        OptionError: No list, an empty one, or one of anything but whole numbers from 1 and `all`.

    >>> check_k_shots(["all", 4, 1, 4])
    [1, 4, 'all']
    """
    listed = values if isinstance(values, list) else []
    if not listed or not all(value == ALL or (type(value) is int and value > 0) for value in listed):
        raise OptionError(
            f"Data: k_shots must be a list of whole numbers from 1 and of {ALL}, such as [1, 2, 4, 8, 16, {ALL}], "
            f"got {values!r}."
        )
    return [*sorted({value for value in listed if value != ALL}), *[ALL] * (ALL in listed)]


def numbers_of_images(k_shots: Sequence[int | str], images: int) -> list[int]:
    """Return the numbers of `k_shots` in ascending order, each once, with `images`, those there are, for `all`.

    Raises:
        OptionError: Some are more than there are.

    >>> numbers_of_images([1, 8, "all"], 8)
    [1, 8]
    """
    numbers = sorted({images if value == ALL else int(value) for value in k_shots})
    too_many = [number for number in numbers if number > images]
    if too_many:
        raise OptionError(
            f"Data: k_shots asks for {', '.join(map(str, too_many))} good images, and there are {images} to train "
            f"with: give numbers from 1 to {images}, or {ALL}."
        )
    return numbers


def draw_order(paths: Iterable[str], seed: int, draw: int) -> list[str]:
    """Return the order in which the draw of this number takes images: k of them are the first k, so draws are nested.

    The order is that of a hash of seed, draw and path: equal on every machine, whatever other images there are.

    >>> draw_order(["a.png", "b.png", "c.png"], 42, 0), draw_order(["a.png", "b.png", "c.png"], 42, 1)
    (['a.png', 'b.png', 'c.png'], ['c.png', 'b.png', 'a.png'])
    """
    return sorted(paths, key=lambda path: hashlib.sha256(f"{seed}:k-shot draw {draw}:{nfc(path)}".encode()).hexdigest())
