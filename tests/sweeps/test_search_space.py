"""Options as a set of choices, a range or an interval."""

from pathlib import Path

import pytest
from helpers.sweeps import settings

from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.search_space import Interval, options_of
from defectlab_runtime.errors import OptionError


def test_an_option_that_is_a_list_is_one_value():
    assert options_of("data.crop_area", [4, 4, 60, 60]).values == ([4, 4, 60, 60],)
    assert options_of("model.image_size", [64, [32, 48]]).values == (64, [32, 48])


def test_an_interval_is_for_a_search_only():
    ratio = {"from": 0.05, "to": 0.3, "log": True}
    grid = [{"model.name": "patchcore", "model.coreset_sampling_ratio": ratio}]
    data = settings(Path("d"), grid=grid, search={"strategy": "optuna"})
    assert isinstance(SweepConfig.from_dict(data).grid[0]["model.coreset_sampling_ratio"], Interval)
    with pytest.raises(OptionError, match="a grid needs `step`"):
        SweepConfig.from_dict({key: value for key, value in data.items() if key != "search"})
    with pytest.raises(OptionError, match="from above 0"):
        options_of("model.lr", {"from": 0, "to": 1, "log": True})


def test_a_range_of_endless_values_and_a_grid_of_millions_are_refused_before_they_are_made(tmp_path: Path):
    with pytest.raises(OptionError, match="at most 100000 values: make step larger"):
        options_of("model.n_features", {"from": 1, "to": 1e300, "step": 1e-300})
    with pytest.raises(OptionError, match="lr: a range is finite numbers"):
        options_of("model.lr", {"from": 1, "to": float("inf")})
    large = {f"model.o{n}": list(range(100)) for n in range(4)}
    with pytest.raises(OptionError, match="A sweep of 100000000 configurations is more than can be planned"):
        SweepConfig.from_dict({"data": {"root": "a"}, "grid": {"model.name": "padim", **large}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": {"root": 3}}, r"data.root is a whole number \(3\), not text"),
        ({"data": [1]}, r"data must be a mapping of options, got \[1\]"),
        ({"groups": {"a": [1]}}, r"groups.a\[0\] is a whole number \(1\), not text"),
        ({"cache_gb": "4"}, r"cache_gb is text \('4'\), not a number"),
        ({"search": {"trials": 1.5}}, r"search.trials is a number \(1.5\), not a whole number"),
        ({"seeds": [[1]]}, "seeds must be whole numbers"),
        ({"seeds": {"a": 1}}, "seeds must be whole numbers"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_path(given: dict[str, object], message: str):
    with pytest.raises(OptionError, match=message):
        SweepConfig.from_dict({"data": {"root": "a"}, "model": {"name": "padim"}, **given})
