import json
from pathlib import Path

import pytest
import yaml
from test_experiment import SMALL

from defectlab.cli import main
from defectlab.results.record import find_runs


@pytest.fixture
def config(parts: Path, tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({"data": {"root": str(parts), "num_workers": 0}, **SMALL}))
    return path


def test_train_evaluate_predict(config: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["train", "--config", str(config), "--model.n_features", "12", "--name", "small"]) == 0
    (run,) = find_runs()
    assert run.folder.name == "small"
    assert run.record["experiment"]["model"]["n_features"] == 12
    trained = capsys.readouterr().out
    assert "image_AUROC" in trained
    assert main(["evaluate", str(run.folder)]) == 0
    assert capsys.readouterr().out == trained
    before = json.loads((run.folder / "run.json").read_text())["metrics"]
    assert main(["evaluate", str(run.folder), "--rescore"]) == 0
    assert json.loads((run.folder / "run.json").read_text())["metrics"] == before
    out = tmp_path / "out"
    assert main(["predict", str(run.folder), str(parts / "test/blot"), "--output", str(out), "--heatmaps"]) == 0
    assert len((out / "scores.csv").read_text().splitlines()) == 5
    assert len(list((out / "heatmaps").glob("*.png"))) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "train"),
        (["train", "--data.rooot", "x"], "Did you mean '--data.root'"),
        (["train", "--model.name", "padim"], "data.root"),
        (["train", "--data.root", "x", "--model.name", "padin"], "Did you mean 'padim'"),
        (["train", "--config", "nowhere.yaml"], "no file"),
        (["evaluate", "nowhere"], "no run folder"),
        (["predict", "nowhere.ckpt", "x.png"], "no run folder or checkpoint"),
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


def test_an_unknown_key_in_the_file_names_the_closest(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "a.yaml").write_text("data: {rot: x}")
    assert main(["train", "--config", str(tmp_path / "a.yaml")]) == 2
    assert "Did you mean 'root'" in capsys.readouterr().err


def test_data_check_says_whether_training_would_work(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["data", "check", str(parts)]) == 0
    assert "train          8" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path)]) == 1


def test_lists(capsys: pytest.CaptureFixture):
    assert main(["models", "list"]) == 0
    assert "Patchcore" in capsys.readouterr().out
    assert main(["weights", "list"]) == 0
    assert "resnet18-f37072fd.pth" in capsys.readouterr().out
