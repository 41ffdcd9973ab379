"""Parts: several photographs of one object, told by a pattern on the image's path. No torch here."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

from defectlab.data.images import nfc, path_order
from defectlab.data.manifest.findings import Findings
from defectlab.utils.errors import OptionError

SHOWN = 3


@lru_cache(maxsize=64)
def compiled(pattern: str) -> re.Pattern[str]:
    """Return the compiled pattern of `data.group`.

    Raises:
        OptionError: No text, an empty one, or no regular expression, with the place of the fault.
    """
    if not isinstance(pattern, str) or not pattern:
        raise OptionError(f"Data: group must be a regular expression on the image's path, got {pattern!r}.")
    try:
        return re.compile(nfc(pattern))
    except re.error as error:
        raise OptionError(f"Data: group={pattern!r} is no regular expression: {error}.") from error


def group_of(path: str, pattern: str) -> str:
    r"""Return the name of the part an image shows; `path` is posix and relative to the dataset's root.

    Group 1 of the pattern names the part, or the whole match where the pattern has no group. An image that the pattern
    does not find, or finds with an empty name, is a part of its own, named by its path.

    >>> group_of("test/good/017_left.png", r"(\d+)_(left|right)")
    '017'
    >>> group_of("test/good/017_left.png", r"part\d+")
    'test/good/017_left.png'
    """
    return _name(path, pattern) or nfc(path)


def _name(path: str, pattern: str) -> str | None:
    expression = compiled(pattern)
    found = expression.search(nfc(path))
    return None if found is None else found.group(1 if expression.groups else 0)


def find_parts(paths: Iterable[str], pattern: str, findings: Findings) -> dict[str, str]:
    """Return each path's part; what the pattern does not find is counted and said, nothing found at all is a problem.

    Raises:
        OptionError: The pattern is no regular expression.
    """
    parts = {path: group_of(path, pattern) for path in paths}
    alone = [path for path in parts if not _name(path, pattern)]
    if parts and len(alone) == len(parts):
        examples = ", ".join(list(parts)[:SHOWN])
        lines = [f"group {pattern!r} is found in none of the {len(parts)} paths below the root, such as {examples}"]
        findings.problem("Options", lines)
    elif alone:
        findings.warn(f"Images that group {pattern!r} is not found in, each a part of its own", alone)
    count = len(set(parts.values()))
    findings.choose(f"{len(parts)} images show {count} parts (group {pattern!r}); splits keep parts whole.")
    return parts


def clusters(parts: Mapping[str, str], contents: Mapping[str, str]) -> list[list[str]]:
    """Return the paths of `contents` in sets that must stay together: of one part, or of one content, or of both.

    `parts` and `contents` map a path to its part and its content hash. Sets and their paths are in path order.
    """
    home = {path: path for path in contents}

    def find(path: str) -> str:
        while home[path] != path:
            home[path] = path = home[home[path]]
        return path

    first: dict[tuple[str, str], str] = {}
    for path in sorted(contents, key=path_order):
        for key in (("part", parts[path]), ("content", contents[path])):
            one, other = sorted((find(path), find(first.setdefault(key, path))), key=path_order)
            home[other] = one
    together: dict[str, list[str]] = defaultdict(list)
    for path in sorted(contents, key=path_order):
        together[find(path)].append(path)
    return list(together.values())


def parted(roles: Mapping[str, str], parts: Mapping[str, str]) -> list[str]:
    """Return a line for each part that has images in several splits; `roles` maps a path to its split."""
    members: dict[str, list[str]] = defaultdict(list)
    for path in roles:
        members[parts[path]].append(path)
    lines = []
    for name, paths in members.items():
        if len({roles[path] for path in paths}) > 1:
            one_of_each = {roles[path]: path for path in reversed(paths)}
            lines.append(f"{name}: " + ", ".join(f"{path} ({role})" for role, path in sorted(one_of_each.items())))
    return lines


def count_parts(
    roles: Mapping[str, str], labels: Mapping[str, int], parts: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    """Return counts[split][good | anomalous] of parts; a part is anomalous where any of its images in that split is."""
    worst: dict[tuple[str, str], int] = {}
    for path, role in roles.items():
        key = (role, parts[path])
        worst[key] = max(worst.get(key, 0), labels[path])
    counts = {split: {"good": 0, "anomalous": 0} for split in ("train", "validation", "test")}
    for (role, _), label in worst.items():
        counts[role]["anomalous" if label else "good"] += 1
    return counts
