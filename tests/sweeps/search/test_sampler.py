"""Random draws: their space, and the same from seed and number of a trial in every version."""

from typing import Any

import numpy as np

from defectlab.sweeps.search.study import SearchStudy
from defectlab.sweeps.search_config import SearchConfig
from defectlab.sweeps.search_space import Choices, Interval, Range, space_size, subspace_names


def random_draws(space: Any, seed: int, **options: int) -> list[dict[str, Any]]:
    study = SearchStudy(SearchConfig("random", seed=seed, **options), space)
    draws = []
    while asked := study.ask():
        draws += [trial.values for trial in asked]
        for trial in asked:
            trial.state = "complete"
            trial.value = 0.0
            study.tell(trial)
    return draws


def test_random_draws_are_those_of_searches_begun_before_optuna_drew_them():
    """They keep no ledger: with other draws a search that was begun would not go on. Written down from that code."""
    space = [
        {"model.name": Choices(("padim",)), "model.n_features": Range(10, 500, 10),
         "model.layers": Choices((["layer1"], ["layer2", "layer3"]))},
        {"model.name": Choices(("cflow", "fastflow")), "model.lr": Interval(1e-5, 1e-2, log=True),
         "model.clamp": Range(1, 9, 1, True), "model.x": Range(0.1, 0.85, 0.25), "model.y": Range(1.5, 3, 0.5)},
        {"model.name": Choices(("padim",)), "data.val_split_ratio": Interval(0.25, 0.5),
         "model.n_features": Choices((5,))},
    ]  # fmt: skip
    assert random_draws(space, 7, trials=7, batch=2) == [
        {"model.name": "padim", "data.val_split_ratio": 0.4743, "model.n_features": 5},
        {"model.name": "padim", "data.val_split_ratio": 0.278, "model.n_features": 5},
        {"model.name": "padim", "model.n_features": 140, "model.layers": ["layer1"]},
        {"model.name": "padim", "data.val_split_ratio": 0.4711, "model.n_features": 5},
        {"model.name": "cflow", "model.lr": 7.317e-05, "model.clamp": 3, "model.x": 0.6, "model.y": 2.5},
        {"model.name": "cflow", "model.lr": 0.0009994, "model.clamp": 3, "model.x": 0.85, "model.y": 2.0},
        {"model.name": "padim", "data.val_split_ratio": 0.3985, "model.n_features": 5},
    ]


def test_random_draws_are_those_of_before_where_ends_are_equal_and_choices_stand_twice():
    """Optuna would draw nothing for one value, take equal choices as one, and cut a range at its rounded end."""
    space = [
        {"model.name": Choices(("padim", "padim")), "data.val_split_ratio": Interval(0.25, 0.25),
         "model.n_features": Range(10, 500, 10)},
        {"model.name": Choices(("cflow",)), "model.clamp": Range(3, 3, 1, True),
         "model.lr": Interval(1e-3, 1e-3, log=True), "model.layers": Choices((["layer1"], ["layer2"], ["layer1"])),
         "model.x": Range(0, 1.4, 2 / 3), "model.y": Range(1, 2.2, 0.5)},
    ]  # fmt: skip
    cflow = {"model.name": "cflow", "model.clamp": 3, "model.lr": 0.001}
    assert random_draws(space, 7, trials=6, batch=6) == [
        {**cflow, "model.layers": ["layer2"], "model.x": 1.33333333333, "model.y": 1.0},
        {**cflow, "model.layers": ["layer1"], "model.x": 0.0, "model.y": 1.0},
        {"model.name": "padim", "data.val_split_ratio": 0.25, "model.n_features": 220},
        {**cflow, "model.layers": ["layer1"], "model.x": 0.0, "model.y": 2.0},
        {**cflow, "model.layers": ["layer1"], "model.x": 0.666666666667, "model.y": 1.5},
        {**cflow, "model.layers": ["layer1"], "model.x": 1.33333333333, "model.y": 1.5},
    ]


def test_draws_stay_in_their_space_and_depend_on_seed_and_trial_alone():
    space = [
        {"model.name": Choices(("padim",)), "model.n_features": Range(10, 500, 10)},
        {
            "model.name": Choices(("cflow",)),
            "model.lr": Interval(1e-5, 1e-2, log=True),
            "model.clamp": Range(1, 9, 1, True),
        },
        {"model.name": Choices(("padim",)), "data.val_split_ratio": Interval(0.25, 0.5)},
    ]
    draws = random_draws(space, 7, trials=400)
    assert draws[10] == random_draws(space, 7, trials=11, batch=1)[10] != random_draws(space, 8, trials=11)[10]
    assert {len(one) for one in draws} == {2, 3}
    features = [one["model.n_features"] for one in draws if "model.n_features" in one]
    assert set(features) <= set(range(10, 501, 10))
    assert max(features) > 450
    rates = np.log10([one["model.lr"] for one in draws if "model.lr" in one])
    assert rates.min() >= -5
    assert rates.max() <= -2
    assert 0.2 < np.mean(rates < -4) < 0.47
    assert {one["model.clamp"] for one in draws if "model.clamp" in one} <= set(range(1, 10))
    assert subspace_names(space) == ["padim", "cflow", "padim 2"]
    assert space_size(space) is None
    assert space_size(space[:1]) == 50
