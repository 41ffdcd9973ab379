"""One model for two categories: what is on record of each is what a run on it alone would have."""

import shutil

import numpy as np
import pytest
from helpers.categories import NAMES, trained_on_both
from helpers.models import data, small, trained
from sklearn.metrics import roc_auc_score

from defectlab import Engine
from defectlab.cli import main
from defectlab.results.comparison.paired_test import compare_runs
from defectlab.results.comparison.runs import rankings_of
from defectlab.results.evaluate import evaluate_run
from defectlab.results.run.category_run import category_run, category_runs, each_alone
from defectlab.results.run.run import Run
from defectlab.results.run.scores import read_scores
from defectlab_runtime.errors import InputError, OptionError


@pytest.fixture(scope="module")
def alone(categories, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    return {name: trained(small("patchcore"), categories / name, results) for name in NAMES}


def test_each_category_has_its_images_thresholds_and_metrics(both, alone):
    assert both.status == "finished"
    assert [one.name for one in both.record.categories] == NAMES
    for one in category_runs(both):
        single = alone[one.category].record
        record = one.record
        assert record.dataset.counts == single.dataset.counts
        assert record.dataset.manifest == single.dataset.manifest  # the same test images
        names = [row.image_path for row in one.scores("test")]
        assert sorted(names) == sorted(row.image_path for row in alone[one.category].scores("test"))
        scores, labels = (np.array([getattr(row, key) for row in one.scores("test")]) for key in ("score", "label"))
        assert record.metrics["image_AUROC"] == pytest.approx(roc_auc_score(labels, scores))
        limit = record.thresholds.image.value
        assert [row.pred_label for row in one.scores()] == [int(row.score > limit) for row in one.scores()]
        validation = one.scores("validation")
        good = max(row.score for row in validation if row.label == 0)
        bad = min(row.score for row in validation if row.label == 1)
        if good < bad:  # where they are apart the highest F1 is between them
            assert good < limit < bad
        caught = ((scores > limit) & (labels == 1)).sum()
        f1 = 2 * caught / ((scores > limit).sum() + labels.sum())
        assert record.metrics["image_F1Score"] == pytest.approx(f1)
        assert {kind.defect for kind in record.per_defect} == {"good", "blot"}
        maps, masks = one.maps("test"), one.masks("test")
        assert roc_auc_score(masks.ravel(), maps.ravel()) == pytest.approx(record.metrics["pixel_AUROC"], abs=1e-6)


def test_the_runs_metrics_are_the_means_and_it_has_no_threshold_for_all(both):
    record = both.record
    for metric in ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_AUPRO"):
        values = [one.metrics[metric] for one in record.categories]
        assert record.metrics[metric] == pytest.approx(np.mean(values))
    assert record.thresholds.image.value is None
    assert record.thresholds.pixel.value is None
    assert "each of the 2 categories has its own" in record.thresholds.image.reason
    assert set(record.thresholds.categories) == set(NAMES)
    assert {kind.defect for kind in record.per_defect} == {
        f"{name}/{kind}" for name in NAMES for kind in ("good", "blot")
    }
    assert record.dataset.name == "bolt+nut"
    assert {row.category for row in both.scores()} == set(NAMES)
    assert evaluate_run(both)["metrics"] == record.metrics


def test_a_metric_that_one_category_lacks_has_no_mean_but_a_reason(categories, tmp_path):
    shutil.copytree(categories, tmp_path / "data")
    shutil.rmtree(tmp_path / "data/nut/ground_truth")
    run = trained_on_both(tmp_path / "data")
    bolt, nut = run.record.categories
    assert bolt.metrics["pixel_AUROC"] is not None
    assert nut.metrics.get("pixel_AUROC") is None
    assert run.record.metrics["pixel_AUROC"] is None
    assert run.record.metric_reasons["pixel_AUROC"] == (
        "no mean over all categories, for nut has none (there are no masks)"
    )
    assert run.record.metrics["image_AUROC"] is not None
    assert run.record.thresholds.categories["nut"].pixel.rule == "good_max"


def test_a_score_file_has_a_column_of_categories_only_where_there_are_some(both, alone):
    assert (both.folder / "scores.csv").read_text().splitlines()[0].endswith("pred_label,category")
    assert (alone["bolt"].folder / "scores.csv").read_text().splitlines()[0].endswith(",pred_label")
    assert {row.category for row in read_scores(alone["bolt"].folder / "scores.csv")} == {None}
    record = alone["bolt"].record.to_dict()
    assert not {"categories"} & {*record, *record["thresholds"], *record["experiment"]["data"]}  # as before there were


def test_the_order_of_the_categories_makes_no_other_experiment(categories, both):
    model = small("patchcore")
    for asked in (["nut", "bolt"], "all", "bolt,nut"):
        assert Engine().run_id(model, data(categories, categories=asked)) == both.record.run_id


def test_a_category_stands_beside_the_runs_on_it_alone(both, alone):
    rankings = {ranking.group[0]: ranking for ranking in rankings_of([both, *alone.values()])}
    assert set(rankings) == set(NAMES)
    for ranking in rankings.values():
        assert len(ranking.entries) == 2
        notes = [entry.note for entry in ranking.entries]
        assert sum("one model for 2 categories: bolt, nut" in note for note in notes) == 1
        assert {entry.verdict for entry in ranking.entries} <= {"best", "tied with the best", "worse"}
    found = compare_runs([category_run(both, "bolt"), category_run(alone["bolt"], "bolt")], "image_AUPR")
    assert {one.run.record.run_id for one in found} == {f"{both.record.run_id}/bolt", alone["bolt"].record.run_id}
    assert [one.record.dataset.name for one in each_alone([both, alone["nut"]])] == [*NAMES, "nut"]


def test_the_command_compares_on_a_category_and_tells_runs_of_one_name_apart(both, alone, capsys):
    runs = [str(both.folder), str(alone["bolt"].folder)]
    assert main(["compare", *runs]) == 2
    assert "say which of these is compared, such as --category bolt" in capsys.readouterr().err
    assert main(["compare", *runs, "--category", "bolt"]) == 0
    printed = capsys.readouterr().out
    assert "bolt+nut/resnet18" in printed
    assert " bolt/resnet18" in printed


def test_what_would_pool_categories_is_refused(both, alone, categories):
    with pytest.raises(InputError, match=r"one model for bolt, nut.*category_run\(run, 'bolt'\)"):
        compare_runs([both, alone["bolt"]])
    with pytest.raises(InputError, match="Did you mean 'nut'"):
        category_run(both, "nuts")
    with pytest.raises(InputError, match="of the dataset bolt alone, not of nut"):
        category_run(alone["bolt"], "nut")
    with pytest.raises(InputError, match="read only"):
        category_run(both, "nut").update(metrics={})
    with pytest.raises(OptionError, match=r"aupimo and data\.categories"):
        Engine(aupimo=True).fit(model=small("patchcore"), datamodule=data(categories, categories="all"))


def test_the_worst_maps_are_of_each_category(categories, tmp_path):
    run = trained_on_both(categories, keep_maps="worst")
    everything = Run.open(run.folder)
    kept = everything.record.maps.rows
    assert everything.maps("test").shape[0] == len(kept)
    for one in category_runs(everything):
        own = one.record.maps.rows
        assert own
        assert one.maps("test").shape[0] == len(own)
        assert [one.places("test")[row] for row in own] == [row for row in kept if row in one.places("test")]
    assert evaluate_run(everything)["metrics"] == everything.record.metrics
