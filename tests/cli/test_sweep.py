"""`defectlab sweep`: overrides as people type them, the plan, exit codes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.sweeps import settings

import defectlab
import defectlab.sweeps.execute as execute
from defectlab.cli import main
from defectlab.cli.sweep import parse_overrides, sweep_arguments
from defectlab.experiment import Experiment
from defectlab.results.run.run import find_runs
from defectlab.sweeps.config import SweepConfig, with_overrides
from defectlab_runtime.errors import OptionError

KNOWN = ["--config", "--plan", "--retry-failed", "--set"]


@pytest.mark.row("3.1")
def test_overrides_come_in_three_forms():
    typed = [
        "sweep",
        "--model.num_neighbors=1,9",
        "--config=a.yaml",
        "model.layers=[a, b],[c]",
        "--plan",
        "--seeds",
        "3",
    ]
    assert sweep_arguments(typed, KNOWN) == [
        "sweep", "--set", "model.num_neighbors=1,9", "--config=a.yaml", "--set", "model.layers=[a, b],[c]",
        "--plan", "--set", "seeds=3",
    ]  # fmt: skip
    assert parse_overrides(["a.b=null", "a.c={from: 1, to: 3, step: 1}", "a.d=x", "a.e=[1, 2]"]) == {
        "a.b": None, "a.c": {"from": 1, "to": 3, "step": 1}, "a.d": "x", "a.e": [1, 2],
    }  # fmt: skip
    with pytest.raises(OptionError, match="Did you mean '--retry-failed'"):
        sweep_arguments(["sweep", "--retry-faild"], KNOWN)
    with pytest.raises(OptionError, match="KEY=VALUE"):
        parse_overrides(["nothing"])
    with pytest.raises(OptionError, match="no valid YAML"):
        parse_overrides(["model.layers=[a"])


def test_an_override_stays_with_the_models_that_have_the_option():
    data = {"data": {"root": "d"}, "grid": [
        {"model.name": "patchcore", "model.num_neighbors": [1, 9]},
        {"model.name": "padim", "model.n_features": [50, 100]},
    ]}  # fmt: skip

    def models(**overrides: Any) -> list[dict[str, Any]]:
        given = {key.replace("__", "."): value for key, value in overrides.items()}
        return [one["model"] for one in SweepConfig.from_dict(with_overrides(data, given)).expanded()]

    assert models(model__num_neighbors=3) == [
        {"name": "patchcore", "num_neighbors": 3}, *({"name": "padim", "n_features": n} for n in (50, 100)),
    ]  # fmt: skip
    assert models(model__name="padim") == [{"name": "padim", "n_features": n} for n in (50, 100)]
    assert {one["image_size"] for one in models(model__image_size={"choices": [64, 96]})} == {64, 96}
    with pytest.raises(OptionError, match="Did you mean 'padim'"):
        models(model__name="padin")
    with pytest.raises(OptionError, match="grid must be a list"):
        SweepConfig.from_dict(with_overrides({**data, "grid": 3}, {"model.name": "padim"}))


def test_the_command_plans_runs_and_says_by_its_exit_code_whether_all_went_well(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    file = tmp_path / "small.yaml"
    grid = [{"model.name": "padim", "model.layers": [["layer2"]], "model.n_features": [5, 9]}]
    file.write_text(yaml.safe_dump(settings(parts, grid=grid)))
    command = ["sweep", "--config", "small.yaml", "--model.n_features", "6"]
    assert main([*command, "--plan"]) == 0
    assert "1 configurations, 1 to run" in capsys.readouterr().out
    assert find_runs() == []
    monkeypatch.setitem(execute.SCORERS, "padim", lambda *_: 1 / 0)
    assert main(command) == 1
    monkeypatch.undo()
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path))
    assert main(command) == 1  # what failed is tried again on request only
    assert main([*command, "--retry-failed"]) == 0
    assert [run.record.experiment.model["n_features"] for run in find_runs()] == [6]
    assert main(["sweep", "--config", "small.yaml", "--plan", "model.n_features=6,999"]) == 1
    assert main(["sweep", "--config", "nowhere.yaml"]) == 2
    assert main(["sweep", "--config", "small.yaml", "--modl.name", "padim"]) == 2
    error = capsys.readouterr().err
    assert "There is no file" in error
    assert "Did you mean 'model'" in error


def test_one_reason_for_many_configurations_is_said_once(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
):
    file = tmp_path / "small.yaml"
    grid = [{"model.name": "padim", "model.layers": [["layer2"]], "model.n_features": [5, 6, 997, 998]}]
    file.write_text(yaml.safe_dump(settings(parts, grid=grid)))
    command = ["sweep", "--config", str(file), "--plan"]
    assert main([*command, "--data.root", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert f"None of the 4 configurations can work: There is no folder {tmp_path / 'none'}" in error
    assert caplog.text.count("There is no folder") + error.count("There is no folder") == 1
    assert main([*command, "--model.n_features", "5,6", "--model.n_featurs", "1"]) == 2
    assert "None of the 2 configurations can work: Padim has no option 'n_featurs'" in capsys.readouterr().err
    assert main([*command, "--model.layers", "[layer2],[layer9]", "model.n_features=5,6"]) == 1
    assert "2 configurations cannot work and are left out (3, 4): Unknown layer 'layer9'" in caplog.text


@pytest.mark.row("4.4", "0.5")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("sweep_40", 40),
        ("sweep_padim", 29),
        ("sweep_patchcore", 280),
        ("sweep_mvtec", 8),
        ("sweep_featcae", 12),
        ("backbones", 16),
    ],
)
def test_the_files_that_come_along_are_sweeps(name: str, count: int, tmp_path: Path):
    for category in ("carpet", "bottle", "screw"):
        (tmp_path / category / "train/good").mkdir(parents=True)
    more = {"datasets.root": str(tmp_path), "datasets.categories": ["carpet", "screw"]} if name == "sweep_mvtec" else {}
    config = SweepConfig.from_yaml(Path(defectlab.__file__).parents[1] / f"configs/{name}.yaml", more)
    experiments = [Experiment.from_dict(one) for one in config.expanded()]
    assert len(experiments) == count
    roots = {"sweep_mvtec": 2, "backbones": 4}.get(name, 1)
    assert len({experiment.data.root for experiment in experiments}) == roots
