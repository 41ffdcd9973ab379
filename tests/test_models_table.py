"""The table of docs/models.md: what the workbook says, for every model of the registry."""

from pathlib import Path

import pytest
from helpers.runs import finished

from benchmarks.every_model import PAGE, SETS, wanted, write_page
from benchmarks.models_table import BEGIN, END, HEADER, dataset_of, row_for, settings_of, title_of
from defectlab.experiment import Experiment
from defectlab.models.registry import MODELS
from defectlab.results.workbook import read_workbook, update_workbook
from defectlab.utils.files import replace_between

LAYERS = ["layer1", "layer2"]


def experiment(model: str = "padim", epochs: int = 5, **options) -> dict:
    return {
        "data": {"root": "somewhere/coins", "train_batch_size": 10, "num_workers": 7},
        "backbone": {"name": "resnet18"},
        "model": {"name": model, "layers": LAYERS, **options},
        "trainer": {"max_epochs": epochs, "keep_checkpoint": "weights"},
        "seed": 42,
    }


def lines_of(text: str) -> list[dict[str, str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0]) == HEADER
    return [dict(zip(HEADER, line, strict=True)) for line in cells[2:]]


def test_the_table_is_what_the_workbook_says(tmp_path: Path):
    page = tmp_path / "models.md"
    page.write_text(f"Before.\n{BEGIN}\nold\n{END}\nAfter.\n")
    finished(
        "one", options={"layers": LAYERS, "n_features": 100, "image_size": [64, 64]}, metrics={"pixel_AUROC": None}
    )
    finished("two", options={"layers": LAYERS, "n_features": 50})
    finished("else", dataset="digits", options={"layers": LAYERS, "n_features": 50})
    every = [experiment(n_features=n_features) for n_features in (50, 100, 200)]
    assert write_page(every, page) == 1
    assert page.read_text().startswith(f"Before.\n{BEGIN}\n|")
    assert page.read_text().endswith(f"|\n{END}\nAfter.\n")
    fifty, hundred, absent = lines_of(page.read_text())
    rows = {row["run"]: row for row in read_workbook() if row["dataset"] == "coins"}
    for line, name in ((fifty, "two"), (hundred, "one")):
        for title, metric in (
            ("image AUROC", "image_AUROC"),
            ("image F1", "image_F1Score"),
            ("pixel F1", "pixel_F1Score"),
        ):
            assert line[title] == f"{rows[name][metric]:.3f}"
        assert (line["set"], line["model"], line["backbone"], line["fit s"]) == ("coins", "PaDiM", "resnet18", "12")
        assert float(line["images/s"]) == pytest.approx(5 / 3.25, abs=0.05)
        assert line["epochs"] == "1"  # what it was trained for, not the 5 asked for
    assert (hundred["px"], hundred["pixel AUROC"], hundred["pixel AUPRO"]) == ("64x64", "n/a", "n/a")
    assert fifty["settings"] == "layers layer1, layer2, n_features 50"
    assert (absent["epochs"], absent["image AUROC"], absent["pixel F1"]) == ("", "not on record", "")


@pytest.mark.parametrize(
    "other",
    [
        experiment(n_features=99),
        experiment("patchcore", n_features=100),
        experiment(n_features=100) | {"seed": 43},
        experiment(n_features=100) | {"backbone": {"name": "resnet50"}},
        experiment(n_features=100) | {"data": {"root": "digits"}},
        experiment(n_features=100) | {"data": {"root": "coins", "augment": {"hflip": 0.5}}},
        experiment(n_features=100) | {"evaluation": {"pixel_size": "original"}},
    ],
)
def test_a_row_of_another_experiment_is_not_taken(other: dict):
    run = finished("one")
    rows = update_workbook(run).rows
    assert row_for(experiment(n_features=100), rows) is not None
    assert row_for(other, rows) is None


def test_what_is_not_named_must_be_at_its_default():
    plain = {"layers": LAYERS, "coreset_sampling_ratio": 0.1, "num_neighbors": 9}
    mine = experiment("patchcore", coreset_sampling_ratio=0.1)
    for name, options in (("neighbours", {"num_neighbors": 5}), ("random", {"bank_sampling": "random"})):
        rows = update_workbook(finished(name, "patchcore", options=plain | options)).rows
        assert row_for(mine, rows) is None
    rows = update_workbook(finished("plain", "patchcore", options=plain)).rows
    assert (row_for(mine, rows) or {})["run"] == "plain"
    random = experiment("patchcore", coreset_sampling_ratio=0.1, bank_sampling="random")
    assert (row_for(random, rows) or {})["run"] == "random"


def test_the_teacher_stands_in_the_backbones_column(tmp_path: Path):
    page = tmp_path / "models.md"
    page.write_text(f"{BEGIN}\n{END}\n\n")
    options = {"layers": LAYERS, "n_features": 100, "teacher": "weights/teacher_mine.safetensors"}
    finished("distilled", options=options)
    every = [experiment(n_features=100, teacher=options["teacher"]) | {"backbone": {"name": "none"}}]
    assert write_page(every, page) == 0
    assert "| coins | PaDiM | teacher_mine |" in page.read_text()


def test_epochs_that_the_user_chooses_count():
    rows = update_workbook(finished("flow", "cflow", options={"layers": LAYERS})).rows
    assert row_for(experiment("cflow", epochs=1), rows) is not None
    assert row_for(experiment("cflow", epochs=2), rows) is None


@pytest.mark.parametrize("name", SETS)
def test_every_model_is_in_the_configurations(name: str):
    every = [Experiment.from_dict(data) for data in wanted([name])]
    assert {one.model["name"] for one in every} == set(MODELS)
    assert len({str(one.to_dict()) for one in every}) == len(every)


def test_the_page_has_the_line_of_each_configuration():
    text = PAGE.read_text(encoding="utf-8")
    page = lines_of(text[text.index(BEGIN) : text.index(END)])
    every = wanted(SETS)
    assert [(line["set"], line["model"], line["settings"]) for line in page] == [
        (dataset_of(one), title_of(one), settings_of(one)) for one in every
    ]
    for line, one in zip(page, every, strict=True):
        epochs = one["trainer"].get("max_epochs", 1)
        assert line["epochs"] == str(epochs) or line["image AUROC"] == "not on record"


def test_markers_must_be_there_once_and_in_order(tmp_path: Path):
    page = tmp_path / "page.md"
    for text in ("none", f"{BEGIN}", f"{END} {BEGIN}", f"{BEGIN}{BEGIN}{END}"):
        page.write_text(text)
        with pytest.raises(ValueError, match="once each"):
            replace_between(page, BEGIN, END, "new")
        assert page.read_text() == text
    page.write_text(f"a {BEGIN}old{END} b")
    replace_between(page, BEGIN, END, r"\1 new")
    assert page.read_text() == f"a {BEGIN}\n\\1 new\n{END} b"
