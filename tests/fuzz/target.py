"""One reader under attack, and what it may answer."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from defectlab.utils.errors import InputError

ACCEPTED = "accepted"
REFUSED = "refused"


@dataclass(frozen=True)
class Target:
    """A reader with good files to damage.

    `prepare(good)` writes the good files, once. `attack(random, good, work)` makes one hostile input in the empty
    folder `work`, drawn with `random` alone, gives it to the reader and lets the reader's `InputError` through.
    Every other exception is a fault of the reader; an input that was changed and is read otherwise without a word is
    one too, which `attack` says by an `AssertionError`. `refuses`: whether some inputs must be refused.
    """

    name: str
    prepare: Callable[[Path], None]
    attack: Callable[[random.Random, Path, Path], None]
    refuses: bool = True


def run_attack(target: Target, seed: int, good: Path, work: Path) -> str:
    """Run one attack in the empty folder `work`; return `ACCEPTED` or `REFUSED`, and let a fault through."""
    try:
        target.attack(random.Random(f"{target.name} {seed}"), good, work)
    except InputError:
        return REFUSED
    return ACCEPTED
