from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from defectlab.backbones import weights_manifest
from defectlab.backbones.loading import load_backbone
from defectlab.backbones.weights import list_weights
from defectlab.backbones.weights_import import import_file
from defectlab_runtime.errors import WeightsError


@pytest.fixture
def outside(tmp_path: Path, resnet18: nn.Module) -> Path:
    path = tmp_path / "модель.pth"
    torch.save({"state_dict": resnet18.state_dict()}, path)
    return path


def test_import_recognises_copies_and_records(home: Path, outside: Path) -> None:
    path = import_file(outside, mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3), licence="mine")
    assert path == home / "weights" / "resnet18.pth"
    assert path.read_bytes() == outside.read_bytes()
    entry = weights_manifest.entries_for("resnet18.pth")[0]
    assert (entry.source, entry.licence, entry.architecture) == (str(outside), "mine", "resnet18")
    backbone = load_backbone("resnet18")
    assert (backbone.spec.mean, backbone.spec.std) == ((0.4, 0.4, 0.4), (0.3, 0.3, 0.3))
    assert {row.file: row.state for row in list_weights()}["resnet18.pth"] == "verified"
    assert import_file(outside) == path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_imported_file_with_another_content_is_refused_each_time_it_is_used(
    outside: Path, resnet18: nn.Module, suffix: str
) -> None:
    own = outside.with_suffix(suffix)
    if suffix == ".safetensors":
        save_file(resnet18.state_dict(), own)
    path = import_file(own)
    load_backbone("resnet18")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # in the middle of some weight
    path.write_bytes(content)
    for weights in (None, path):
        with pytest.raises(WeightsError, match=r"not the file on record.*--overwrite"):
            load_backbone("resnet18", weights)
    assert load_backbone("resnet18", verify=False).weights.path == path
    path.unlink()
    import_file(own, overwrite=True)
    load_backbone("resnet18")


def test_the_content_brings_its_mean_under_another_name(outside: Path) -> None:
    import_file(outside, mean=(0.4, 0.4, 0.4))
    assert load_backbone("resnet18", outside).spec.mean == (0.4, 0.4, 0.4)


def test_known_sources_stay_reachable_after_an_import(outside: Path) -> None:
    import_file(outside)
    assert [entry.name for entry in weights_manifest.entries_for("resnet18")] == [
        "resnet18.imported",
        "resnet18.IMAGENET1K_V1",
    ]


def test_other_content_is_not_overwritten(home: Path, outside: Path) -> None:
    target = home / "weights" / "resnet18.pth"
    target.write_bytes(b"old")
    with pytest.raises(WeightsError, match="--overwrite"):
        import_file(outside, "resnet18")
    assert target.read_bytes() == b"old"
    assert import_file(outside, "resnet18", overwrite=True).read_bytes() == outside.read_bytes()


def test_refused_before_anything_is_written(home: Path, outside: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="looks like resnet18"):
        import_file(outside, "resnet50")
    with pytest.raises(WeightsError, match="No file"):
        import_file(tmp_path / "nothing.pth")
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"suffix '\.bin'"):
        import_file(tmp_path / "a.bin")
    torch.save({"w": torch.ones(3)}, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match="looks like no backbone"):
        import_file(tmp_path / "b.pth")
    assert list((home / "weights").iterdir()) == []
