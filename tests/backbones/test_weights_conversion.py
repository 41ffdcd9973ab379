"""Files with their authors' own keys become those of timm's network, and equal its features."""

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.backbones import images
from torch import Tensor

from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.loading import load_backbone
from defectlab.backbones.weights_import import import_file
from defectlab_runtime.errors import WeightsError


def network(name: str) -> Any:
    torch.manual_seed(0)
    made = timm.create_model(name).eval()
    with torch.no_grad():
        for tensor in made.parameters():
            if tensor.ndim in (1, 3):
                tensor.add_(torch.randn(tensor.shape) * 0.1)
    return made


def dinov2_with_registers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The keys of the authors' file: the class token has a position of its own, which timm adds to it."""
    own = {key: value for key, value in state.items() if key not in ("reg_token", "cls_token", "pos_embed")}
    position = torch.randn(1, 1, state["cls_token"].shape[-1], generator=torch.Generator().manual_seed(1))
    return {
        **own,
        "cls_token": state["cls_token"] - position,
        "pos_embed": torch.cat([position, state["pos_embed"]], dim=1),
        "register_tokens": state["reg_token"],
        "mask_token": torch.zeros(1, state["cls_token"].shape[-1]),
    }


def dinov3(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {
        key.replace("gamma_1", "ls1.gamma")
        .replace("gamma_2", "ls2.gamma")
        .replace("reg_token", "storage_tokens"): value
        for key, value in state.items()
    }
    return {**renamed, "mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}


@pytest.mark.parametrize(
    ("name", "authors"),
    [("vit_small_patch14_reg4_dinov2", dinov2_with_registers), ("vit_small_patch16_dinov3", dinov3)],
)
def test_a_file_of_the_authors_gives_timms_features(
    name: str, authors: Any, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = network(name)
    state = own.state_dict()
    torch.save(authors(state), home / "weights" / f"{name}.pth")
    with caplog.at_level(logging.INFO):
        loaded = load_backbone(name)
    assert "its authors' keys" in caplog.text
    layers = ["blocks.0", "norm"]
    patch = own.patch_embed.patch_size[0]
    batch = images(4 * patch, count=1)
    features, expected = FeatureExtractor(loaded, layers)(batch), FeatureExtractor(own, layers)(batch)
    for layer in layers:
        assert torch.allclose(features[layer], expected[layer], atol=1e-4)
    assert import_file(home / "weights" / f"{name}.pth", name).name == f"{name}.pth"
    assert torch.equal(load_backbone(name, authors(state)).network.norm.weight, state["norm.weight"])


def test_patches_of_another_size_are_not_resampled_into_another_network() -> None:
    state = timm.create_model("vit_tiny_patch16_224", patch_size=32).state_dict()
    with pytest.raises(WeightsError, match=r"patch_embed\.proj\.weight \(192, 3, 32, 32\) instead of"):
        load_backbone("vit_tiny_patch16_224", state)
