"""Charts and tables of curves against the number of good images."""

from pathlib import Path

import pytest
from helpers.runs import finished, run_with_maps, with_k_shots

import defectlab.visualization.k_shots as k_shots
from defectlab.results.k_shots import k_shot_curves
from defectlab.visualization.k_shots import k_shot_curves_of, k_shots_picture, k_shots_svg, k_shots_table, print_k_shots
from defectlab.visualization.report import write_report
from defectlab_runtime.errors import InputError

MEANS = {2: (0.8, 0.9), 8: (0.951, 0.95), 100: (0.95, 0.951)}


def test_the_table_has_a_row_for_each_number_and_the_verdict_below(capsys: pytest.CaptureFixture[str]):
    run = with_k_shots(finished("a"), MEANS)
    rows = k_shots_table(k_shot_curves(run)).texts()
    assert [row[:3] for row in rows] == [["2", "4", "0.7995"], ["8", "4", "0.9505"], ["100", "1", "0.9500"]]
    assert rows[2][3] == "-"
    print_k_shots([finished("b"), run])
    printed = capsys.readouterr().out
    assert "How many good images: Padim on coins, a" in printed
    assert "image AUROC: More than 8 good images no longer help" in printed
    assert "1 left out: PaDiM needs two" in printed
    assert "coins, b" not in printed


def test_the_chart_names_runs_numbers_and_all():
    runs = [
        with_k_shots(finished("a"), MEANS),
        with_k_shots(finished("b", "patchcore"), {2: (0.9, 0.9), 8: (0.9, 0.9)}),
    ]
    svg = k_shots_svg(k_shot_curves_of(runs))
    for text in ("Padim a", "Patchcore b", "image AUROC", "pixel AUROC", "good images", ">all<", ">100<"):
        assert text in svg
    assert k_shots_picture(runs).size[0] > k_shots_picture(runs).size[1]


def test_curves_of_ones_end_at_one_and_many_runs_stay_at_their_number():
    ones = k_shot_curves(with_k_shots(finished("a"), {2: (1.0, 1.0), 100: (1.0, 1.0)}, draws=1))
    figure = k_shots._figure({f"run {number}": ones for number in range(20)})
    for axis in figure.axes:
        low, high = axis.get_ylim()
        assert (low, high) == pytest.approx((0.945, 1.0022))
        at = {line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 2}
        assert len(at) == 20
        assert max(at) / min(at) == pytest.approx(2**k_shots.SPREAD)


def test_equal_names_and_datasets_are_told_apart():
    runs = [with_k_shots(finished("a", seed=seed, dataset=name), MEANS) for seed, name in ((1, "coins"), (2, "bottle"))]
    assert list(k_shot_curves_of(runs)) == ["Padim a (coins)", "Padim a (bottle)"]


def test_a_picture_of_none_is_refused():
    with pytest.raises(InputError, match=r"data\.k_shots, such as \[1, 2, 4, 8, 16, all\]"):
        k_shots_picture([finished("a")])


def test_the_report_shows_them(tmp_path: Path):
    run = with_k_shots(run_with_maps("a", 0, 12, 0.3, tmp_path), MEANS)
    page = write_report([run], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h2>How many good images</h2>" in page
    assert "More than 8 good images no longer help" in page
    plain = write_report([run_with_maps("b", 1, 12, 0.3, tmp_path)], tmp_path / "p.html").read_text(encoding="utf-8")
    assert "How many good images" not in plain
