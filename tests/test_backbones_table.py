"""The table of docs/backbones.md: pairs of runs, and what the paired tests say of them."""

import pytest
from helpers.runs import measured, scored

from benchmarks.backbones import BACKBONES, BEGIN, CONFIG, END, PAGE, table
from defectlab.experiment import Experiment
from defectlab.results.run.run import Run
from defectlab.sweeps.config import SweepConfig


def of(run: Run, backbone: str) -> Run:
    run.update(
        backbone=run.record.backbone.replaced(name=backbone),
        metrics=run.record.metrics | {"pixel_AUROC": None, "pixel_AUPRO": None},
    )
    return run


def test_a_pair_is_a_line_that_says_who_is_better_or_that_they_tie():
    worse, better = of(measured("r", 3.0, 2), BACKBONES[0]), of(measured("l", 0.5, 0), BACKBONES[1])
    near = [of(measured(name, 0.5, seed, dataset="digits"), weights) for name, seed, weights in
            (("n", 0, BACKBONES[0]), ("m", 1, BACKBONES[1]))]  # fmt: skip
    alone = of(scored("alone", 0.5, dataset="bottle"), BACKBONES[0])
    first, second = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table([worse, alone, *near, better]).splitlines()[2:]
    )
    values = [f"{run.record.metrics['image_AUROC']:.3f}" for run in (worse, better)]
    assert first == ["coins", "PaDiM", "60 (30)", *values, f"{BACKBONES[1]}, p < 0.001", *["n/a", "n/a", ""] * 2]
    assert second[0] == "digits"
    assert second[5].startswith("tie, p = 0.")


def test_the_configuration_has_each_model_and_set_with_both_backbones():
    every = [Experiment.from_dict(data) for data in SweepConfig.from_yaml(CONFIG).expanded()]
    cases = [(one.data.root, one.model["name"], one.backbone.name) for one in every]
    assert len(cases) == len(set(cases)) == 4 * 2 * len(BACKBONES)
    settings = {(root, model): set() for root, model, _ in cases}
    for one in every:  # nothing but the layers' names differs within a pair
        its = {key: value for key, value in one.model.items() if key != "layers"}
        settings[one.data.root, one.model["name"]].add(repr((its, one.trainer, one.seed, len(one.model["layers"]))))
    assert {len(found) for found in settings.values()} == {1}


@pytest.mark.parametrize("marker", [BEGIN, END])
def test_the_page_has_the_markers(marker: str):
    assert PAGE.read_text(encoding="utf-8").count(marker) == 1
