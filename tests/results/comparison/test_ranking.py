"""The leaderboard's facts: what is ranked with what, ties, seeds as one, and what is missing."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.runs import finished, measured, set_protocol

from defectlab.results.comparison.dataset_means import means_over_datasets
from defectlab.results.comparison.paired_test import compare_runs
from defectlab.results.comparison.ranking import BEST, TIED, UNTESTED, WORSE, Ranking, rank_rows
from defectlab.results.comparison.repeats import summarise
from defectlab.results.comparison.runs import kinds_of
from defectlab.results.comparison.significance import mean_auroc_interval, read_test_scores
from defectlab.results.curves import by_kind
from defectlab.results.run.run import Run
from defectlab.results.workbook_row import IMPORTED, KEY, row_of
from defectlab_runtime.scores import ScoreRow


def rankings_of(*runs: Run) -> list[Ranking]:
    rows = [row_of(run) for run in runs]
    return rank_rows(
        rows,
        {run.record.run_id: run for run in runs},
        {run.record.run_id: read_test_scores(run) for run in runs},
    )


def test_the_verdicts_are_those_of_compare():
    runs = [measured("far", 3.0, 2), measured("best", 0.5, 0), measured("near", 0.55, 1)]
    (ranking,) = rankings_of(*runs)
    assert [(entry.name, entry.verdict) for entry in ranking.entries] == [
        ("best", BEST),
        ("near", TIED),
        ("far", WORSE),
    ]
    compared = compare_runs(runs)
    assert [entry.p for entry in ranking.entries] == [one.p for one in compared]
    assert "test: 3 good and 2 anomalous" in ranking.protocol
    assert "validation: a seeded 50% of the test images" in ranking.protocol


def test_datasets_splits_and_pixel_sizes_are_never_ranked_together():
    runs = [
        measured("a", 0.5),
        measured("b", 0.5, manifest="another split"),
        measured("c", 0.5, dataset="bottle"),
        measured("d", 0.5),
        measured("e", 0.5),
    ]
    runs[3].update(evaluation={"pixel_size": [128, 256], "grid": [128, 256]})
    runs[4].update(evaluation={"pixel_size": "input", "grid": None})
    rankings = rankings_of(*runs)
    assert [sorted(entry.name for entry in ranking.entries) for ranking in rankings] == [
        ["a", "e"],
        ["b"],
        ["c"],
        ["d"],
    ]
    assert [ranking.group[2] for ranking in rankings] == ["input", "input", "input", "128 x 256"]
    assert rankings[3].protocol.endswith("pixel metrics on 128 x 256; split coins-")


def test_seeds_are_one_entry_that_opens_into_them():
    runs = []
    for seed in (2, 0, 1):
        run = finished("one", seed=seed)
        source = measured("source", 0.8, 10 + seed)
        run.write_scores(source.scores())
        run.update(metrics=source.record.metrics)
        runs.append(run)
    (ranking,) = rankings_of(*runs, measured("other", 0.5))
    one = next(entry for entry in ranking.entries if len(entry.rows) == 3)
    assert one.name == "one"
    assert [row["seed"] for row in one.rows] == [0, 1, 2]
    assert one.spreads["image_AUROC"] == summarise(runs).metrics["image_AUROC"]
    assert one.interval == mean_auroc_interval([read_test_scores(run) for run in sorted(runs, key=_seed)])
    assert one.interval.low < one.spreads["image_AUROC"].mean < one.interval.high
    assert [part.spreads["image_AUROC"].mean for part in one.seeds] == [row["image_AUROC"] for row in one.rows]


def _seed(run: Run) -> int:
    return run.record.facts["seed"]


def test_near_duplicates_across_splits_are_told_of():
    rows = [row_of(finished(name)) for name in ("one", "other")]
    (ranking,) = rank_rows([row | {"near_duplicates": 49} for row in rows], {}, {})
    assert "49 pairs of near-duplicates in two splits" in ranking.protocol
    assert "near-duplicates" not in rank_rows(rows, {}, {})[0].protocol


def test_what_cannot_be_tested_says_so():
    best, gone = measured("best", 0.4), measured("gone", 0.5, 2)
    (gone.folder / "scores.csv").unlink()
    typed = row_of(finished("typed", metrics={"image_AUROC": 0.2})) | {"state": IMPORTED}
    rows = [row_of(best), row_of(gone), typed]
    scores = {best.record.run_id: read_test_scores(best)}
    (ranking,) = rank_rows(rows, {}, scores)
    assert [(entry.name, entry.verdict, entry.p) for entry in ranking.entries] == [
        ("best", BEST, None), ("gone", UNTESTED, None), ("typed", UNTESTED, None),
    ]  # fmt: skip
    assert ranking.entries[2].note == "imported"
    (alone,) = rank_rows(rows[:1], {}, scores)
    assert alone.entries[0].verdict == ""


def test_a_run_without_defects_comes_last_and_has_no_verdict():
    nothing = finished("nothing", metrics={"image_AUROC": None})
    (ranking,) = rankings_of(nothing, measured("a", 0.5), measured("b", 0.5, 2))
    assert [entry.name for entry in ranking.entries][-1] == "nothing"
    assert ranking.entries[-1].verdict == ""
    assert ranking.entries[-1].mean("image_AUROC") is None


@pytest.mark.parametrize("failed", [np.inf, -np.inf, np.nan])
def test_a_run_whose_scores_are_not_finite_is_not_ranked_whatever_its_record_says(failed: float):
    run = measured("failed", 0.1, 3)
    rows = run.scores()
    run.write_scores([replace(row, score=failed) if row.label == 1 else row for row in rows])
    run.update(metrics=run.record.metrics | {"image_AUROC": 1.0})
    (ranking,) = rankings_of(run, measured("a", 0.5), measured("b", 0.5, 2))
    last = ranking.entries[-1]
    assert (last.name, last.verdict, last.mean("image_AUROC")) == ("failed", "", None)
    assert last.note == "not ranked: some scores are not finite"
    assert ranking.entries[0].verdict == BEST


@pytest.mark.row("3.7")
def test_a_threshold_from_the_test_images_is_noted():
    run = measured("oracle", 0.5)
    thresholds = {
        level: one.replaced(source="test", oracle=True) for level, one in run.record.thresholds.by_level.items()
    }
    run.update(thresholds=thresholds)
    (ranking,) = rankings_of(run)
    assert ranking.entries[0].note == "threshold chosen on the test images (oracle)"


def test_speed_is_of_the_whole_test():
    (ranking,) = rankings_of(measured("a", 0.5))
    assert ranking.entries[0].images_per_second == pytest.approx(5 / 3.25)


def test_kinds_come_from_the_record_and_else_from_the_scores():
    run = finished("one")
    images = [("good", 1.0), ("good", 2.0), ("hole", 1.5), ("scratch", 3.0)]
    rows = [
        ScoreRow(f"{n}.png", "test", kind, int(kind != "good"), score, -1) for n, (kind, score) in enumerate(images)
    ]
    run.write_scores(rows)
    computed = kinds_of(run, read_test_scores(run))
    expected = {kind.defect: kind for kind in by_kind(rows, 1.5)}
    assert [kind.defect for kind in computed] == ["good", "hole", "scratch"]
    for kind in computed:
        its = expected[kind.defect]
        assert (kind.count, kind.flagged, kind.image_auroc) == (its.count, its.flagged, its.auroc)
    recorded = [
        {"defect": "hole", "label": 1, "count": 9, "flagged": 4, "image_AUROC": 0.25, "pixel_AUROC": 0.75},
        {"defect": "good", "label": 0, "count": 3, "flagged": None, "image_AUROC": None},
    ]
    run.update(per_defect=recorded)
    good, hole = kinds_of(run, None)
    assert (good.count, good.flagged) == (3, None)
    assert (hole.count, hole.flagged, hole.image_auroc, hole.pixel_auroc) == (9, 4, 0.25, 0.75)
    assert kinds_of(finished("empty"), None) == []
    assert {row[KEY] for row in [row_of(run)]} == {run.record.run_id}


def test_the_leaderboard_knows_that_photographs_of_one_part_belong_together():
    runs = [measured("best", 0.5, 0), measured("near", 0.9, 1)]
    for run in runs:
        rows = run.scores()
        of_part = {row.image_path: f"part{n // 3}_{n}.png" for n, row in enumerate(sorted(rows, key=_path))}
        run.write_scores([replace(row, image_path=of_part[row.image_path]) for row in rows])
        data = run.record.experiment.data | {"group": r"(part\d+)_"}
        run.update(experiment=run.record.experiment.replaced(data=data))
        set_protocol(run, group=r"(part\d+)_")
    (ranking,) = rankings_of(*runs)
    assert [entry.p for entry in ranking.entries] == [one.p for one in compare_runs(runs)]
    assert ranking.entries[0].note == ""
    assert "take parts, not images, as independent" in ranking.protocol


def _path(row: ScoreRow) -> str:
    return row.image_path


def test_of_equal_image_auroc_the_better_maps_come_first():
    runs = [measured(name, 0.01, seed=n) for n, name in enumerate(("poor", "good"))]
    for run, value in zip(runs, (0.7, 0.9), strict=True):
        run.update(metrics=run.record.metrics | {"image_AUPR": 1.0, "pixel_AUPRO": value})
    assert [entry.name for entry in rankings_of(*runs)[0].entries] == ["good", "poor"]
    assert [entry.name for entry in rankings_of(*runs[::-1])[0].entries] == ["good", "poor"]


def test_a_configuration_on_several_datasets_has_its_mean_over_them():
    coins = [measured("one", 0.5, seed=n, dataset="coins") for n in range(1)]
    runs = [*coins, measured("one", 0.9, 3, dataset="bottle"), measured("one", 2.0, 5, dataset="wells")]
    runs += [measured("other", 0.6, 1, dataset=name, options={"n_features": 7}) for name in ("coins", "bottle")]
    runs += [measured("alone", 0.6, 1, dataset="coins", options={"n_features": 9})]
    runs[2].update(metrics=runs[2].record.metrics | {"pixel_AUROC": None})
    one, other = means_over_datasets(rankings_of(*runs))
    areas = [run.record.metrics["image_AUROC"] for run in runs]
    assert list(one.entries) == ["coins", "bottle", "wells"]
    assert one.means["image_AUROC"] == pytest.approx(np.mean(areas[:3]))
    assert one.means["pixel_AUROC"] == pytest.approx(np.mean([run.record.metrics["pixel_AUROC"] for run in runs[:2]]))
    assert one.note == (
        f"3 datasets: coins, bottle, wells; image AUROC lowest on wells ({areas[2]:.3f}); pixel metrics of coins, "
        "bottle only"
    )
    assert other.means["image_AUROC"] == pytest.approx(np.mean(areas[3:5]))
    assert means_over_datasets(rankings_of(*coins)) == []
    data = runs[1].record.experiment.data
    places = {"root": "elsewhere", "abnormal_dir": "bad", "num_workers": 8, "seed": 7}
    runs[1].update(experiment=runs[1].record.experiment.replaced(data=data | places))
    assert len(means_over_datasets(rankings_of(*runs[:2]))) == 1
    runs[1].update(experiment=runs[1].record.experiment.replaced(data=data | {"augment": {"hflip": 0.5}}))
    assert means_over_datasets(rankings_of(*runs[:2])) == [], (
        "augmented on one and not on the other is no one configuration"
    )


def test_means_are_ranked_among_the_same_datasets_and_splits_only():
    """Two configurations on one split of coins, a third on another; the fourth on both, and better on the rare one."""
    runs = []
    for place, splits in enumerate((["a"], ["a"], ["b"], ["a", "b"])):
        options = {"n_features": place}
        noise = {"a": 0.5 + place, "b": 0.1}
        runs += [measured(f"{place}{split}", noise[split], place, manifest=split, options=options) for split in splits]
        runs.append(measured(f"{place}", 0.5, place, dataset="bottle", options=options))
    orders = [runs, runs[::-1], runs[3:] + runs[:3]]
    found = [means_over_datasets(rankings_of(*order)) for order in orders]
    for means in found:
        by_place = {str(one.first.rows[0]["model.n_features"]): one for one in means}
        assert [one.sets[1][1] for one in by_place.values()].count("b") == 1
        assert {key: one.entries["coins"].name for key, one in by_place.items()} == {
            "0": "0a", "1": "1a", "2": "2b", "3": "3a",
        }  # fmt: skip
        assert by_place["2"].rank == 1, "alone on its split"
        on_a = sorted((by_place[key] for key in "013"), key=lambda one: one.rank)
        assert [one.rank for one in on_a] == [1, 2, 3]
        areas = [one.means["image_AUROC"] for one in on_a]
        assert areas == sorted(areas, reverse=True)
        assert "not counted: coins split b (input)" in by_place["3"].note
        assert "not counted" not in by_place["0"].note
        assert [one.sets for one in means[:3]] == [on_a[0].sets] * 3, "rows on the same images stand together"


def test_a_verdict_stands_beside_the_counts_that_explain_it():
    (ranking,) = rankings_of(measured("one", 0.5), measured("two", 0.6, 1))
    for entry in ranking.entries:
        assert entry.values()["dataset"] == "coins"
        assert entry.values()["test images"] == entry.images == "3 good + 2 anomalous"
    assert rank_rows([{"run_id": "x", "dataset": "d", "test_images": 7}], {}, {})[0].entries[0].images == "7"


def test_groups_of_datasets_have_means_of_their_own():
    runs = [measured("a", 0.5, n, dataset=name) for n, name in enumerate(("bottle", "tile", "wood", "mine"))]
    for run in (runs[0], runs[3]):
        run.update(sweep={"name": "s", "groups": ["metal"]})
    together = means_over_datasets(rankings_of(*runs))
    assert {one.over: set(one.entries) for one in together} == {
        "all": {"bottle", "tile", "wood", "mine"},
        "textures": {"tile", "wood"},
        "metal": {"bottle", "mine"},
    }
    assert together[0].over == "all"
    area = {run.record.dataset.name: run.record.metrics["image_AUROC"] for run in runs}
    textures = next(one for one in together if one.over == "textures")
    assert textures.means["image_AUROC"] == pytest.approx((area["tile"] + area["wood"]) / 2)
    assert textures.note.startswith("mean of textures: 2 datasets: ")


def test_a_run_that_a_sweep_chose_on_the_test_images_says_so():
    refit = {"metric": "image_AUROC", "oracle": True, "among": 12}
    runs = [finished("chosen", sweep={"refit": refit}), finished("honest", sweep={"refit": refit | {"oracle": False}})]
    (ranking,) = rankings_of(*runs)
    notes = {entry.name: entry.note for entry in ranking.entries}
    assert notes == {"chosen": "best of 12 by image_AUROC of the test images (oracle)", "honest": ""}
