"""Damage to parsed data (what YAML and JSON files hold), drawn by a seed."""

import copy
import datetime
import random
from typing import Any

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 10**9, 10**400, -(10**30), 2**63, 0.0, -0.5, 1e308, 1e-320),
    *(float("inf"), float("-inf"), float("nan")),
    *("", " ", "0", "no", "nan", "1e999", "../../x", "/", "x" * 5000, "\x00", "\u2028", "=cmd"),
    *([], [[]], [None], [1, "a"], [float("nan")] * 3, {}, {"": None}, {"a": {"b": []}}, {1: 2}, {None: 1}, {True: 0}),
    *(datetime.date(2024, 2, 29), datetime.datetime(2024, 1, 1, 1, 1), b"bytes", {"a", "b"}),
)
PLAIN = tuple(value for value in HOSTILE if not isinstance(value, bytes | set | datetime.date))


def places(tree: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in nested lists and mappings, the root's own () first."""
    found = [here]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += places(value, (*here, key))
    return found


def damage_tree(random: random.Random, tree: Any, values: tuple[Any, ...] = HOSTILE) -> Any:
    """Return a copy of `tree` with one to three values replaced, lost, renamed, swapped, wrapped or nested deeply."""
    changed = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        spots = places(changed)[1:]
        if not spots:
            return random.choice(values)
        *path, key = random.choice(spots)
        parent = changed
        for step in path:
            parent = parent[step]
        kind = random.randrange(8)
        if kind < 4:
            parent[key] = copy.deepcopy(random.choice(values))
        elif kind == 4:
            del parent[key]
        elif kind == 5:
            if isinstance(parent, dict):
                new = random.choice((None, 1, True, 1.5, "", f"{key}x", str(key).upper(), "root", "name", "a.b"))
                parent[new] = parent.pop(key)
            else:
                parent.insert(0, copy.deepcopy(parent[key]))
        elif kind == 6:
            parent[key] = random.choice(([parent[key]], {"a": parent[key]}, str(parent[key]), [parent[key]] * 3))
        else:
            nested: Any = parent[key]
            for _ in range(random.choice((3, 60, 300))):
                nested = [nested] if random.random() < 0.5 else {"a": nested}
            parent[key] = nested
    return changed
