"""The journal of a search: taken up again, and refused with its line where it is damaged."""

import random
from pathlib import Path

import pytest

from defectlab.sweeps.result import COMPLETE
from defectlab.sweeps.search.study import JOURNAL, open_study
from defectlab.sweeps.search_config import SearchConfig
from defectlab.sweeps.search_space import options_of
from defectlab.sweeps.table import Outcome
from defectlab_runtime.errors import InputError
from tests.fuzz.mutations import damage

SPACE = [{"model.lr": options_of("model.lr", {"from": 0.001, "to": 1.0})}]


def searched(folder: Path) -> list[float]:
    """Take the search up, run the trials that are missing of three, and return the values of all."""
    with open_study(folder, SearchConfig(trials=3), SPACE, {}, ["w"]) as study:
        while trials := study.ask():
            for trial in trials:
                trial.state, trial.value = COMPLETE, float(trial.values["model.lr"])
                trial.outcomes = [Outcome(0, "a", "d", 0, "finished")]
                study.tell(trial)
        return [trial.value or 0.0 for trial in study.completed_trials()]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{}\n", "line {} is no entry"),
        (b"[" * 100_000 + b"\n", "line {} is no entry"),
        (b"\xff\xfe\n", "line {} is no entry"),
        (b'{"op_code": 4, "worker_id": "x"}\n', "KeyError"),
        (b'{"op_code": "4"}\n', "line {} is no entry"),
        (b'{"op_code": 99, "worker_id": "x"}\n', "AssertionError"),
    ],
)
def test_a_damaged_journal_is_named(tmp_path: Path, line: bytes, message: str):
    values = searched(tmp_path)
    assert searched(tmp_path) == values
    journal = tmp_path / JOURNAL
    lines = len(journal.read_bytes().splitlines())
    with journal.open("ab") as file:
        file.write(line)
    with pytest.raises(InputError, match=f"{JOURNAL} is damaged .*{message.format(lines + 1)}"):
        searched(tmp_path)


def test_random_damage_of_a_journal_ends_in_no_traceback(tmp_path: Path):
    searched(tmp_path)
    journal = tmp_path / JOURNAL
    good, refused = journal.read_bytes(), 0
    for seed in range(60):
        journal.write_bytes(damage(random.Random(seed), good))
        try:
            searched(tmp_path)
        except InputError:
            refused += 1
    assert refused > 10
