"""One experiment with several seeds or on many categories: failures survived, finished runs kept, one summary."""

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import yaml
from helpers.datasets import make_parts
from helpers.experiments import SMALL, experiment
from scipy.stats import t

import defectlab.sweeps.run_many as many
from defectlab.cli import main
from defectlab.data.manifest.options import DataOptions
from defectlab.experiment import Experiment, build
from defectlab.results.comparison.runs import rankings_of
from defectlab.results.run.run import Run, find_runs
from defectlab.sweeps.run_many import (
    METRICS,
    parse_seeds,
    per_category,
    run_categories,
    run_many,
    table_of,
    with_seeds,
    write_table,
)
from defectlab.utils import paths
from defectlab_runtime.errors import OptionError


def test_seeds_as_people_write_them():
    assert parse_seeds("0..4") == (0, 1, 2, 3, 4)
    assert parse_seeds("0,1,2") == (0, 1, 2)
    assert parse_seeds("7") == (7,)
    assert parse_seeds(" 3, 8..9") == (3, 8, 9)


@pytest.mark.parametrize("text", ["", "a", "4..0", "0..", "1,1", "0..3,2", "0..5000", "-1", "1.5"])
def test_other_forms_are_refused(text: str):
    with pytest.raises(OptionError, match="seeds"):
        parse_seeds(text)


def test_seed_and_models_seed_vary_and_the_split_stays(parts: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "defectlab")
    one = experiment(parts, seed=7, repeat=3, model=SMALL["model"] | {"seed": 5})
    found = with_seeds(one)
    assert [item.seed for item in found] == [7, 8, 9]
    assert [item.model["seed"] for item in found] == [7, 8, 9]
    assert {item.data.seed for item in found} == {7}
    assert all(item.repeat == 1 for item in found)
    assert "the split stays that of seed 7" in caplog.text
    assert {item.data.seed for item in with_seeds(experiment(parts), [0, 1])} == {42}
    assert [item.data.seed for item in with_seeds(one, [0, 1], vary_split=True)] == [0, 1]
    assert with_seeds(experiment(parts)) == [experiment(parts)]
    for repeat in (0, 1.5, True):
        with pytest.raises(OptionError, match="repeat"):
            experiment(parts, repeat=repeat)


@pytest.fixture
def weights(own_project: Path) -> dict[str, str]:
    """Weights in a file: random ones by name would be others at each seed."""
    (own_project / "weights").mkdir()
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), own_project / "weights/mine.pth")
    return {"name": "resnet18", "weights": "weights/mine.pth"}


def test_a_failed_seed_costs_no_other_and_the_next_call_does_only_what_is_missing(
    parts: Path,
    weights: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    real, trained, built = many.train_built, [], []
    plain_build = many.build

    def train_built(model: Any, *others: Any):
        trained.append(model.seed)
        if model.seed == 1 and len(trained) <= 3:
            raise RuntimeError("out of memory")
        return real(model, *others)

    monkeypatch.setattr(many, "train_built", train_built)
    monkeypatch.setattr(many, "build", lambda one, *shared: built.append(one.seed) or plain_build(one, *shared))
    repeats = with_seeds(experiment(parts, backbone=weights), [0, 1, 2])
    caplog.set_level(logging.INFO, "defectlab")
    first = run_many(repeats)
    assert trained == [0, 1, 2]
    assert built == [0, 0, 1, 2], "once to check them all, then each to train it"
    assert [one.record.facts["seed"] for one in first] == [0, 2]
    assert "1 of 3 runs failed" in caplog.text
    assert "out of memory" in caplog.text
    capsys.readouterr()
    second = run_many(repeats)
    assert trained == [0, 1, 2, 1]
    assert "finished already" in caplog.text
    assert len({one.record.dataset.manifest for one in second}) == 1
    assert len({one.folder for one in second}) == 3
    values = np.array([one.record.metrics["image_AUROC"] for one in second])
    printed = capsys.readouterr().out
    (row,) = [line for line in printed.splitlines() if "image_AUROC" in line and " to " in line and "│" in line][-1:]
    assert f"{values.mean():.4f}" in row
    assert f"{values.std(ddof=1):.4f}" in row
    half = t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    assert f"{max(values.mean() - half, 0):.4f} to {min(values.mean() + half, 1):.4f}" in row
    run_many(repeats[:1], rerun=True)
    assert trained == [0, 1, 2, 1, 0]


def test_random_weights_are_drawn_by_the_seed_and_are_what_is_repeated(
    parts: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.INFO, "defectlab")
    runs = run_many(with_seeds(experiment(parts), [0, 1]))
    assert len({run.record.backbone.sha256 for run in runs}) == 2
    assert "seeds 0, 1" in capsys.readouterr().out
    (ranking,) = rankings_of(runs)
    (entry,) = ranking.entries
    assert (len(entry.rows), entry.weights) == (2, "random")
    assert entry.name == "resnet18_layer1_10_weights-random"
    other = experiment(parts, model=SMALL["model"] | {"n_features": 9})
    run_many([*with_seeds(experiment(parts), [0]), *with_seeds(other, [1])])
    assert "differ in more than their seed (backbone.sha256, model.n_features)" in caplog.text


def finished_run(one: Experiment) -> Run | None:
    model, datamodule, engine = build(one)
    return engine.finished_run(model, datamodule)


def test_other_settings_or_images_are_not_finished_already(parts: Path):
    run_many([experiment(parts)])
    assert finished_run(experiment(parts)) is not None
    assert finished_run(experiment(parts, seed=7)) is None
    assert finished_run(experiment(parts, data={"root": str(parts), "num_workers": 0, "seed": 7})) is None
    assert finished_run(experiment(parts, model=SMALL["model"] | {"n_features": 11})) is None


def test_repeat_in_a_file_and_seeds_on_the_command_line(
    parts: Path,
    weights: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    file = tmp_path / "a.yaml"
    settings = SMALL | {"data": {"root": str(parts), "num_workers": 0}, "backbone": weights, "repeat": 2}
    file.write_text(yaml.safe_dump(settings))
    assert main(["train", "--config", str(file)]) == 0
    assert sorted(run.record.facts["seed"] for run in find_runs()) == [42, 43]
    assert "seeds 42, 43" in capsys.readouterr().out
    assert main(["train", "--config", str(file), "--seeds", "42..44"]) == 0
    assert sorted(run.record.facts["seed"] for run in find_runs()) == [42, 43, 44]
    assert main(["train", "--config", str(file), "--seeds", "4..0"]) == 2
    assert "0..4" in capsys.readouterr().err
    monkeypatch.setattr(many, "train_built", lambda *_: 1 / 0)
    assert main(["train", "--config", str(file), "--seeds", "50,51"]) == 1


MODEL = {"name": "padim", "layers": ["layer1"], "n_features": 10, "image_size": 64}


def over_categories(root: Path, **options) -> Experiment:
    data = {"root": str(root), "num_workers": 0, **options.pop("data", {})}
    given = {"categories": "all", "model": MODEL, **options}
    return Experiment.from_dict({"data": data, "backbone": {"name": "resnet18", "weights": "random"}, **given})


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for number, name in enumerate(("bottle", "carpet", "mine")):
        make_parts(tmp_path / "shelf" / name, train=4 + number, good=2, bad=2)
    return tmp_path / "shelf"


def test_an_experiment_for_each_category(shelf: Path):
    each = per_category(over_categories(shelf, categories=["mine", "bottle"]))
    assert [(one.data.name, Path(one.data.root).name, one.categories) for one in each] == [
        ("mine", "mine", None), ("bottle", "bottle", None)
    ]  # fmt: skip
    with pytest.raises(OptionError, match=r"leave out data\.name"):
        per_category(over_categories(shelf, data={"name": "x"}))
    with pytest.raises(OptionError, match="is several"):
        build(over_categories(shelf))
    assert DataOptions().unknown_dir is None


def test_a_table_keeps_the_name_that_earlier_versions_gave_it():
    assert table_of(over_categories(Path("shelf"))).name == "all_padim_05c7e2.csv"
    other = over_categories(Path("shelf"), data={"mask_reduction": "nearest"})
    assert table_of(other).name != "all_padim_05c7e2.csv"  # an option of later versions tells tables apart too


def test_a_mean_says_of_how_many_it_is(tmp_path: Path):
    done = {"status": "finished", "image_AUROC": 0.5}
    write_table(tmp_path / "t.csv", [{**done, "pixel_AUROC": 0.9}, {**done, "pixel_AUROC": None}, {"status": "failed"}])
    mean = rows_of(tmp_path / "t.csv")[-1]
    assert (mean["status"], mean["image_AUROC"]) == ("of 2; pixel_AUROC of 1", "0.5")


@pytest.mark.row("R.20")
def test_print_config_trains_nothing(shelf: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["train", "--data.root", str(shelf), "--model.name", "padim", "--categories", "all", "--print_config"]
    assert main(arguments) == 0
    assert "categories: all" in capsys.readouterr().out
    assert not paths.results_dir().exists()


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.row("4.8")
def test_the_table_grows_and_survives_a_broken_category(shelf: Path, monkeypatch: pytest.MonkeyPatch):
    (shelf / "carpet/train/good/000.png").write_bytes(b"broken")
    seen = []
    import defectlab.sweeps.run_many as module

    write = module.write_table
    monkeypatch.setattr(module, "write_table", lambda table, rows: (seen.append(len(rows)), write(table, rows)))
    wanted = over_categories(shelf)
    table = table_of(wanted)
    assert len(run_categories(per_category(wanted), table)) == 2
    assert seen == [1, 2, 3]
    rows = rows_of(table)
    assert [(row["category"], row["status"]) for row in rows] == [
        ("bottle", "finished"), ("carpet", "failed"), ("mine", "finished"), ("mean", "of 2")
    ]  # fmt: skip
    assert "000.png" in rows[1]["error"]
    for name in METRICS:
        values = [float(row[name]) for row in rows[:3] if row[name]]
        assert float(rows[3][name]) == pytest.approx(sum(values) / len(values))
    folder = paths.resolve(rows[0]["run"])
    before = (folder / "run.json").stat().st_mtime_ns

    make_parts(shelf / "carpet", train=5, good=2, bad=2)  # mended: only what is missing is run
    settings = ["--model.layers", "[layer1]", "--model.n_features", "10", "--model.image_size", "64"]
    arguments = ["train", "--data.root", str(shelf), "--data.num_workers", "0", "--backbone.weights", "random"]
    assert main([*arguments, "--model.name", "padim", *settings, "--categories", "all"]) == 0
    assert (folder / "run.json").stat().st_mtime_ns == before
    again = [file for file in table.parent.iterdir() if rows_of(file)[-1]["status"] == "of 3"]
    assert len(again) == 1
