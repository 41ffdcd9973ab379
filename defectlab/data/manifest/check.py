"""`defectlab data check`: a folder's content, the split that training would use, and every problem. No torch here."""

from collections import Counter
from dataclasses import dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any

from defectlab.data.manifest.bit_depth import fits
from defectlab.data.manifest.category_surveys import check_duplicates, survey_categories
from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.manifest import SPLITS, Manifest, manifest_of, manifest_of_categories
from defectlab.data.manifest.mask_grid import report_grid_loss
from defectlab.data.manifest.options import DataOptions, options_signature
from defectlab.data.manifest.survey import Survey, survey
from defectlab.data.mask_content import MaskReading
from defectlab.utils.validation import with_signature
from defectlab_runtime.errors import DataError

MAX_SIZES = 6


@dataclass(frozen=True)
class CheckReport:
    """The text to print, whether training would start, and the images; None where no layout could be read."""

    text: str
    ok: bool
    manifest: Manifest | None = None


_ROOT = Parameter("root", Parameter.POSITIONAL_OR_KEYWORD)
_NEAR = Parameter("near", Parameter.KEYWORD_ONLY, default=True, annotation=bool)


@with_signature(options_signature([_ROOT, _NEAR]))
def check(*, near: bool, **options: Any) -> CheckReport:
    """Check a dataset as `build_manifest` would read it, with the same options; problems are reported, not raised.

    With `near`, copies of one photograph in two splits are looked for and warned of, which takes seconds for a thousand
    images (`defectlab.data.manifest.near_duplicates`).

    Raises:
        OptionError: A mode, ratio or option that cannot work.
    """
    try:
        given = DataOptions(**options)
        surveys = None if given.categories is None else survey_categories(given)
        found = survey(given) if surveys is None else None
    except DataError as error:
        return CheckReport(f"{error}\n\nResult: training would stop here.", ok=False)
    if found is not None:
        return _report(found, given, near=near)
    assert surveys is not None
    reports = [_report(one, given, near=near) for one in surveys.values()]
    between = Findings()
    check_duplicates(surveys, given.on_duplicate, between)
    ok = all(report.ok for report in reports) and not between.problems
    manifest = manifest_of_categories(surveys, given)
    lines = [
        *(f"{report.text}\n" for report in reports),
        *(f"Warning: {warning}" for warning in between.warnings),
        *(["Problems:", *_indented(between.report())] if between.problems else []),
        f"One model for {len(surveys)} categories ({manifest.name}): "
        + (f"manifest hash {manifest.hash}; ready to train." if ok else "training would stop."),
    ]
    return CheckReport("\n".join(lines), ok, manifest)


def _report(found: Survey, options: DataOptions, *, near: bool) -> CheckReport:
    manifest = manifest_of(found)
    report_grid_loss(_readable_masks(found, manifest), options.mask_reduction, found.findings)
    if near:
        _warn_of_copies(found)
    return CheckReport(_text(found, manifest), not found.findings.problems, manifest)


def _readable_masks(found: Survey, manifest: Manifest) -> list[tuple[Path, MaskReading]]:
    """Return the masks that can be read, and what is marked in each."""
    readable = {item.path for item, _ in found.splits if item.mask_facts and not item.mask_facts.problem}
    files = ((entry, manifest.absolute_mask(entry)) for entry in manifest.entries if entry.path in readable)
    return [(path, manifest.mask_reading(entry)) for entry, path in files if path]


def _warn_of_copies(found: Survey) -> None:
    from defectlab.data.manifest.near_duplicates import describe, near_duplicates

    bit_depth = found.protocol.bit_depth
    splits = {item.path: str(role) for item, role in found.splits if item.label >= 0 and fits(item.facts, bit_depth)}
    contents = {i.path: i.facts.sha256 for i, _ in found.splits if i.path in splits}
    pairs = near_duplicates(found.root, splits, contents, bit_depth)
    title = (
        "Near-duplicates in two splits, copies of one photograph: the test would know them, remove one of each, or say "
        "group: near_duplicates, which keeps them together where folders do not part them"
    )
    found.findings.warn(title, describe(pairs, splits))


def _text(found: Survey, manifest: Manifest) -> str:
    problems = found.findings.problems
    warnings = _counted(len(found.findings.warnings), "warning")
    lines = [
        f"Dataset {found.name} in {found.root}",
        f"Layout: {found.layout.name}",
        *_indented(found.layout.describe()),
        *_images(found),
        *_split(found, manifest),
        *(f"Note: {choice}" for choice in found.findings.choices),
        *(f"Warning: {warning}" for warning in found.findings.warnings),
        *(["Problems:", *_indented(found.findings.report())] if problems else []),
    ]
    if problems:
        places = sum(len(lines) for lines in problems.values())
        many = f" in {places} places" if places > len(problems) else ""
        lines.append(f"Result: training would stop; {_counted(len(problems), 'problem')}{many}, {warnings}.")
    else:
        lines.append(f"Manifest hash: {manifest.hash}")
        lines.append(f"Result: ready to train; no problems, {warnings}.")
    return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _images(found: Survey) -> list[str]:
    sizes = Counter(f"{item.facts.width} x {item.facts.height} {item.facts.mode}" for item in found.items)
    shown = [f"{count} of {size}" for size, count in sizes.most_common(MAX_SIZES)]
    if len(sizes) > MAX_SIZES:
        shown.append(f"{len(sizes) - MAX_SIZES} other sizes")
    anomalous = [item for item in found.items if item.label == 1]
    masked = sum(item.mask is not None for item in anomalous)
    masks = f"{masked} for {len(anomalous)} anomalous images"
    if not masked and found.layout.mask_dirs is None and found.layout.val_mask_dirs is None:
        why = " (task: classification)" if found.protocol.task == "classification" else ""
        masks = f"none: image metrics only{why}" if anomalous else "none: good images only"
    return [f"Images: {len(found.items)} readable ({', '.join(shown) or 'none'})", f"Masks: {masks}"]


def _split(found: Survey, manifest: Manifest) -> list[str]:
    counts = manifest.counts()
    lines = [f"Split (seed {found.seed}):"]
    for split in SPLITS:
        kinds = counts[split]
        detail = ", ".join(f"{kind} {kinds[kind]}" for kind in sorted(kinds, key=lambda kind: (kind != "good", kind)))
        lines.append(f"  {split:<10} {sum(kinds.values()):>5}  {detail}".rstrip())
    if manifest.protocol.group_counts is not None:
        of_split = (f"{split} {sum(kinds.values())}" for split, kinds in manifest.protocol.group_counts.items())
        lines.append(f"  parts (group {manifest.protocol.group!r}): {', '.join(of_split)}")
    lines.append(f"  good test images: {manifest.protocol.test_normal_from}")
    lines.append(f"  validation images: {manifest.protocol.validation_from}")
    return lines


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]
