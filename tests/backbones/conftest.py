from pathlib import Path

import pytest
import torchvision
from helpers.backbones import shaken
from torch import nn


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project root that is also the working directory: no test sees the user's own weights."""
    root = tmp_path / "home"
    (root / "weights").mkdir(parents=True)
    monkeypatch.setenv("DEFECTLAB_HOME", str(root))
    monkeypatch.delenv("DEFECTLAB_WEIGHTS", raising=False)
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="session")
def resnet18() -> nn.Module:
    """torchvision's ResNet-18, untrained, with batch norm statistics that are not the identity."""
    return shaken(torchvision.models.resnet18())
