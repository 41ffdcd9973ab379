"""A sweep killed three times and called again ends in the same workbook as an undisturbed one."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.sweeps import GRID, comparable_rows, settings

from defectlab.results.workbook import read_workbook

TRAINED = {
    "model.name": "featcae",
    "model.layers": [["layer1"]],
    "model.latent_dim": [4, 8],
    "model.border": 1,
    "trainer.max_epochs": 2,
}


def start(home: Path, file: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"DEFECTLAB_HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "defectlab", "sweep", "--config", str(file)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def recorded(home: Path) -> int:
    return len(list((home / "results").glob("*/parts/*/run.json")))


def rows(home: Path) -> list[dict[str, Any]]:
    return comparable_rows(read_workbook(home / "models_comparing.xlsx"), "checkpoint_MB")


@pytest.mark.row("S.8")
@pytest.mark.long
def test_a_sweep_killed_three_times_ends_as_an_undisturbed_one(parts: Path, tmp_path: Path):
    file, draw = tmp_path / "sweep.yaml", random.Random(0)
    file.write_text(yaml.safe_dump(settings(parts, grid=[*GRID, TRAINED], checkpoints="best")))
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    killed.mkdir()
    undisturbed.mkdir()
    for most in (1, 5, 12):
        process = start(killed, file)
        until = time.monotonic() + 120
        while recorded(killed) < most and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))  # somewhere within the next record
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.wait()
    assert start(killed, file).wait(300) == 0
    assert start(undisturbed, file).wait(300) == 0
    assert len(rows(killed)) == 14
    assert rows(killed) == rows(undisturbed)
    tables = [(home / "results/sweeps/sweep/table.csv").read_text() for home in (killed, undisturbed)]
    assert tables[0].replace("kept", "finished") == tables[1]
    assert not list(killed.glob("results/*/parts/.*.rerun-*"))


@pytest.mark.row("R.21")
@pytest.mark.long
def test_two_sweeps_at_once_share_one_cache(parts: Path, tmp_path: Path):
    home, alone = tmp_path / "both", tmp_path / "alone"
    processes = []
    for place, branch in enumerate(GRID):
        file = tmp_path / f"sweep{place}.yaml"
        file.write_text(yaml.safe_dump(settings(parts, grid=[branch])))
        home.mkdir(exist_ok=True)
        processes.append(start(home, file))
    assert [process.wait(300) for process in processes] == [0, 0]
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(settings(parts)))
    alone.mkdir()
    assert start(alone, file).wait(300) == 0
    assert rows(home) == rows(alone)
    features = [json.loads(path.read_text())["key"] for path in (home / ".cache/features").glob("*.json")]
    layers = [key["layer"] for key in features if key["what"] == "features"]
    assert sorted(layers) == ["layer1", "layer2", "layer3"]
