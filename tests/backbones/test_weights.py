"""The project's own weights file: as its manifest entry says, found from everywhere, never taken past layer3."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.backbones import images

from defectlab.backbones import weights, weights_manifest
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.loading import load_backbone
from defectlab.backbones.registry import BUNDLED, IMAGENET_MEAN
from defectlab.data.samples.procedural import KINDS, procedural_image
from defectlab.utils.errors import WeightsError


def test_it_loads_by_name_from_any_project_root(home: Path) -> None:
    backbone = load_backbone(BUNDLED)
    assert backbone.weights.source == f"{BUNDLED}.safetensors"
    assert backbone.spec.layers == ("layer1", "layer2", "layer3")
    assert backbone.spec.mean == IMAGENET_MEAN
    assert {v.dtype for v in backbone.state_dict().values() if v.is_floating_point()} == {torch.float32}
    again = load_backbone(BUNDLED, backbone.weights.source)
    assert again.weights.sha256 == backbone.weights.sha256


def test_its_file_is_small_and_the_one_of_the_manifest() -> None:
    path = weights.shipped_file()
    assert path is not None
    assert path.stat().st_size <= 12e6
    (entry,) = weights_manifest.entries_for(BUNDLED)
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {row.file: row.state for row in weights.list_weights()}[entry.file] == "verified"


def test_a_damaged_copy_of_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = weights.shipped_file()
    assert shipped is not None
    content = bytearray(shipped.read_bytes())
    content[-1000] ^= 1
    (tmp_path / weights.SHIPPED).write_bytes(content)
    monkeypatch.setattr(weights, "SHIPPED_DIRS", (tmp_path,))
    with pytest.raises(WeightsError, match=r"not the file on record.*Install DefectLab again"):
        load_backbone(BUNDLED)
    assert load_backbone(BUNDLED, verify=False).weights.path == tmp_path / weights.SHIPPED


def test_a_file_in_the_project_comes_before_the_shipped_one(home: Path) -> None:
    own = home / "weights" / weights.SHIPPED
    own.write_bytes(b"mine")
    assert weights.find_weights(BUNDLED) == own


def test_its_layers_are_finite_and_layer4_is_refused() -> None:
    backbone = load_backbone(BUNDLED)
    extractor = FeatureExtractor(backbone, ["layer1", "layer2", "layer3"])
    assert all(bool(feature.isfinite().all()) for feature in extractor(images()).values())
    pictures = np.stack([procedural_image(kind, 1000, size=128) for kind in KINDS])  # not among those trained on
    for feature in extractor(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1).values():
        # Not more than a few channels may be dead.
        assert float((feature.amax((0, 2, 3)) > 0).float().mean()) > 0.9
    with pytest.raises(WeightsError, match=r"trained up to layer3 only: take layer1, layer2, layer3"):
        FeatureExtractor(backbone, ["layer4"])


def test_a_copy_without_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SHIPPED_DIRS", ())
    with pytest.raises(WeightsError, match="make backbone"):
        load_backbone(BUNDLED)
