"""Seeded picks: the same files on every machine and Python version, because ranks are hashes of names."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from defectlab.data.images import nfc
from defectlab.data.manifest.groups import clusters
from defectlab.data.manifest.scan import Item


def pick(paths: Iterable[str], count: int, seed: int, purpose: str, twins: Mapping[str, str] | None = None) -> set[str]:
    """Return `count` of the paths, those that rank first; files of one content (`twins`) are never parted.

    `twins` maps a path to what it shares with its duplicates. A group that would be cut is left behind, so that
    fewer may come back.

    >>> sorted(pick(["a.png", "b.png", "c.png", "d.png"], 2, seed=42, purpose="validation"))
    ['b.png', 'c.png']
    """
    paths = list(paths)
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[path if twins is None else twins[path]].append(path)
    ranked = sorted(groups.values(), key=lambda group: min(_rank(seed, purpose, path) for path in group))
    picked: set[str] = set()
    for group in ranked:
        if len(picked) + len(group) > count:
            continue
        picked.update(group)
    return picked


def share(sizes: Mapping[str, int], ratio: float) -> dict[str, int]:
    """Return how many of each kind to take, by largest remainder; kinds of two and more end up on both sides.

    The total is rounded down, so that the odd one stays behind; equal remainders favour the larger kind.

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


def pick_items(
    items: Sequence[Item], ratio: float, seed: int, purpose: str, parts: Mapping[str, str] | None
) -> set[str]:
    """Return the paths of a share of the items, kind by kind; with `parts` (path to part) a share of the parts."""
    if parts is not None:
        return _pick_parts(items, ratio, seed, purpose, parts)
    kinds: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        kinds[item.defect].append(item)
    counts = share({kind: len(members) for kind, members in kinds.items()}, ratio)
    picked: set[str] = set()
    for kind, members in kinds.items():
        twins = {item.path: item.facts.sha256 for item in members}
        picked |= pick(twins, counts[kind], seed, purpose, twins)
    return picked


def _pick_parts(items: Sequence[Item], ratio: float, seed: int, purpose: str, parts: Mapping[str, str]) -> set[str]:
    """Pick a share of the parts, kind by kind; a part is of the commonest kind of defect among its images."""
    by_path = {item.path: item for item in items}
    kinds: dict[tuple[int, str], list[list[str]]] = defaultdict(list)
    for cluster in clusters(parts, {item.path: item.facts.sha256 for item in items}):
        defects = Counter(by_path[path].defect for path in cluster if by_path[path].label)
        kind = min(defects, key=lambda defect: (-defects[defect], nfc(defect))) if defects else "good"
        kinds[bool(defects), kind].append(cluster)
    picked: set[str] = set()
    for anomalous in (0, 1):
        own = {kind: found for (label, kind), found in kinds.items() if label == anomalous}
        counts = share({kind: len(found) for kind, found in own.items()}, ratio)
        for kind, found in own.items():
            ranked = sorted(found, key=lambda cluster: min(_rank(seed, purpose, path) for path in cluster))
            picked.update(path for cluster in ranked[: counts[kind]] for path in cluster)
    return picked


def _rank(seed: int, purpose: str, path: str) -> str:
    return hashlib.sha256(f"{seed}:{purpose}:{nfc(path)}".encode()).hexdigest()
