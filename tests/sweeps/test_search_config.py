"""Settings of a search: what cannot work, and the search that comes along."""

from pathlib import Path
from typing import Any

import pytest
from helpers.sweeps import settings

import defectlab
from defectlab.sweeps.config import SweepConfig
from defectlab.sweeps.search_space import subspace_names
from defectlab_runtime.errors import OptionError


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"strategy": "optima"}, "Did you mean 'optuna'"),
        ({"objective": "image_AUROCK"}, "Did you mean 'image_AUROC'"),
        ({"objective": "test_AUROC"}, "Unknown objective"),
        ({"trials": 0}, "at least 1"),
        ({"trails": 3}, "Did you mean 'trials'"),
        ({"strategy": "random", "pruning": True}, "strategy optuna"),
        ({"pruning": {"startup": 3}}, "startup_trials"),
    ],
)
def test_a_search_that_cannot_work_is_refused_by_name(search: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        SweepConfig.from_dict(settings(Path("d"), search={"strategy": "optuna", **search}))


@pytest.mark.row("0.17")
def test_the_reference_search_holds_the_space_of_the_reference():
    config = SweepConfig.from_yaml(Path(defectlab.__file__).parents[1] / "configs/search_reference.yaml")
    assert config.search is not None
    assert (config.search.trials, config.search.objective, config.search.maximizes) == (200, "image_F1Score", True)
    channels = {"blocks.1": 24, "blocks.2": 40, "blocks.4": 112}
    for part in config.grid[1:]:
        (layers,) = part["model.layers"].values
        assert max(part["model.n_features"].values) == sum(channels[layer] for layer in layers) // 10 * 10
    assert subspace_names(config.grid)[-1] == "padim 7"
