"""Every target over a few seeds in this process; `make fuzz` gives each many thousands in its own."""

import pytest

from tests.fuzz.target import REFUSED, TARGETS, load_target, run_attack

SEEDS = 40


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_meets_no_fault(name: str, tmp_path):
    target = load_target(name)
    good = tmp_path / "good"
    good.mkdir()
    target.prepare(good)
    outcomes = set()  # a fault is raised
    for seed in range(SEEDS):
        work = tmp_path / f"work{seed}"
        work.mkdir()
        outcomes.add(run_attack(target, seed, good, work))
    assert REFUSED in outcomes or not target.refuses
