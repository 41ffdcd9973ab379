"""Groups of photographs of one part, by a pattern on the image's path or by their likeness. Does not use torch."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from defectlab.data.manifest.findings import Findings
from defectlab_runtime.errors import OptionError
from defectlab_runtime.image_files import nfc, path_order

MAX_EXAMPLES = 3
NEAR_DUPLICATES = "near_duplicates"  # value of data.group that groups copies of one photograph instead of a pattern


@lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> re.Pattern[str]:
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


def has_group(path: str, pattern: str) -> bool:
    """Whether the pattern is found in a path."""
    return _name(path, pattern) is not None


def groups_by(paths: Iterable[str], pattern: str, copies: Iterable[Sequence[str]] = ()) -> dict[str, str]:
    """Return the group of each path by the value of `data.group`.

    For `NEAR_DUPLICATES`, `copies` has the paths of each set of near-duplicates; the first names the group. Every other
    image is a group of its own.
    """
    if pattern != NEAR_DUPLICATES:
        return {path: group_of(path, pattern) for path in paths}
    names = {nfc(path): nfc(together[0]) for together in copies for path in together}
    return {path: names.get(nfc(path), nfc(path)) for path in paths}


def _name(path: str, pattern: str) -> str | None:
    expression = compile_pattern(pattern)
    found = expression.search(nfc(path))
    return None if found is None else found.group(1 if expression.groups else 0)


def find_groups(paths: Iterable[str], pattern: str, findings: Findings) -> dict[str, str]:
    """Return the group of each path. Paths without the pattern are a warning, or a problem where none has it.

    Raises:
        OptionError: The pattern is no regular expression.
    """
    groups = {path: group_of(path, pattern) for path in paths}
    alone = [path for path in groups if not _name(path, pattern)]
    if groups and len(alone) == len(groups):
        examples = ", ".join(list(groups)[:MAX_EXAMPLES])
        lines = [f"group {pattern!r} is found in none of the {len(groups)} paths below the root, such as {examples}"]
        findings.problem("Options", lines)
    elif alone:
        findings.warn(f"Images that group {pattern!r} is not found in, each a part of its own", alone)
    count = len(set(groups.values()))
    findings.choose(f"{len(groups)} images show {count} parts (group {pattern!r}); splits keep parts whole.")
    return groups


def clusters(groups: Mapping[str, str], contents: Mapping[str, str]) -> list[list[str]]:
    """Return the paths of `contents` in sets that must stay together: of one group, or of one content, or of both.

    `groups` and `contents` map a path to its group and its content hash. Sets and their paths are in path order.
    """
    home = {path: path for path in contents}

    def find(path: str) -> str:
        while home[path] != path:
            home[path] = path = home[home[path]]
        return path

    first: dict[tuple[str, str], str] = {}
    for path in sorted(contents, key=path_order):
        for key in (("group", groups[path]), ("content", contents[path])):
            one, other = sorted((find(path), find(first.setdefault(key, path))), key=path_order)
            home[other] = one
    together: dict[str, list[str]] = defaultdict(list)
    for path in sorted(contents, key=path_order):
        together[find(path)].append(path)
    return list(together.values())
