import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers.experiments import SMALL

from defectlab.cli import main
from defectlab.experiment import EvaluationConfig, Experiment
from defectlab.models.registry import MODELS
from defectlab.results.run.run import Run, find_runs
from defectlab.utils.config_files import load_yaml


@pytest.fixture
def config(parts: Path, tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({"data": {"root": str(parts), "num_workers": 0}, **SMALL}))
    return path


@pytest.mark.row("3.2", "4.2")
def test_train_evaluate_predict(
    config: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
):
    assert main(["train", "--config", str(config), "--model.n_features", "12", "--name", "small"]) == 0
    (run,) = find_runs()
    assert run.folder.name == "small"
    assert run.record.experiment.model["n_features"] == 12
    trained = capsys.readouterr().out
    assert "image_AUROC" in trained
    assert main(["evaluate", str(run.folder)]) == 0
    assert capsys.readouterr().out == trained
    before = json.loads((run.folder / "run.json").read_text())["metrics"]
    assert main(["evaluate", str(run.folder), "--rescore"]) == 0
    assert json.loads((run.folder / "run.json").read_text())["metrics"] == before
    settings = run.folder / "experiment.yaml"
    assert yaml.safe_load(settings.read_text())["model"]["n_features"] == 12
    assert set(run.record.git.to_dict()) == {"commit", "reason"}  # this project is no repository
    capsys.readouterr()
    assert main(["train", "--config", str(settings), "--print_config"]) == 0
    assert capsys.readouterr().out == settings.read_text()
    on_a_bare_folder(run, parts)
    assert "4 of these 8 test images are among those that small chose its thresholds on" in caplog.text
    assert "was trained on" not in caplog.text
    out = tmp_path / "out"
    assert main(["predict", str(run.folder), str(parts / "test/blot"), "--output", str(out), "--heatmaps"]) == 0
    assert len((out / "scores.csv").read_text().splitlines()) == 5
    assert len(list((out / "heatmaps").glob("*.png"))) == 4
    capsys.readouterr()
    assert main(["threshold", "--run", str(run.folder), "--rule", "recall", "--level", "image"]) == 0
    assert capsys.readouterr().out.startswith("recall: 0.95, since nothing else was said\nimage: ")


def on_a_bare_folder(run: Run, parts: Path) -> None:
    """Every image of parts/test is a test image, with its mask, at the thresholds that the run has."""
    assert main(["evaluate", str(run.folder), "--data", str(parts / "test")]) == 0
    (other,) = [found for found in find_runs() if found.dataset == "parts-test"]
    own = {row.image_path: row.score for row in run.scores()}
    assert {row.image_path: pytest.approx(row.score, rel=1e-5) for row in other.scores("test")} == own
    assert {row.label for row in other.scores("test") if "/good/" in row.image_path} == {0}
    assert other.record.dataset.counts == {"train": {}, "validation": {}, "test": {"blot": 4, "good": 4}}
    assert other.record.thresholds.image.value == run.record.thresholds.image.value
    assert other.record.metrics["pixel_AUROC"] is not None
    before = other.record.metrics
    assert main(["evaluate", str(other.folder), "--rescore"]) == 0
    assert Run.open(other.folder).record.metrics == before


def printed(capsys: pytest.CaptureFixture, *arguments: str) -> dict:
    assert main(["train", *arguments, "--print_config"]) == 0
    return load_yaml(capsys.readouterr().out)


FILE = """
seed: 5
data: {root: data/x, train_batch_size: 3, abnormal_dir: [a, b]}
model: {name: cflow, layers: [layer1, layer2], lr: 1e-4, permute_soft: no}
evaluation: {aupimo: yes}
trainer: {max_epochs: 7, accelerator: cpu}
"""


@pytest.mark.row("3.1", "4.3")
def test_the_command_line_wins_value_by_value(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = tmp_path / "a.yaml"
    file.write_text(FILE)
    over = ["--model.layers", "[layer3]", "--trainer.max_epochs=9", "--evaluation.aupimo", "false"]
    first = printed(capsys, "--config", str(file), *over)
    assert printed(capsys, *over, f"--config={file}") == first, "wherever the file is named"
    assert first["model"] == {"name": "cflow", "layers": ["layer3"], "lr": 1e-4, "permute_soft": False}
    assert first["trainer"] == {"max_epochs": 9, "accelerator": "cpu"}
    assert first["evaluation"]["aupimo"] is False
    assert (first["data"]["train_batch_size"], first["data"]["eval_batch_size"], first["seed"]) == (3, 10, 5)
    assert first["data"]["abnormal_dir"] == ["a", "b"]
    assert Experiment.from_dict(first) == replace(
        Experiment.from_yaml(file),
        model=first["model"],
        trainer=first["trainer"],
        evaluation=EvaluationConfig(),
    )


@pytest.mark.row("4.3")
@pytest.mark.parametrize("option", ["data.seed", "data.val_split_ratio", "backbone.name", "name", "repeat", "seed"])
def test_each_option_given_wins_alone(option: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "a.yaml").write_text("data: {root: data/x}\nmodel: {name: padim}\n")
    before = printed(capsys, "--config", str(tmp_path / "a.yaml"))
    value = {"data.val_split_ratio": "0.25", "backbone.name": "resnet50", "name": "mine"}.get(option, "3")
    after = printed(capsys, "--config", str(tmp_path / "a.yaml"), f"--{option}", value)
    place, expected = after, before
    for part in option.split(".")[:-1]:
        place, expected = place[part], expected[part]
    assert str(place[option.split(".")[-1]]) == value
    expected[option.split(".")[-1]] = place[option.split(".")[-1]]
    assert after == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "defectlab needs a command: demo, data,"),
        (["trian"], "Did you mean 'train'? Available: demo, data,"),
        (["data"], "defectlab data needs a command: check, sample, download. `defectlab data --help`"),
        (["data", "chek"], "Did you mean 'check'? Available: check, sample, download."),
        (["sweep"], "defectlab: sweep needs --config (YAML file of a sweep)."),
        (["predict"], "predict needs run (Run folder, checkpoint or exported file), source (Image files"),
        (["threshold", "--rule", "f1"], "threshold needs --run (Run folder)"),
        (["threshold", "--run", "x"], "threshold needs one of --rule RULE (f1, good_max,"),
        (["threshold", "--run", "x", "--rule", "f1", "--undo"], "threshold needs one of --rule RULE"),
        (["threshold", "--run", "x", "--undo", "--miss-cost", "2"], "--miss-cost is an option of a rule: leave it out"),
        (["data", "sample"], "data sample needs name (coins, digits or wells), destination"),
        (["train", "--data.rot", "x"], "Unrecognized arguments: --data.rot x. Did you mean '--data.root'?"),
        (["train", "--data.rooot", "x"], "Did you mean '--data.root'"),
        (["train", "--model.name", "padim"], "data.root"),
        (["train", "--data.root", "x", "--model.name", "padin"], "Did you mean 'padim'"),
        (["train", "--config", "nowhere.yaml"], "no file"),
        (["train", "--data.root", "x", "--model.name", "padim", "--evaluation.aupimo", "perhaps"], "aupimo"),
        (["train", "--data.root", "x", "--model.name", "padim", "--data.num_workers", "two"], "num_workers"),
        (["evaluate", "nowhere"], "no run folder"),
        (["predict", "nowhere.ckpt", "x.png"], "no run folder, checkpoint or exported file"),
        (["data", "sample", "coin", "x"], "Did you mean 'coins'"),
        (["weights", "get", "resnet81"], "resnet18"),
        (["weights", "import", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_bad_input_ends_with_one_message_and_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.row("3.1")
def test_an_unknown_key_in_the_file_names_the_closest(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "a.yaml").write_text("data: {rot: x}")
    assert main(["train", "--config", str(tmp_path / "a.yaml")]) == 2
    assert "Did you mean 'root'" in capsys.readouterr().err


def test_data_check_says_whether_training_would_work(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["data", "check", str(parts)]) == 0
    assert "train          8" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path)]) == 1


def test_lists(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    assert "Patchcore" in listed
    assert "vit_huge_plus_patch16_dinov3 yes" in listed  # the longest name leaves the columns apart
    monkeypatch.setitem(MODELS, "padim", replace(MODELS["padim"], exports=("onnx", "torch")))
    assert main(["models", "list"]) == 0
    padim, patchcore = capsys.readouterr().out.splitlines()[1:3]
    assert "yes   onnx, torch  a Gaussian" in padim
    assert "yes   all          nearest" in patchcore
    assert main(["weights", "list"]) == 0
    assert "resnet18-f37072fd.pth" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["[" * 100_000 + "]" * 100_000, "&a [*a]", "x" * 300_000], ids=["deep", "self", "long"]
)
def test_a_value_that_the_parser_would_die_of_is_refused_before_it(text: str, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--data.root", "x", "--model.name", "padim", "--loggers", text]) == 2
    shown = capsys.readouterr().err
    assert re.search("nested deeper than 32 levels|contains itself|300000 bytes are more", shown)
    assert len(shown) < 500
