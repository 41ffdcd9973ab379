"""What is printed after a run: its row's place among the others, and the best of each model."""

import pytest
from helpers.runs import finished

from defectlab.results.run.run import Run
from defectlab.results.workbook import best_table, read_workbook, update_workbook
from defectlab.visualization.terminal import metrics_table, peers_table


def test_the_first_run_on_its_images_has_no_place_among_others(capsys: pytest.CaptureFixture[str]):
    run = finished("a")
    peers_table(run, update_workbook(run).rows)
    assert "the first on these images" in capsys.readouterr().out


def test_the_place_is_among_runs_on_the_same_images_and_split(capsys: pytest.CaptureFixture[str]):
    for number in range(7):
        finished(f"r{number}", metrics={"image_AUROC": 0.9 - number / 100, "pixel_AUROC": None})
    finished("other images", dataset="bottle", metrics={"image_AUROC": 1.0})
    finished("other split", manifest="another", metrics={"image_AUROC": 1.0})
    run = finished("last", metrics={"image_AUROC": 0.5, "pixel_AUROC": 0.4})
    peers_table(run, update_workbook(run).rows)
    printed = capsys.readouterr().out
    assert "place 8 of 8 by image_AUROC" in printed
    assert "place 1 of 1 by pixel_AUROC" in printed
    assert "other" not in printed
    assert "r4" in printed
    assert "r5" not in printed  # the best five and this one
    assert "this run" in printed


def test_equal_values_share_the_better_place(capsys: pytest.CaptureFixture[str]):
    finished("a", metrics={"image_AUROC": 0.9})
    run = finished("b", metrics={"image_AUROC": 0.9})
    peers_table(run, update_workbook(run).rows)
    assert "place 1 of 2 by image_AUROC" in capsys.readouterr().out


def test_the_table_of_best_models_takes_one_row_a_model_and_says_out_of_how_many():
    finished("low", metrics={"image_AUROC": 0.6})
    finished("high", metrics={"image_AUROC": 0.75, "pixel_F1Score": None})
    finished("bank", "patchcore", metrics={"image_AUROC": 0.8}, options={"layers": ["layer2"], "num_neighbors": 9})
    update_workbook()
    header, _, first, second = best_table(read_workbook()).splitlines()
    assert header.startswith("| dataset | model | backbone | settings | image_AUROC |")
    assert first.startswith("| coins | PatchCore | resnet18 | layers layer2, 9 neighbours | 0.800 |")
    assert first.endswith("| 1 |")
    assert second.startswith("| coins | PaDiM | resnet18 | layers layer1, layer2, 100 features | 0.750 |")
    assert second.endswith("| n/a | 2 |")


def test_pixel_metrics_on_grids_of_another_size_have_no_place_among_them(capsys: pytest.CaptureFixture[str]):
    finished("large", metrics={"pixel_AUROC": 0.9}, evaluation={"pixel_size": "input", "grid": [512, 512]})
    run = finished("b", metrics={"pixel_AUROC": 0.8}, evaluation={"pixel_size": "input", "grid": [256, 256]})
    peers_table(run, update_workbook(run).rows)
    printed = capsys.readouterr().out
    assert "of 2 by image_AUROC" in printed
    assert "place 1 of 1 by pixel_AUROC" in printed


def test_one_model_for_two_categories_is_a_row_for_each_and_the_mean(both: Run, capsys: pytest.CaptureFixture[str]):
    metrics_table(both)
    text = capsys.readouterr().out
    assert "One model for 2 categories, each at its own thresholds" in text
    for one in both.record.categories:
        (line,) = [line for line in text.splitlines() if one.name in line.split()]
        assert f"{one.metrics['image_AUROC']:.4f}" in line
