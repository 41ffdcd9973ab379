"""The readers under attack, by name, and what each may answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from defectlab_runtime.errors import InputError

ACCEPTED = "accepted"
REFUSED = "refused"

# Target name -> module of this package that holds it as TARGET, imported when asked for, and its share of the
# inputs of a long run, the longest first.
TARGETS: dict[str, tuple[str, float]] = {
    "workbook": ("workbook", 0.5),
    "images": ("images", 3),
    "archives": ("archives", 2),
    "yaml": ("yaml_settings", 2),
    "names": ("names", 3),
    "records": ("run_records", 2),
    "checkpoints": ("checkpoints", 2),
    "weights": ("weights", 2),
}


@dataclass(frozen=True)
class Target:
    """A reader with good files to damage.

    `prepare(good)` writes the good files, once. `attack(random, good, work)` makes one hostile input in the empty
    folder `work`, drawn with `random` alone, gives it to the reader and lets the reader's `InputError` through.
    Every other exception is a fault of the reader; an input that was changed and is read otherwise without a word is
    one too, which `attack` says by an `AssertionError`. `refuses`: whether some inputs must be refused. `warm_up()`
    does once, in each process, what the first attack alone would do, such as imports: it is no input's hang.
    """

    name: str
    prepare: Callable[[Path], None]
    attack: Callable[[random.Random, Path, Path], None]
    refuses: bool = True
    warm_up: Callable[[], None] = lambda: None


def load_target(name: str) -> Target:
    """Return the target `name` of `TARGETS`."""
    target = import_module(f"tests.fuzz.{TARGETS[name][0]}").TARGET
    assert isinstance(target, Target)
    return target


def run_attack(target: Target, seed: int, good: Path, work: Path) -> str:
    """Run one attack in the empty folder `work`; return `ACCEPTED` or `REFUSED`, and let a fault through."""
    try:
        target.attack(random.Random(f"{target.name} {seed}"), good, work)
    except InputError:
        return REFUSED
    return ACCEPTED
