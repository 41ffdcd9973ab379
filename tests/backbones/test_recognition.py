from typing import Any

import pytest
import timm
import torch
import torchvision
from helpers.backbones import images
from torch import Tensor, nn

from defectlab.backbones.backbone import weights_sha256
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.recognition import as_backbone, recognise
from defectlab.backbones.registry import REGISTRY, build


@pytest.mark.parametrize("name", ["resnet18", "wide_resnet50_2", "efficientnet_b7", "cspdarknet53"])
def test_registered_architectures(name: str) -> None:
    assert recognise(build(REGISTRY[name], device="meta")) == REGISTRY[name]


def test_other_torchvision_and_timm_models() -> None:
    with torch.device("meta"):
        spec = recognise(torchvision.models.resnet34())
        assert spec is not None
        assert (spec.library, spec.architecture) == ("torchvision", "resnet34")
        assert "layer3" in spec.layers
        spec = recognise(timm.create_model("tf_efficientnet_b0.ap_in1k"))
        assert spec is not None
        assert (spec.library, spec.architecture, spec.mean) == ("timm", "tf_efficientnet_b0", (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}),
        ("vit_small_patch16_dinov3", {}),
        ("swin_tiny_patch4_window7_224", {"dynamic_img_size": True}),
        ("beit_base_patch16_224", {}),
    ],
)
def test_transformers_of_timm_with_and_without_its_switch_for_any_size(name: str, options: dict[str, bool]) -> None:
    with torch.device("meta"):
        spec = recognise(timm.create_model(name, num_classes=3, **options))
    assert spec is not None
    assert (spec.library, spec.architecture) == ("timm", name)
    assert spec.layers[:2] == (("layers.0", "layers.1") if name.startswith("swin") else ("blocks.0", "blocks.1"))


def test_another_classifier_does_not_matter() -> None:
    network = torchvision.models.resnet18(num_classes=3)
    assert recognise(network) == REGISTRY["resnet18"]
    network.fc = nn.Identity()
    assert recognise(network) == REGISTRY["resnet18"]


def _epsilon(network: Any) -> None:
    network.layer2[0].bn1.eps = 1e-3


def _stride(network: Any) -> None:
    network.layer4[0].conv1.stride = (1, 1)


def _activation(network: Any) -> None:
    network.layer1[0].relu = nn.GELU()


def _shape(network: Any) -> None:
    network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)


def _part(network: Any) -> None:
    network.layer5 = nn.Conv2d(512, 512, 1)


def _forward(network: Any) -> None:
    network.layer3.forward = lambda x: x


def _hook(network: Any) -> None:
    network.layer1.register_forward_hook(lambda _m, _i, output: output * 2)


@pytest.mark.parametrize("change", [_epsilon, _stride, _activation, _shape, _part, _forward, _hook])
def test_every_change_that_alters_features_is_noticed(change: Any) -> None:
    network = torchvision.models.resnet18()
    change(network)
    assert recognise(network) is None


def test_dilated_timm_and_feature_lists_are_not_recognised() -> None:
    with torch.device("meta"):
        assert recognise(timm.create_model("resnet18", output_stride=8)) is None
        assert recognise(timm.create_model("resnet18", features_only=True)) is None


class Own(torchvision.models.ResNet):
    """A subclass computes whatever it likes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def test_a_subclass_is_unknown_code_and_still_works() -> None:
    network = Own(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2])
    backbone = as_backbone(network)
    assert (backbone.spec.library, backbone.spec.name) == ("unknown", "Own")
    assert FeatureExtractor(backbone, ["layer1"]).out_dims == [64]


def test_as_backbone_copies_and_hashes(resnet18: nn.Module) -> None:
    resnet18.train()
    backbone = as_backbone(resnet18)
    assert resnet18.training
    resnet18.eval()
    assert all(parameter.requires_grad for parameter in resnet18.parameters())
    assert (backbone.weights.kind, backbone.weights.sha256) == ("module", weights_sha256(resnet18))
    assert as_backbone(backbone) is backbone
    rebuilt = build(backbone.spec)
    rebuilt.load_state_dict(backbone.network.state_dict())
    left, right = FeatureExtractor(rebuilt, ["layer2"]), FeatureExtractor(backbone, ["layer2"])
    assert torch.equal(left(images())["layer2"], right(images())["layer2"])


def test_the_hash_sees_values_names_and_nothing_else() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = weights_sha256(network)
    assert weights_sha256(network.eval().requires_grad_(False)) == before
    with torch.no_grad():
        network[0].weight[0, 0] += 1
    assert weights_sha256(network) != before
