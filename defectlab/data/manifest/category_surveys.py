"""Survey of several categories below one root that one model is trained on: each as it would be alone."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from defectlab.data.manifest.categories import categories_in, chosen_categories
from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.image_folders import Role
from defectlab.data.manifest.layouts import check_root, subfolders
from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.scan import Item
from defectlab.data.manifest.survey import Survey, survey
from defectlab.utils.paths import resolve
from defectlab_runtime.errors import DataError
from defectlab_runtime.image_files import path_order

MAX_NAMED = 3  # categories in a default name


def survey_categories(options: DataOptions) -> dict[str, Survey]:
    """Read and split each category as if it were the dataset, in the order of their names, whatever the order given.

    Raises:
        OptionError: An option that cannot work.
        DataError: A category that is not there or has no folder of good images, or fewer than two.
    """
    options = options.checked()
    assert options.root is not None
    assert options.categories is not None
    root = resolve(options.root)
    check_root(root)
    there = categories_in(root)
    asked = options.categories
    parts = [part.strip() for part in asked.split(",")] if isinstance(asked, str) else asked
    below = {folder.name for folder in subfolders(root)}  # a path such as bolt/ or bolt/train is no category's name
    bare = [part for part in parts if part not in there and part in below]
    if bare:
        folders = ", ".join(str(root / part) for part in bare)
        raise DataError(f"A category needs good training images (train/good, or good), and these have none: {folders}.")
    names = sorted(chosen_categories(parts, there, {}), key=path_order)
    if len(names) < 2:
        alone = f"{root / names[0]}"
        raise DataError(f"One model for many categories needs two or more. Of {names[0]} alone: root={alone}.")
    alone_options = replace(options, categories=None)
    return {name: survey(replace(alone_options, root=str(root / name), name=name)) for name in names}


def dataset_name(options: DataOptions, names: list[str]) -> str:
    """Return the name of the categories together, from the options or else from their names.

    >>> dataset_name(DataOptions(root="data/mvtec"), ["bottle", "transistor"])
    'bottle+transistor'
    >>> dataset_name(DataOptions(root="data/mvtec"), ["a", "b", "c", "d"])
    'mvtec_4-categories'
    """
    if options.name:
        return options.name
    if len(names) <= MAX_NAMED:
        return "+".join(names)
    return f"{Path(str(options.root)).name}_{len(names)}-categories"


def joined_findings(surveys: Mapping[str, Survey], on_duplicate: str) -> Findings:
    """Return what was found in all categories, each line with its category, and equal content between them."""
    together = Findings()
    for name, found in surveys.items():
        own = found.findings
        for title, lines in own.problems.items():
            together.problem(title, (f"{name}: {line}" for line in lines))
        together.fixes += [f"{name}: {fix}" for fix in own.fixes]
        together.warnings += [f"{name}: {warning}" for warning in own.warnings]
        together.choices += [f"{name}: {choice}" for choice in own.choices]
    check_duplicates(surveys, on_duplicate, together)
    return together


def check_duplicates(surveys: Mapping[str, Survey], on_duplicate: str, findings: Findings) -> None:
    """Report files of equal content in two categories: a model would be tested on what it was trained on."""
    by_content: dict[str, list[tuple[str, Item, Role]]] = defaultdict(list)
    for name, found in surveys.items():
        for item, role in found.splits:
            if item.label >= 0:
                by_content[item.facts.sha256].append((name, item, role))
    serious: list[str] = []
    harmless: list[str] = []
    for equal in by_content.values():
        if len({name for name, _, _ in equal}) > 1:
            line = ", ".join(f"{name}/{item.path} ({role}, {item.defect})" for name, item, role in equal)
            apart = len({(item.label, role) for _, item, role in equal}) > 1
            (serious if apart else harmless).append(line)
    report = findings.problem if on_duplicate == "error" else findings.warn
    fix = "" if on_duplicate == "warn" else ": remove one, or say on_duplicate: warn"
    report(f"The same content in two categories, in two splits or under two labels{fix}", serious)
    findings.warn("The same content in two categories", harmless)
