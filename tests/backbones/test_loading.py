import logging
import os
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from helpers.backbones import images, shaken
from safetensors.torch import save_file
from torch import nn

from defectlab.backbones.backbone import weights_sha256
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.loading import load_backbone
from defectlab.backbones.registry import BackboneSpec
from defectlab.backbones.weights_import import import_file
from defectlab.backbones.weights_manifest import WeightsEntry, file_sha256, record
from defectlab_runtime.errors import OptionError, WeightsError
from defectlab_runtime.imagenet import IMAGENET_MEAN, IMAGENET_STD


def _features(network: nn.Module, layers: list[str]) -> dict[str, torch.Tensor]:
    return FeatureExtractor(network, layers)(images())


@pytest.fixture
def file(home: Path, resnet18: nn.Module) -> Path:
    path = home / "weights" / "resnet18.pth"
    torch.save(resnet18.state_dict(), path)
    return path


def _plain(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        return network.layer2(network.layer1(x))


def test_a_file_imported_as_timms_own_lite0_when_the_name_meant_it_is_that_network_still(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = timm.create_model("efficientnet_lite0").eval()
    file = home / "weights" / "mine.pth"
    torch.save(network.state_dict(), file)
    facts = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "sha256": file_sha256(file)}
    entry = WeightsEntry("mine.pth", "efficientnet_lite0.imported", "efficientnet_lite0", "timm", **facts)
    record(entry, file.parent)
    backbone = load_backbone("efficientnet_lite0", file)
    assert backbone.spec.architecture == "efficientnet_lite0"
    with torch.no_grad():
        expected = network.blocks[:3](network.bn1(network.conv_stem(images())))
    torch.testing.assert_close(_features(backbone, ["blocks.2"])["blocks.2"], expected)
    # of a file that no record knows, what it is built as is said
    torch.save({**network.state_dict(), "classifier.bias": torch.ones(1000)}, home / "weights" / "other.pth")
    import_file(home / "weights" / "other.pth", "efficientnet_lite0")
    assert "built as tf_efficientnet_lite0" in caplog.text


def test_found_by_name_frozen_and_equal_to_the_module(file: Path, resnet18: nn.Module) -> None:
    backbone = load_backbone("resnet18")
    assert (backbone.weights.source, backbone.weights.kind) == ("resnet18.pth", "file")
    assert backbone.weights.sha256 == file_sha256(file)
    assert backbone.unfilled == frozenset()
    assert not backbone.train().training
    assert not any(p.requires_grad for p in backbone.parameters())
    assert torch.equal(_features(backbone, ["layer2"])["layer2"], _plain(resnet18, images()))
    assert torch.equal(backbone(images()), resnet18(images()))
    assert weights_sha256(backbone) == weights_sha256(resnet18)


def _wrapped(state: dict[str, torch.Tensor]) -> dict[str, object]:
    return {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 7}


def _headless(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def _ten_classes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return state | {"fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}


def _without_counters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("change", [_wrapped, _headless, _ten_classes, _without_counters])
def test_files_of_every_form_give_equal_features(home: Path, resnet18: nn.Module, change: object) -> None:
    torch.save(change(dict(resnet18.state_dict())), home / "any.pt")  # type: ignore[operator]
    backbone = load_backbone("resnet18", "any.pt")
    assert torch.equal(_features(backbone, ["layer2"])["layer2"], _plain(resnet18, images()))
    head = {"fc.weight", "fc.bias"} if change in (_headless, _ten_classes) else set()
    assert backbone.unfilled == head
    if head:
        with pytest.raises(WeightsError, match=r"fc\.bias"):
            backbone(images())


def test_safetensors_and_half_precision(home: Path, resnet18: nn.Module) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in resnet18.state_dict().items()}
    save_file(half, home / "weights" / "resnet18.safetensors")
    rounded = torchvision.models.resnet18().eval()
    rounded.load_state_dict(half)
    assert torch.equal(_features(load_backbone("resnet18"), ["layer2"])["layer2"], _plain(rounded, images()))


def test_timm_style_resnet18(home: Path) -> None:
    network = shaken(timm.create_model("resnet18"))
    torch.save(network.state_dict(), home / "timm.pth")
    with torch.no_grad():
        expected = network.forward_intermediates(images(), indices=[2], intermediates_only=True)[0]
    torch.testing.assert_close(_features(load_backbone("resnet18", "timm.pth"), ["layer2"])["layer2"], expected)


def test_a_state_dict_in_memory(resnet18: nn.Module) -> None:
    backbone = load_backbone("resnet18", resnet18.state_dict())
    assert (backbone.weights.kind, backbone.weights.path) == ("module", None)
    assert backbone.weights.sha256 == weights_sha256(resnet18)


def test_random_only_by_name_and_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    backbone = load_backbone("resnet18", "random", seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert (backbone.weights.source, backbone.weights.kind) == ("random(seed=3)", "random")
    assert any("RANDOM" in record.message and record.levelno == logging.WARNING for record in caplog.records)
    assert load_backbone("resnet18", "random", seed=3).weights.sha256 == backbone.weights.sha256
    assert load_backbone("resnet18", "random", seed=4).weights.sha256 != backbone.weights.sha256


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vit_small_patch16_18x2_224", r"No public weights of vit_small_patch16_18x2_224 are known\. For a file"),
        ("vit_small_patch16_dinov3", r"They are gated: accept the licence and fetch the file at https://huggingface"),
        ("resnet10t", "defectlab weights get resnet10t`"),  # not in the manifest, in timm's list
    ],
)
def test_a_download_is_suggested_only_where_there_is_one(home: Path, name: str, says: str) -> None:
    with pytest.raises(WeightsError, match=says) as error:
        load_backbone(name)
    assert f"weights import FILE --name {name}`" in str(error.value)
    assert ("weights get" in str(error.value)) == (name == "resnet10t")


def test_missing_weights_say_where_and_what_to_run(home: Path) -> None:
    with pytest.raises(WeightsError) as error:
        load_backbone("resnet18")
    for part in (
        str(home / "weights" / "resnet18{.pth,.pt,.safetensors}"),
        "defectlab weights get resnet18",
        "weights import",
        "`efficientnet_lite0`, whose weights come with DefectLab",
        'weights="random"',
    ):
        assert part in str(error.value)
    torch.save({}, home / "weights" / "resnet18_mine.pth")
    with pytest.raises(WeightsError, match=r"Did you mean 'resnet18_mine\.pth'"):
        load_backbone("resnet18", "weights/resnet18_mine.pt")
    with pytest.raises(WeightsError, match=r"is a folder.*resnet18_mine\.pth"):
        load_backbone("resnet18", "weights")


def test_the_backbone_that_was_trained_here_is_gone_but_its_file_can_be_used(
    tmp_path: Path, resnet18: nn.Module
) -> None:
    with pytest.raises(OptionError, match=r"no longer part.*take 'efficientnet_lite0'.*blocks\.2, blocks\.4"):
        load_backbone("defectlab_resnet18")
    state = {key: value for key, value in resnet18.state_dict().items() if not key.startswith(("layer4.", "fc."))}
    torch.save(state, tmp_path / "defectlab_resnet18.pth")
    backbone = load_backbone("resnet18", tmp_path / "defectlab_resnet18.pth")
    FeatureExtractor(backbone, ["layer2", "layer3"])
    with pytest.raises(WeightsError, match="does not hold"):
        FeatureExtractor(backbone, ["layer4"])


def test_search_order_and_extra_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    extra = tmp_path / "extra"
    extra.mkdir()
    os.link(file, extra / "resnet18-f37072fd.pth")
    os.link(file, extra / "mine.pth")
    monkeypatch.setenv("DEFECTLAB_WEIGHTS", str(extra))
    with caplog.at_level(logging.INFO):
        assert load_backbone("resnet18").weights.path == file
    assert "first in search order" in caplog.text
    assert load_backbone("resnet18", "mine.pth").weights.path == extra / "mine.pth"
    file.unlink()
    with caplog.at_level(logging.WARNING):
        assert load_backbone("resnet18").weights.path == extra / "resnet18-f37072fd.pth"
    assert "other content" in caplog.text


def test_another_architecture_is_refused_by_its_name(home: Path) -> None:
    torch.save(torchvision.models.resnet50().state_dict(), home / "weights" / "resnet18.pth")
    with pytest.raises(WeightsError) as error:
        load_backbone("resnet18")
    assert 'looks like resnet50 (torchvision): use load_backbone("resnet50"' in str(error.value)
    assert "layer1.0.conv3.weight" in str(error.value)
    assert "layer1.0.conv1.weight (64, 64, 1, 1) instead of (64, 64, 3, 3)" in str(error.value)


def test_a_smaller_relative_is_refused(file: Path) -> None:
    # Every tensor of ResNet-18 fits into ResNet-34, whose other blocks would stay empty.
    with pytest.raises(WeightsError, match="looks like resnet18"):
        load_backbone("resnet34", file)


def test_unknown_code_is_refused(home: Path) -> None:
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict(), home / "own.pth")
    with pytest.raises(WeightsError, match=r"Unexpected keys: 0.weight, 0.bias(.|\n)*no architecture"):
        load_backbone("resnet18", "own.pth")


def test_unfilled_layers_are_refused_and_the_others_work(home: Path, resnet18: nn.Module) -> None:
    state = {k: v for k, v in resnet18.state_dict().items() if not k.startswith(("layer4.", "fc."))}
    torch.save(state, home / "weights" / "resnet18.pth")
    backbone = load_backbone("resnet18")
    assert "layer4.0.conv1.weight" in backbone.unfilled
    extractor = FeatureExtractor(backbone, ["layer1", "layer2", "layer3"])
    assert torch.equal(extractor(images())["layer2"], _plain(resnet18, images()))
    with pytest.raises(WeightsError, match=r"Layer 'layer4' needs 25 tensors.*layer4\.0\.bn1\.bias"):
        FeatureExtractor(backbone, ["layer3", "layer4"])


@pytest.mark.usefixtures("file")
def test_mean_and_std_of_the_caller_win() -> None:
    backbone = load_backbone("resnet18", mean=(0.5, 0.5, 0.5), std=[0.2, 0.2, 0.2])
    assert (backbone.spec.mean, backbone.spec.std) == ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    with pytest.raises(OptionError, match="three positive"):
        load_backbone("resnet18", std=(1, 0, 1))
    with pytest.raises(OptionError, match="backbone=module"):
        load_backbone("resnet18", torchvision.models.resnet18())  # type: ignore[arg-type]


def test_wide_resnet_and_cspdarknet(home: Path) -> None:
    for name, layer, channels in (("wide_resnet50_2", "layer1", 256), ("cspdarknet53", "stages.1", 128)):
        network = timm.create_model(name)
        torch.save(network.state_dict(), home / "weights" / f"{name}.pth")
        with torch.no_grad():
            expected = network.eval().forward_intermediates(images(), indices=[2 if "." in layer else 1])[1][0]
        got = _features(load_backbone(name), [layer])[layer]
        assert got.shape[1] == channels
        torch.testing.assert_close(got, expected)


def test_efficientnet_b7_of_torchvision(home: Path) -> None:
    network = shaken(torchvision.models.efficientnet_b7())
    torch.save(network.state_dict(), home / "weights" / "efficientnet_b7.pth")
    backbone = load_backbone("efficientnet_b7")
    assert backbone.spec.library == "torchvision"
    with torch.no_grad():
        expected = network.features[:3](images())
    torch.testing.assert_close(_features(backbone, ["features.2"])["features.2"], expected)


def test_efficientnet_b7_of_timm_keeps_its_own_epsilon(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = shaken(timm.create_model("tf_efficientnet_b7"))
    torch.save(network.state_dict(), home / "weights" / "efficientnet_b7.pth")
    with caplog.at_level(logging.INFO):
        backbone = load_backbone("efficientnet_b7")
    assert "tf_efficientnet_b7" in caplog.text
    assert backbone.spec.name == "efficientnet_b7"
    assert {m.eps for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    with torch.no_grad():
        expected = network.blocks[:2](network.bn1(network.conv_stem(images())))
    torch.testing.assert_close(_features(backbone, ["blocks.1"])["blocks.1"], expected)


@pytest.mark.real
@pytest.mark.skipif("DEFECTLAB_REAL" not in os.environ, reason="DEFECTLAB_REAL is not set")
def test_the_real_resnet18_with_folded_batch_norm() -> None:
    backbone = load_backbone("resnet18", Path(os.environ["DEFECTLAB_REAL"]) / "weights" / "resnet18.pth")
    assert backbone.unfilled == frozenset()
    assert _features(backbone, ["layer3"])["layer3"].std() > 0.1


def test_precision_is_checked_and_goes_with_the_specification() -> None:
    with pytest.raises(OptionError, match="bfloat16"):
        load_backbone("resnet18", "random", precision="bfloat61")
    spec = load_backbone("resnet18", "random", precision="bfloat16").spec
    assert BackboneSpec.from_dict(spec.to_dict()) == spec
    assert "precision" not in load_backbone("resnet18", "random").spec.to_dict()
