"""Options as a set of choices, a range or an interval."""

from pathlib import Path

import pytest
from helpers.sweeps import settings

from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.search_space import Interval, options_of
from defectlab.utils.errors import OptionError


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
