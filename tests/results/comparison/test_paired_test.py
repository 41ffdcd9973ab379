"""Runs compared on the same images: ties, differences, and what must not be compared."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import finished, run_with_maps, scored, set_protocol

from defectlab.cli import main
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.evaluation.paired_tests import delong_test
from defectlab.results.comparison.paired_test import compare_runs
from defectlab.results.comparison.significance import against_best, read_test_scores
from defectlab.results.evaluate import evaluate_run
from defectlab.results.run.run import Run
from defectlab.results.workbook_row import ranked_within, row_of
from defectlab_runtime.errors import InputError
from defectlab_runtime.scores import ScoreRow


def test_a_worse_model_is_told_apart_and_a_similar_one_is_tied():
    best, near, far = scored("best", 0.5, 0), scored("near", 0.55, 1), scored("far", 3.0, 2)
    found = compare_runs([far, near, best])
    assert [one.run.folder.name for one in found][-1] == "far"
    assert found[0].tied
    assert found[1].tied
    assert not found[2].tied
    assert found[2].p < 0.05
    by_path = [sorted(one.run.scores(), key=lambda row: row.image_path) for one in found]
    scores = [[row.score for row in rows] for rows in by_path]
    plain = delong_test(scores[0], scores[2], [row.label for row in by_path[0]])
    assert found[2].test == plain
    assert found[2].p == 0.002  # the smallest of 499 swaps of all three


def test_the_command_prints_the_verdicts(capsys: pytest.CaptureFixture[str]):
    runs = [scored("one", 0.5, 0), scored("two", 4.0, 2)]
    assert main(["compare", *(str(run.folder) for run in runs)]) == 0
    printed = capsys.readouterr().out
    lines = [line.split("│") for line in printed.splitlines() if "│" in line]
    assert {line[2].strip(): line[-2].strip() for line in lines} == {"one": "best", "two": "worse"}
    assert "coins: 30 good and 30 anomalous test images" in printed


def test_other_images_are_never_compared(capsys: pytest.CaptureFixture[str]):
    one, other = scored("one", 0.5), scored("two", 0.5, manifest="another")
    with pytest.raises(InputError, match="different images or splits"):
        compare_runs([one, other])
    with pytest.raises(InputError, match="no test scores"):
        compare_runs([one, finished("empty")])
    assert main(["compare", str(one.folder)]) == 2
    assert "at least two runs" in capsys.readouterr().err


def with_metrics(run: Run) -> Run:
    run.update(**evaluate_run(run))
    return run


def test_other_metrics_are_compared_by_the_paired_bootstrap(capsys: pytest.CaptureFixture[str]):
    runs = [with_metrics(scored(name, noise, seed)) for name, noise, seed in (("a", 3.0, 0), ("b", 0.3, 1))]
    best, other = compare_runs(runs, "image_F1Max")
    assert (best.run, best.test, best.p) == (runs[1], None, None)
    assert best.value == runs[1].record.metrics["image_F1Max"]
    assert other.test.difference == pytest.approx(best.value - other.value)
    assert other.test.low > 0
    assert not other.tied
    lower = compare_runs(runs, "image_FPR_at_95TPR")
    assert lower[0].run == runs[1], "a lower rate is better"
    assert lower[1].test.difference < 0
    folders = [str(run.folder) for run in runs]
    assert main(["compare", *folders, "--metric", "image_AUPR"]) == 0
    printed = capsys.readouterr().out
    assert "image AUPR" in printed
    assert "Paired bootstrap" in printed
    assert main(["compare", *folders, "--metric", "image_AUPRC"]) == 2
    assert "image_AUPR" in capsys.readouterr().err
    assert main(["compare", "--metric", "image_AUPR"]) == 2
    with pytest.raises(InputError, match=r"pixel_AUPRO of . has no value: there are no anomaly maps"):
        compare_runs(runs, "pixel_AUPRO")


def test_pixels_are_drawn_with_their_images(own_project: Path):
    good, poor = run_with_maps("good", 0, 30, 0.5, own_project), run_with_maps("poor", 1, 30, 0.5, own_project)
    maps = np.load(poor.maps_path("test"))
    np.save(poor.maps_path("test"), maps + np.random.default_rng(0).normal(0, 2, maps.shape).astype(np.float32))
    with_metrics(poor)
    rows = poor.scores()
    np.save(poor.maps_path("test"), np.load(poor.maps_path("test"))[::-1])  # any order: images are matched by path
    np.save(poor.masks_path("test"), np.load(poor.masks_path("test"))[::-1])
    poor.write_scores(rows[::-1])
    for metric in ("pixel_AUROC", "pixel_AUPRO"):
        best, other = compare_runs([poor, good], metric)
        assert best.run is good
        assert other.p < 0.001
        assert other.test.low < best.value - other.value < other.test.high
    poor.update(evaluation={"pixel_size": "original", "grid": None})
    with pytest.raises(InputError, match="different grids"):
        compare_runs([poor, good], "pixel_AUROC")


def test_a_centre_crop_has_other_pixels_than_a_whole_image_of_its_size(own_project: Path):
    whole, cropped = run_with_maps("whole", 0, 30, 0.5, own_project), run_with_maps("cropped", 1, 30, 0.5, own_project)
    cropped.update(preprocessing=Preprocessing(size=(24, 24), crop=(16, 16)).to_dict())
    with pytest.raises(InputError, match=r"different grids .16 x 16.*; 16 x 16, the centre of 24 x 24"):
        compare_runs([whole, cropped], "pixel_AUROC")
    assert ranked_within(row_of(whole), "pixel_AUROC") != ranked_within(row_of(cropped), "pixel_AUROC")
    assert ranked_within(row_of(whole), "image_AUROC")[0] == ranked_within(row_of(cropped), "image_AUROC")[0]


def test_masks_that_mark_other_pixels_have_other_ground_truth(own_project: Path):
    old, new = run_with_maps("old", 0, 30, 0.5, own_project), run_with_maps("new", 1, 30, 0.5, own_project)
    set_protocol(new, mask_reading={"threshold": 0, "inverted": False, "not_zero": True})
    expected = compare_runs([old, new], "pixel_AUROC")[1].p
    for threshold, words in ((127, "above 127"), (0, "not 0 of opacity or a palette's numbers")):
        set_protocol(new, mask_reading={"threshold": threshold, "inverted": False, "not_zero": False})
        with pytest.raises(InputError, match=rf"other pixels \(not 0 in old; {words} in new\)"):
            compare_runs([old, new], "pixel_AUROC")
        assert len(compare_runs([old, new], "image_F1Max")) == 2
    set_protocol(old, mask_reading=new.record.dataset.protocol.mask_reading)
    assert compare_runs([old, new], "pixel_AUROC")[1].p == expected


def test_masks_that_lie_otherwise_on_their_images_make_another_test_set():
    one, other = scored("one", 0.5, 0), scored("two", 3.0, 2, manifest="another")
    entry = {"path": "0.png", "sha256": "a", "label": 1, "mask_sha256": "b", "split": "test"}
    for run, more in ((one, {}), (other, {"mask_orientation": 1})):
        (run.folder / "manifest.json").write_text(json.dumps({"entries": [entry | more]}))
    assert len(compare_runs([one, other])) == 2
    (other.folder / "manifest.json").write_text(json.dumps({"entries": [entry | {"mask_orientation": 6}]}))
    with pytest.raises(InputError, match="different images or splits"):
        compare_runs([one, other])


def elsewhere(run: Run) -> Run:
    """The same run, made of the same images in another folder."""
    run.update(dataset=run.record.dataset.replaced(root="/mnt/coins"))
    run.write_scores([replace(row, image_path=f"/mnt/coins/{row.image_path}") for row in run.scores()])
    return run


def test_a_dataset_may_lie_elsewhere():
    one, other = scored("one", 0.5, 0), scored("two", 3.0, 2)
    expected = compare_runs([one, other])[1].p
    elsewhere(other)
    assert compare_runs([one, other])[1].p == expected
    assert against_best([[read_test_scores(one)], [read_test_scores(other)]], 0)[1] == expected


def test_what_is_not_the_same_is_not_compared():
    one, other = scored("one", 0.5, 0), scored("two", 3.0, 2)
    with pytest.raises(InputError, match="named twice"):
        compare_runs([one, other, Run.open(one.folder)])
    rows = other.scores()
    other.write_scores([replace(rows[0], label=1 - rows[0].label), *rows[1:]])
    with pytest.raises(InputError, match="label them otherwise"):
        compare_runs([one, other])
    other.write_scores(rows)
    set_protocol(other, group=r"^(\d\d)")
    for runs in ([one, other], [other, one]):
        with pytest.raises(InputError, match=r"which images show one part .data\.group"):
            compare_runs(runs)


def test_images_of_unknown_label_keep_no_runs_apart():
    one, other = scored("one", 0.5, 0), scored("two", 3.0, 2)
    expected = compare_runs([one, other])[1]
    other.write_scores([ScoreRow("000a.png", "test", "", -1, 99.0, -1), *other.scores()])
    found = compare_runs([one, other])[1]
    assert (found.value, found.p) == (expected.value, expected.p)
    assert against_best([[read_test_scores(one)], [read_test_scores(other)]], 0)[1] == expected.p
