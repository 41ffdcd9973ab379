"""What counts as marked in a dataset's masks, and warnings about their content. Does not use torch."""

from collections.abc import Callable, Iterable, Sequence

from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.masks import compare_sizes
from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.scan import Item
from defectlab.data.mask_content import MaskContent, MaskReading, choose_reading

MOSTLY = 0.5  # share of an image


def read_masks(items: Sequence[Item], options: DataOptions, findings: Findings) -> dict[str, object] | None:
    """Decide what all masks of a dataset mark, say it, and warn of masks that look wrong; None without masks.

    Returns:
        The reading as plain data, with `not_zero`: whether it marks exactly the pixels that are not black.
    """
    _check_files(items, findings)
    _check_orientations(items, options, findings)
    masks = {item.mask: item.mask_facts.mask for item in items if item.mask and item.mask_facts}
    contents = {name: content for name, content in masks.items() if content is not None}
    if not contents:
        return None
    reading, reason = choose_reading(list(contents.values()), options.mask_threshold, options.mask_inverted)
    shares = {name: reading.share(content) for name, content in contents.items()}
    not_zero = reading.is_not_zero(contents.values())
    marked = [share for share in shares.values() if share]
    size = f"{sum(marked) / len(marked):.2%} of an image in the mean" if marked else "nothing"
    inverted = ", mask_inverted" if reading.inverted else ""
    findings.choose(
        f"Masks: what is {reading.describe()} counts as defect ({reason}{inverted}), {size} of {len(contents)} masks."
    )
    _warn_of_shares(shares, findings)
    _warn_of_contents(contents, reading, findings)
    unused = ((item, item.unused_mask_facts) for item in items if item.unused_mask)
    findings.warn(
        "Good images whose mask marks something, and is not used: are they good?",
        [
            f"{item.path}: {item.unused_mask} marks {share:.2%}"
            for item, facts in unused
            if facts and facts.mask and (share := reading.share(facts.mask))
        ],
    )
    return reading.to_dict() | {"not_zero": not_zero}


def _check_files(items: Iterable[Item], findings: Findings) -> None:
    """Report readable masks that are their image, or that have another size than it."""
    lines: dict[str, list[str]] = {"wrong": [], "resize": [], "same": []}
    copies = []
    for item in items:
        if item.mask is None or item.mask_facts is None or item.mask_facts.problem:
            continue
        if item.mask_facts.sha256 == item.facts.sha256:
            copies.append(f"{item.mask} ({item.path})")
        verdict, sizes = compare_sizes(item.facts, item.mask_facts, item.mask_orientation)
        lines[verdict].append(f"{item.mask}: {sizes}" + (f" ({item.path})" if verdict == "wrong" else ""))
    findings.problem("Masks that do not fit their image: export them at the size of the image", lines["wrong"])
    findings.problem("Masks that are the image itself: mask_dir must hold masks", copies)
    findings.warn("Masks of another size than their image, resized (mask_reduction)", lines["resize"])


def _check_orientations(items: Iterable[Item], options: DataOptions, findings: Findings) -> None:
    """Report images that EXIF turns and whose mask carries no orientation, if by its size it may lie on either."""
    turned = [
        f"{item.mask}: {item.path} has EXIF orientation {item.facts.orientation}"
        for item in items
        if item.mask and item.mask_facts and item.facts.orientation != 1 and item.mask_facts.orientation == 1
        if all(compare_sizes(item.facts, item.mask_facts, turn)[0] != "wrong" for turn in (1, item.facts.orientation))
    ]
    if options.mask_orientation is None:
        title = (
            "Masks without an orientation of images that EXIF turns: taken as drawn on the upright image, as viewers "
            "show it; say mask_orientation: stored where they were drawn on the stored pixels, or upright"
        )
        findings.warn(title, turned)
    elif turned:
        drawn = {"stored": "stored pixels: they are turned as these are", "upright": "upright image: they stay"}
        count = f"{len(turned)} masks of images that EXIF turns"
        findings.choose(f"{count} were drawn on the {drawn[options.mask_orientation]} (mask_orientation).")


def _warn_of_shares(shares: dict[str, float], findings: Findings) -> None:
    findings.warn(
        "Masks of anomalous images that mark nothing: every pixel counts as good",
        [name for name, share in shares.items() if share == 0],
    )
    hint = "where they mark what is good, say mask_inverted: true"
    findings.warn(
        f"Masks that mark the whole image: {hint}",
        [name for name, share in shares.items() if share == 1],
    )
    findings.warn(
        f"Masks that mark more than half of the image: {hint}",
        [f"{name}: {share:.1%}" for name, share in shares.items() if MOSTLY < share < 1],
    )


def _warn_of_contents(contents: dict[str, MaskContent], reading: MaskReading, findings: Findings) -> None:
    def lines(chosen: Callable[[MaskContent], bool], text: Callable[[MaskContent], str]) -> Iterable[str]:
        return [f"{name}: {text(content)}" for name, content in contents.items() if chosen(content)]

    findings.warn(
        f"Masks with more than two grey levels: {reading.describe()} counts as defect (mask_threshold sets it)",
        lines(lambda c: c.is_soft and not c.lossy, lambda c: _levels(c, reading)),
    )
    findings.warn(
        f"JPEG masks have compression noise: {reading.describe()} counts as defect; save them as PNG",
        lines(lambda c: c.lossy, lambda c: _levels(c, reading)),
    )
    findings.warn(
        "Masks with transparent pixels, which count as 0",
        lines(
            lambda c: c.has_alpha,
            lambda c: "all that is drawn is black: what is opaque counts" if c.source == "alpha" else "opaque colours",
        ),
    )
    findings.warn(
        "Masks with a palette whose numbers and colours mark different pixels",
        lines(
            lambda c: c.palette_differs,
            lambda c: "its colours are equally bright: numbers count" if c.source == "index" else "colours count",
        ),
    )


def _levels(content: MaskContent, reading: MaskReading) -> str:
    """Return how many values a mask has, and how many of its pixels that are not 0 the reading leaves unmarked."""
    values, counts = content.high
    levels = f"{len(values)} levels from {values[0]:g} to {values[-1]:g}"
    if reading.inverted:
        return levels
    marked = reading.share(content) * content.pixels
    return f"{levels}, marks {marked:.0f} of {counts[values > 0].sum():.0f} pixels that are not 0"
