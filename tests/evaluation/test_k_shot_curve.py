"""The reading of k-shot curves, checked against scipy and values computed by hand."""

import numpy as np
import pytest
from scipy import stats

from defectlab.evaluation.k_shot_curve import read_curve


def drawn(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


RISING = {1: drawn(0.60, 0.70, 0.65), 2: drawn(0.80, 0.84, 0.79), 4: drawn(0.95, 0.951, 0.949), 50: drawn(0.952)}


def test_means_and_intervals_are_those_of_scipy():
    random = np.random.default_rng(3)
    values = {k: drawn(*random.uniform(0.4, 0.6, 7)) for k in (1, 2, 8)}
    curve = read_curve(values, 20)
    for point in curve.points:
        sample = list(values[point.k].values())
        expected = stats.t.interval(0.95, 6, np.mean(sample), stats.sem(sample))
        assert (point.mean, point.low, point.high) == pytest.approx((np.mean(sample), *expected))
        differences = [values[8][draw] - values[point.k][draw] for draw in range(7)]
        if point.k != 8:
            paired = stats.ttest_rel(list(values[8].values()), sample).confidence_interval(0.95)
            assert (point.loss_low, point.loss_high) == pytest.approx(tuple(paired))
        assert point.loss == pytest.approx(np.mean(differences))


def test_an_interval_ends_at_one():
    point = read_curve({1: drawn(1.0, 0.9, 1.0), 2: drawn(1.0, 1.0, 1.0)}, 9).points[0]
    assert point.high == 1.0
    assert point.low == pytest.approx(29 / 30 - 4.302653 / 30, abs=1e-6)  # t of 2 degrees, deviation 0.1 / sqrt(3)


def test_all_images_are_the_end_of_every_draw_and_have_no_interval():
    curve = read_curve(RISING, 50)
    last = curve.points[-1]
    assert (last.k, last.draws, last.mean, last.low, last.loss) == (50, 1, 0.952, None, 0.0)
    four = curve.points[2]  # deviation 0.001 of three: 4.302653 * 0.001 / sqrt(3) = 0.0024841
    assert (four.loss_low, four.loss_high) == pytest.approx((0.002 - 0.0024841, 0.002 + 0.0024841), abs=1e-6)


def test_enough_is_the_smallest_number_from_which_on_none_loses_more_than_the_margin():
    curve = read_curve(RISING, 50)
    assert curve.enough == 4
    assert curve.reading.startswith("More than 4 good images no longer help: ")
    assert "all 50 images, by the 95% interval over 3 draws." in curve.reading
    assert read_curve(RISING, 50, margin=0.004).enough is None


def test_a_number_that_does_well_before_one_that_does_not_is_not_enough():
    same = drawn(0.9, 0.9, 0.9, 0.9, 0.9)
    values = {1: same, 2: drawn(0.5, 0.6, 0.4, 0.5, 0.5), 4: same, 8: same}
    assert read_curve(values, 50).enough == 4


def test_fewer_images_that_do_better_are_enough():
    curve = read_curve({1: drawn(0.95, 0.96, 0.955, 0.95, 0.95), 2: drawn(0.9, 0.91, 0.905, 0.9, 0.9)}, 30)
    assert curve.enough == 1
    assert curve.reading.startswith("More than 1 good image no longer help: ")
    assert curve.reading.endswith("2 images do worse than 1, by 0.0500 to 0.0500. More than 2 were not tried.")
    all_of_them = read_curve({2: drawn(0.95, 0.96, 0.955), 30: drawn(0.9)}, 30)
    assert "All 30 images do worse than 2, by 0.0426 to 0.0674." in all_of_them.reading


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "the metric has no value"),
        ({1: {}, 2: {}}, "the metric has no value"),
        ({4: drawn(0.9, 0.91)}, "only 4 images were tried"),
        ({9: drawn(0.9)}, "only all 9 images were tried"),
        ({1: drawn(0.8), 2: drawn(0.9)}, "one draw of each number says nothing of others"),
        ({2: drawn(1.0, 1.0), 9: drawn(1.0)}, "2 draws that are all alike say nothing of others. Take 5 or more"),
        ({1: drawn(1.0, 1.0, 1.0, 1.0), 2: drawn(1.0, 1.0, 1.0, 1.0)}, "4 draws that are all alike"),
        ({1: drawn(0.8), 9: drawn(0.8)}, "one draw of each number says nothing of others"),
        (
            {1: drawn(0.8, 0.81, 0.8), 2: drawn(0.9, 0.91, 0.91)},
            "still rises at its end, from 1 to 2 images it gains 0.0890 to 0.1177",
        ),
        ({2: drawn(0.8, 0.81, 0.8), 9: drawn(0.9)}, "still rises at its end, from 2 to all 9 images it gains 0.08"),
        ({1: drawn(0.6, 0.9, 0.8), 2: drawn(0.9, 0.6, 0.8)}, "which is wider than the margin of 0.005"),
    ],
)
def test_why_it_cannot_be_told(values, words):
    curve = read_curve(values, 9)
    assert curve.enough is None
    assert "do worse" not in curve.reading
    assert curve.reading.startswith("It cannot be told how many images are enough: ")
    assert words in curve.reading


def test_draws_that_the_largest_number_lacks_are_left_out_of_the_difference():
    """A study that was killed in its last number."""
    curve = read_curve({1: drawn(0.8, 0.7, 0.6), 2: {0: 0.9, 1: 0.8}}, 9)
    assert curve.points[0].loss == pytest.approx(0.1)
    assert curve.points[0].mean == pytest.approx(0.7)
    assert read_curve({1: {5: 0.8}, 2: {0: 0.9}}, 9).points[0].loss is None


def test_five_draws_that_are_all_alike_are_enough_to_tell():
    ones = drawn(1.0, 1.0, 1.0, 1.0, 1.0)
    assert read_curve({1: ones, 2: ones, 9: drawn(1.0)}, 9).enough == 1
    few = read_curve({1: drawn(1.0, 1.0, 1.0), 9: drawn(1.0)}, 9)
    assert (few.points[0].loss, few.points[0].loss_low, few.points[0].loss_high) == (0.0, None, None)
    assert (few.points[1].loss, few.enough) == (0.0, None)
