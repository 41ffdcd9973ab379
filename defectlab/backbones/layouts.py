"""Where a feature map has its channels: second, as convolutions give them, or last, as many transformers do."""

from typing import Any

from defectlab_runtime.errors import OptionError

Shape = tuple[int, int, int]


def is_channels_last(layer: str, shape: Shape, other: Shape, output_fmt: Any = None) -> bool:
    """Return whether a layer gives (B, h, w, C), from its shape on a square image and on a wider and higher one.

    The axis that stays as it is holds the channels. Where the size changes nothing (a network for one size, a pooled
    map), the network's own `output_fmt` (timm's "NCHW" or "NHWC") decides, else the two equal sides of a square.

    Args:
        layer: Its name, for the error.
        shape: Without the batch, on a square image.
        other: On an image that is higher, and wider still; `shape` again if the network takes no such image.
        output_fmt: What the network says of its outputs.

    Raises:
        OptionError: It cannot be known.

    >>> is_channels_last("a", (96, 8, 8), (96, 10, 14)), is_channels_last("a", (8, 8, 96), (10, 14, 96))
    (False, True)
    """
    follows = tuple(one != two for one, two in zip(shape, other, strict=True))
    first, middle, last = shape
    if follows == (False, True, True):
        return False
    if follows == (True, True, False):
        return True
    if not any(follows):
        if output_fmt in ("NCHW", "NHWC"):
            return bool(output_fmt == "NHWC")
        if middle == last and (first != middle or middle == 1):
            return False
        if first == middle != last:
            return True
    raise OptionError(
        f"Layer '{layer}' gives (B, {first}, {middle}, {last}) on a square image and (B, {', '.join(map(str, other))}) "
        "on a larger one: which of these are its channels cannot be known. Take another layer."
    )
