"""Several seeds of one experiment: which runs are repeats, and their sums against numpy and scipy."""

import numpy as np
import pytest
from helpers.runs import finished
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from defectlab.results.comparison.repeats import spread, summarise
from defectlab.results.run.run import Run
from defectlab.results.workbook_row import repeat_key
from defectlab_runtime.errors import InputError


def repeats(values: list[float], **options) -> list[Run]:
    """Finished runs of one experiment, a seed each."""
    return [finished("one", seed=seed, metrics={"image_AUROC": value}, **options) for seed, value in enumerate(values)]


def test_runs_that_differ_in_their_seed_alone_are_repeats():
    one, two = repeats([0.8, 0.9])
    two.update(facts=two.record.facts | {"model.seed": 7})
    assert repeat_key(one) == repeat_key(two)
    others = [
        finished("other"),
        finished("one", manifest="another split"),
        finished("one", model="patchcore"),
    ]
    one.update(facts=one.record.facts | {"data.seed": 42})
    assert len({repeat_key(run) for run in [one, two, *others]}) == 5


def test_they_are_summed_up_as_numpy_and_scipy_do():
    values = [0.93, 0.91, 0.88, 0.95, 0.9]
    found = summarise(repeats(values)[::-1])
    assert found.seeds == (0, 1, 2, 3, 4)
    auroc = found.metrics["image_AUROC"]
    assert (auroc.count, auroc.mean) == (5, pytest.approx(np.mean(values)))
    assert auroc.deviation == pytest.approx(np.std(values, ddof=1))
    expected = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (auroc.low, auroc.high) == pytest.approx(expected)
    assert set(found.metrics) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}


def test_a_metric_that_some_seeds_lack_is_of_those_that_have_it():
    runs = repeats([0.8, 0.9, 0.7])
    runs[1].update(metrics=runs[1].record.metrics | {"image_AUROC": None, "pixel_AUROC": None})
    for run in (runs[0], runs[2]):
        run.update(metrics=run.record.metrics | {"pixel_AUROC": None})
    found = summarise(runs)
    assert (found.metrics["image_AUROC"].count, found.metrics["image_AUROC"].mean) == (2, pytest.approx(0.75))
    assert "pixel_AUROC" not in found.metrics


def test_one_run_has_a_mean_and_no_spread():
    (auroc,) = (summarise(repeats([0.8])).metrics["image_AUROC"],)
    assert (auroc.mean, auroc.deviation, auroc.low, auroc.high) == (0.8, None, None, None)


def test_what_is_no_repeat_is_refused():
    one, two = repeats([0.8, 0.9])
    with pytest.raises(InputError, match="no runs"):
        summarise([])
    with pytest.raises(InputError, match="given twice"):
        summarise([one, two, one])
    with pytest.raises(InputError, match=r"differ in more than their seed \(data.manifest, name\)"):
        summarise([one, finished("other", manifest="another")])
    with pytest.raises(InputError, match="no value"):
        spread([])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_the_interval_holds_the_mean_and_stays_a_metric(values: list[float]):
    found = spread(values)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high <= 1


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    draws = random.normal(0.5, 0.02, (2000, 5))
    inside = [(found := spread(draw)).low <= 0.5 <= found.high for draw in draws]
    assert 0.94 < np.mean(inside) < 0.96
