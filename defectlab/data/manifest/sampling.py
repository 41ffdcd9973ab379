"""Seeded sampling of files by hashes of their names, equal on every machine and Python version."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from defectlab.data.manifest.groups import clusters
from defectlab.data.manifest.scan import Item
from defectlab_runtime.image_files import nfc


def sample_paths(
    paths: Iterable[str], count: int, seed: int, purpose: str, contents: Mapping[str, str] | None = None
) -> set[str]:
    """Return up to `count` paths by seeded rank, without separating files of equal content.

    `contents` maps a path to its content hash. A set of equal files that would be divided is left out, so that fewer
    than `count` paths may be returned.

    >>> sorted(sample_paths(["a.png", "b.png", "c.png", "d.png"], 2, seed=42, purpose="validation"))
    ['b.png', 'c.png']
    """
    sets: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        sets[path if contents is None else contents[path]].append(path)
    sampled: set[str] = set()
    for equal in sorted(sets.values(), key=lambda equal: _rank(seed, purpose, equal)):
        if len(sampled) + len(equal) <= count:
            sampled.update(equal)
    return sampled


def share(sizes: Mapping[str, int], ratio: float) -> dict[str, int]:
    """Return how many of each kind to sample by largest remainder, with kinds of two or more items on both sides.

    The total is rounded down; equal remainders favour the larger kind.

    >>> share({"crack": 3, "hole": 5, "scratch": 2}, 0.5)
    {'crack': 1, 'hole': 3, 'scratch': 1}
    >>> share({"rare": 1, "common": 9}, 0.2)
    {'rare': 0, 'common': 2}
    """
    total = sum(sizes.values())
    if ratio <= 0 or total < 2:
        return dict.fromkeys(sizes, 0)
    wanted = min(max(int(total * ratio + 1e-9), 1), total - 1)
    taken = {kind: int(size * ratio + 1e-9) for kind, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda kind: (-(sizes[kind] * ratio - taken[kind]), -sizes[kind], nfc(kind)))
    for kind in by_remainder[: max(wanted - sum(taken.values()), 0)]:
        taken[kind] += 1
    for kind, size in sizes.items():
        if size >= 2:
            taken[kind] = min(max(taken[kind], 1), size - 1)
    return taken


def sample_items(
    items: Sequence[Item], ratio: float, seed: int, purpose: str, groups: Mapping[str, str] | None
) -> set[str]:
    """Return the paths of a share of each kind's items, or with `groups` (path to group) of each kind's groups."""
    if groups is not None:
        return _sample_groups(items, ratio, seed, purpose, groups)
    kinds: dict[str, dict[str, str]] = defaultdict(dict)
    for item in items:
        kinds[item.defect][item.path] = item.facts.sha256
    counts = share({kind: len(contents) for kind, contents in kinds.items()}, ratio)
    samples = (sample_paths(contents, counts[kind], seed, purpose, contents) for kind, contents in kinds.items())
    return set().union(*samples)


def _sample_groups(items: Sequence[Item], ratio: float, seed: int, purpose: str, groups: Mapping[str, str]) -> set[str]:
    """Return the paths of a share of each kind's groups; a group's kind is its images' most common defect or good."""
    by_path = {item.path: item for item in items}
    kinds: dict[bool, dict[str, list[list[str]]]] = {False: defaultdict(list), True: defaultdict(list)}
    for cluster in clusters(groups, {item.path: item.facts.sha256 for item in items}):
        defects = Counter(by_path[path].defect for path in cluster if by_path[path].label)
        kind = min(defects, key=lambda defect: (-defects[defect], nfc(defect))) if defects else "good"
        kinds[bool(defects)][kind].append(cluster)
    sampled: set[str] = set()
    for of_label in kinds.values():
        counts = share({kind: len(found) for kind, found in of_label.items()}, ratio)
        for kind, found in of_label.items():
            ranked = sorted(found, key=lambda cluster: _rank(seed, purpose, cluster))
            sampled.update(path for cluster in ranked[: counts[kind]] for path in cluster)
    return sampled


def sample_calibration(
    images: Iterable[tuple[str, int, str]], ratio: float, seed: int, groups: Mapping[str, str] | None = None
) -> frozenset[str]:
    """Return the paths of a seeded share of the good validation images, which are to choose nothing.

    Images of equal content or of one part stay together; where there are two such sets or more, at least one is on
    either side. A part with an anomalous image is not good, so its images are not taken.

    Args:
        images: Path, label and content hash of each validation image.
        ratio: Share of the sets.
        seed: Of the sample.
        groups: The part that each image shows (`data.group`).
    """
    validating = list(images)
    groups = {path: path for path, _, _ in validating} if groups is None else groups
    anomalous = {groups[path] for path, label, _ in validating if label == 1}
    contents = {path: sha for path, label, sha in validating if label == 0 and groups[path] not in anomalous}
    sets = clusters(groups, contents)
    count = share({"good": len(sets)}, ratio)["good"]
    ranked = sorted(sets, key=lambda paths: _rank(seed, "calibration", paths))
    return frozenset(path for paths in ranked[:count] for path in paths)


def _rank(seed: int, purpose: str, paths: Iterable[str]) -> str:
    """Return the rank of a set of files that stay together: the lowest hash of their names."""
    return min(hashlib.sha256(f"{seed}:{purpose}:{nfc(path)}".encode()).hexdigest() for path in paths)
