"""The range of the values in 16-bit files, which cameras of 8 to 14 bits do not fill. Does not use torch."""

from collections.abc import Iterable, Mapping

from defectlab.data.image_facts import ImageFacts
from defectlab.data.manifest.findings import Findings
from defectlab_runtime.image_decoding import RANGE_16_BIT

DEPTHS = (8, 10, 12, 14)  # of cameras that write 16-bit files
FAR_BELOW = 2**14  # a largest value below a quarter of the range


def unused_range(facts: Iterable[ImageFacts]) -> str | None:
    """Return a sentence about 16-bit images whose largest value is far below their range; None if there are none."""
    deep = [fact for fact in facts if fact.largest is not None]
    largest = max((fact.largest or 0 for fact in deep), default=0)
    if not 0 < largest < FAR_BELOW:
        return None
    bits = next(depth for depth in DEPTHS if largest < 2**depth)
    fix = f"if the camera gives {bits} bits, say bit_depth: {bits}"
    if any(fact.deep_colour for fact in deep):
        fix = "colours of 16 bits keep their upper 8 only: save such images as 8-bit colour or 16-bit grey"
    return (
        f"{len(deep)} images of 16 bits have no value above {largest}, so that they are nearly black (at most "
        f"{largest / RANGE_16_BIT:.2g} of 1): {fix}"
    )


def fits(fact: ImageFacts, bit_depth: int | None) -> bool:
    """Return whether an image can be read with `bit_depth`."""
    return bit_depth is None or fact.largest is None or (not fact.deep_colour and fact.largest < 2**bit_depth)


def check_bit_depth(images: Mapping[str, ImageFacts], bit_depth: int | None, findings: Findings) -> None:
    """Warn of 16-bit images that use little of their range, and report those that do not fit `bit_depth`."""
    deep = {path: fact for path, fact in images.items() if fact.largest is not None}
    if bit_depth is None:
        if sentence := unused_range(deep.values()):
            findings.warn("The range of 16-bit images", [sentence])
        return
    top = 2**bit_depth - 1
    colours = [path for path, fact in deep.items() if fact.deep_colour]
    findings.problem(
        "Colour images of 16 bits, of which the upper 8 alone can be read: save them as 8-bit colour or 16-bit grey, "
        "or leave bit_depth out",
        colours,
    )
    over = [path for path, fact in deep.items() if not fact.deep_colour and not fits(fact, bit_depth)]
    findings.problem(
        f"Images with values above {top}, the largest of bit_depth {bit_depth}",
        [f"{path}: {deep[path].largest}" for path in over],
    )
    findings.choose(
        f"{len(deep)} images of 16 bits are divided by {top} (bit_depth)."
        if deep
        else f"bit_depth {bit_depth} changes nothing: no image has more than 8 bits."
    )
