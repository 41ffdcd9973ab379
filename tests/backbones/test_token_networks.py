"""Transformers of timm as backbones: their tokens as maps, against timm's own account and against a reading by hand."""

import copy
import logging
from typing import Any

import pytest
import timm
import torch
from helpers.backbones import images
from torch import Tensor, nn
from torch.nn import functional as F

from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.token_networks import (
    TokenLayers,
    at_size,
    fitting_sizes,
    nearest_size,
    own_resampling,
    patch_size,
)
from defectlab_runtime.errors import OptionError, WeightsError

# One network of each family, by name, and the options that make it small.
FAMILIES: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {},
    "vit_small_patch14_dinov2": {"img_size": 112},
    "vit_small_patch14_reg4_dinov2": {"img_size": 112},
    "vit_small_patch16_dinov3": {"img_size": 128},
    "deit_tiny_distilled_patch16_224": {},
    "deit3_small_patch16_224": {},
    "vit_base_patch16_clip_224": {"embed_dim": 96, "num_heads": 3},
    "vit_base_patch16_siglip_224": {"embed_dim": 96, "num_heads": 3},
    "beit_base_patch16_224": {"embed_dim": 96, "num_heads": 3},
    "beitv2_base_patch16_224": {"embed_dim": 96, "num_heads": 3},
    "eva02_tiny_patch14_224": {},
}
LAYERS = ["blocks.2", "blocks.0"]


@pytest.fixture(autouse=True)
def _timm_as_it_is():
    """What is compared with is timm's own, even where anomalib has changed it in this process."""
    with own_resampling():
        yield


def transformer(name: str, **options: Any) -> Any:
    """A seeded network of three blocks in which no token is like another one, and no norm or position does nothing."""
    torch.manual_seed(0)
    network = timm.create_model(name, depth=3, **options).eval()
    with torch.no_grad():
        for tensor in (*network.parameters(),):
            if tensor.ndim == 1 or tensor.ndim == 3 or tensor.shape[-1] < 33:  # norms, biases, tokens, tables
                tensor.add_(torch.randn(tensor.shape) * 0.2)
    return network


def by_hand(network: Any, batch: Tensor, layer: str, patch: int) -> Tensor:
    """The tokens of a block of a whole forward pass, without those before the patches, row by row on the grid."""
    found: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _m, _i, output: found.append(output))
    with torch.no_grad():
        network.forward_features(batch)
    handle.remove()
    rows, columns = batch.shape[-2] // patch, batch.shape[-1] // patch
    tokens = found[0][:, found[0].shape[1] - rows * columns :]
    return tokens.transpose(1, 2).reshape(len(batch), -1, rows, columns)


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_the_maps_of_timms_own_account_and_of_a_reading_by_hand(name: str) -> None:
    network = transformer(name, **FAMILIES[name])
    patch = network.patch_embed.patch_size[0]
    batch = images(network.patch_embed.img_size[0])
    features = FeatureExtractor(network, LAYERS)(batch)
    with torch.no_grad():
        first, last = network.forward_intermediates(batch, indices=[0, 2], intermediates_only=True)
    assert list(features) == LAYERS
    for layer, timms in (("blocks.0", first), ("blocks.2", last)):
        assert torch.equal(features[layer], timms)
        assert torch.allclose(features[layer], by_hand(network, batch, layer, patch), atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_any_multiple_of_the_patch_is_taken_as_timm_takes_it(name: str) -> None:
    network = transformer(name, **FAMILIES[name])
    patch = network.patch_embed.patch_size[0]
    size = (5 * patch, 7 * patch)
    batch = images(size[0], count=1).repeat(1, 1, 1, 2)[..., : size[1]]
    extractor = FeatureExtractor(network, LAYERS)
    before = {key: value.clone() for key, value in extractor.state_dict().items()}
    features = extractor(batch)
    assert {layer: tuple(value.shape[1:]) for layer, value in features.items()} == extractor.feature_shapes(size)
    try:  # timm's own network for any size
        other = timm.create_model(name, depth=3, dynamic_img_size=True, **FAMILIES[name]).eval()
        other.load_state_dict(network.state_dict())
    except TypeError:  # or one that is built for a size
        other = copy.deepcopy(network)
        other.set_input_size(img_size=size)
    for layer, value in features.items():
        assert value.shape[-2:] == (5, 7)
        assert torch.allclose(value, by_hand(other, batch, layer, patch), atol=1e-5)
    after = extractor.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    native = images(network.patch_embed.img_size[0], count=1)
    with torch.no_grad():
        (expected,) = network.forward_intermediates(native, indices=[0], intermediates_only=True)
    assert torch.equal(extractor(native)["blocks.0"], expected)


def test_position_embeddings_are_resampled_bicubic_and_antialiased() -> None:
    network = transformer("vit_tiny_patch16_224")
    adapted = at_size(network, (96, 160))
    embedding = network.pos_embed.detach()
    grid = embedding[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    resampled = F.interpolate(grid, size=(6, 10), mode="bicubic", antialias=True)
    expected = torch.cat([embedding[:, :1], resampled.flatten(2).transpose(1, 2)], dim=1)
    assert torch.allclose(adapted.pos_embed, expected, atol=1e-6)
    assert adapted.blocks[0].mlp.fc1.weight is network.blocks[0].mlp.fc1.weight
    assert at_size(network, (224, 224)) is network


def test_resampling_is_not_logged_with_every_batch(caplog: pytest.LogCaptureFixture) -> None:
    extractor = FeatureExtractor(transformer("vit_tiny_patch16_224"), ["blocks.0"])
    with caplog.at_level(logging.INFO):
        extractor(images(64))
    assert not caplog.records


def test_only_what_the_layers_need_is_kept() -> None:
    network = transformer("vit_tiny_patch16_224")
    keys = {key.removeprefix("feature_extractor.") for key in FeatureExtractor(network, ["blocks.1"]).state_dict()}
    assert keys == {
        key for key in network.state_dict() if not key.startswith(("blocks.2.", "norm.", "fc_norm.", "head."))
    }
    assert len(network.blocks) == 3
    normed = FeatureExtractor(network, ["norm"])
    assert {key.removeprefix("feature_extractor.") for key in normed.state_dict()} == {
        key for key in network.state_dict() if not key.startswith("head.")
    }


def test_norm_is_the_last_block_after_the_final_norm() -> None:
    network = transformer("vit_small_patch14_reg4_dinov2", img_size=112)
    features = FeatureExtractor(network, ["norm", "blocks.1"])(images(112))
    with torch.no_grad():
        tokens = network.forward_features(images(112))[:, 5:]
    assert torch.allclose(features["norm"], tokens.transpose(1, 2).reshape(2, -1, 8, 8), atol=1e-5)


def test_layers_with_a_plus_are_averaged_and_a_list_is_joined() -> None:
    network = transformer("vit_tiny_patch16_224")
    batch = images(64)
    single = FeatureExtractor(network, ["blocks.0", "blocks.1", "blocks.2"])(batch)
    extractor = FeatureExtractor(network, ["blocks.0+blocks.2", "blocks.1"])
    features = extractor(batch)
    assert list(features) == ["blocks.0+blocks.2", "blocks.1"]
    assert torch.allclose(features["blocks.0+blocks.2"], (single["blocks.0"] + single["blocks.2"]) / 2, atol=1e-6)
    assert torch.equal(features["blocks.1"], single["blocks.1"])
    assert extractor.out_dims == [192, 192]


@pytest.mark.parametrize(
    ("size", "fits"),
    [((252, 266), [(252, 266)]), ((256, 256), [(252, 252), (266, 266)]), ((5, 14), [(14, 14)])],
)
def test_a_size_that_does_not_fit_is_refused_with_the_nearest_that_do(size: Any, fits: list[Any]) -> None:
    network = transformer("vit_small_patch14_dinov2", img_size=112)
    assert patch_size(network) == (14, 14)
    assert fitting_sizes(network, size) == fits
    extractor = FeatureExtractor(network, ["blocks.0"])
    if fits == [size]:
        assert extractor.feature_shapes(size) == {"blocks.0": (384, 18, 19)}
        return
    says = f"cannot take images of {size[0]} x {size[1]}.*14 x 14 pixels.*{' or '.join(f'{h} x {w}' for h, w in fits)}"
    with pytest.raises(OptionError, match=says):
        extractor.feature_shapes(size)
    with pytest.raises(OptionError, match=says):
        extractor(torch.zeros(1, 3, *size))


def test_the_nearest_size_and_networks_for_one_size_only() -> None:
    vit, cait = transformer("vit_small_patch14_dinov2", img_size=112), timm.create_model("cait_xxs24_224", depth=1)
    assert nearest_size(vit, (256, 256)) == (252, 252)
    assert nearest_size(vit, (264, 264)) == (266, 266)
    assert nearest_size(cait, (256, 256)) == (224, 224)
    assert nearest_size(nn.Conv2d(3, 4, 3), (255, 13)) == (255, 13)
    with pytest.raises(OptionError, match=r"one size only.*image_size 224 x 224"):
        FeatureExtractor(cait, ["blocks.0"]).feature_shapes((256, 256))


def test_other_layers_of_a_transformer_are_refused_with_those_there_are() -> None:
    network = transformer("vit_tiny_patch16_224")
    assert TokenLayers.of(network, ["blocks.0", "blocks.1.mlp"]) is None
    with pytest.raises(OptionError, match=r"blocks\.1\.mlp.*not a feature map.*blocks\.0, blocks\.1, blocks\.2, norm"):
        FeatureExtractor(network, ["blocks.1.mlp"])
    with pytest.raises(OptionError, match=r"Unknown layer 'blocks\.7'.*Available: blocks\.0, .*norm"):
        FeatureExtractor(network, ["blocks.7"])
    with pytest.raises(WeightsError, match=r"blocks\.1\.attn\.qkv\.weight"):
        FeatureExtractor(network, ["blocks.1"], unfilled=frozenset({"blocks.1.attn.qkv.weight"}))
    FeatureExtractor(network, ["blocks.1"], unfilled=frozenset({"blocks.2.attn.qkv.weight"}))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_swin_takes_other_sizes_with_the_windows_it_has(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, depths=(2, 2, 2), embed_dim=24, num_heads=(1, 2, 4)).eval()
    extractor = FeatureExtractor(network, ["layers.0", "layers.1"])
    batch = images(160, count=1)[..., :132]
    features = extractor(batch)
    other = timm.create_model(
        name, depths=(2, 2, 2), embed_dim=24, num_heads=(1, 2, 4), dynamic_img_size=True
    ).eval()  # fmt: skip
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        expected = other.forward_intermediates(batch, indices=[0, 1], intermediates_only=True)
    for value, timms in zip(features.values(), expected, strict=True):
        assert torch.allclose(value, timms, atol=1e-5)
    assert {layer: tuple(value.shape[1:]) for layer, value in features.items()} == {
        "layers.0": (24, 40, 33),
        "layers.1": (48, 20, 17),
    }
    traced = {**extractor.state_dict(), "feature_extractor._tensor_constant3": torch.zeros(2)}
    extractor.load_state_dict(traced)  # checkpoints from when it was traced
    with pytest.raises(OptionError, match=r"4 x 4 pixels.*160 x 132 or 160 x 136"):
        extractor.feature_shapes((160, 135))
