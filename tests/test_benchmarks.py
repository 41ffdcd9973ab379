"""What `make bench` makes of measured rows: ratios, marks, one place a row, no path of the machine."""

from pathlib import Path

import pytest

from benchmarks.measure import alternate, growth, machine, peak_mib
from benchmarks.results import add, read, render
from benchmarks.table import Row, table

MEASURED = {"plain_s": 300.0, "ours_s": 0.5, "plain_mib": 2048, "ours_mib": None, "equal": "1e-6"}


def row(what: str = "maps", **options) -> Row:
    return Row(what, **{**MEASURED, **options})


def test_a_table_has_ratio_memory_and_marks():
    line = table([row(extrapolated=True, at_least=20, note="60 picks")]).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["maps", "300 s (extrapolated)", "500 ms", "600x", "20x", "2,048 MiB / -", "1e-6", "60 picks"]


def test_a_row_measured_again_takes_its_own_place(tmp_path: Path):
    file = tmp_path / "results.json"
    for one in (row("a"), row("b"), row("a", ours_s=3.0)):
        add(file, one, ["Machine: two cores"])
    assert [(entry["row"]["what"], entry["row"]["ours_s"]) for entry in read(file)] == [("a", 3.0), ("b", 0.5)]
    (tmp_path / "limits.md").write_text("## Limits\n\nWhat is left.\n")
    text = render(tmp_path)
    assert text.count("Machine: two cores") == 1
    assert "100x" in text
    assert text.endswith("What is left.\n")
    assert "GPU" not in text


def test_a_machine_is_described_without_its_paths():
    text = "\n".join(machine())
    assert "anomalib 2.7.0" in text
    assert "/" not in text.replace("GB/s", "")


def test_both_sides_run_in_turn_and_memory_is_seen():
    calls = []
    alternate(lambda: calls.append("plain"), lambda: calls.append("ours"), repeats=2)
    assert calls == ["plain", "ours"] * 3
    points = growth(lambda size: (lambda: sum(range(size)), lambda: None), (10, 20))
    assert [size for size, _, _ in points] == [10, 20]
    peak = peak_mib(lambda: bytes(bytearray(64 * 2**20)))
    if peak is None:
        pytest.skip("this system does not say how much memory a process holds")
    assert 60 <= peak < 256  # the system counts pages by the batch
