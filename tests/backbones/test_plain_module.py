"""A module as a user may hand it over: lower precision, wrapped, scripted, without values."""

import logging

import pytest
import torch
from helpers.backbones import images
from torch import nn

from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.recognition import as_backbone
from defectlab_runtime.errors import OptionError


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cast_to_float32_and_the_log_says_so(
    network: nn.Module, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    network.to(dtype)
    with caplog.at_level(logging.WARNING):
        backbone = as_backbone(network)
    assert f"{dtype}: cast to float32" in caplog.text
    assert {value.dtype for value in backbone.parameters()} == {torch.float32}
    assert network[0].weight.dtype == dtype
    features = FeatureExtractor(backbone, ["1"])(images(16))["1"]
    assert features.dtype == torch.float32
    assert torch.equal(features, FeatureExtractor(network, ["1"])(images(16))["1"])


@pytest.mark.parametrize(
    "wrapped", [nn.DataParallel, lambda module: nn.DataParallel(nn.DataParallel(module)), torch.compile]
)
def test_wrappers_are_taken_off(network: nn.Module, wrapped) -> None:  # fmt: skip
    expected = FeatureExtractor(network, ["1"])(images(16))["1"]
    backbone = as_backbone(wrapped(network))
    assert type(backbone.network) is nn.Sequential
    assert torch.equal(FeatureExtractor(backbone, ["1"])(images(16))["1"], expected)
    assert torch.equal(FeatureExtractor(wrapped(network), ["1"])(images(16))["1"], expected)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (torch.jit.script, "scripted"),
        (lambda module: torch.jit.trace(module, images(16)), "scripted"),
        (lambda module: nn.Sequential(torch.jit.script(module)), "scripted"),
        (lambda module: module.to("meta"), r"no values: 0\.weight is on the meta device"),
    ],
)
def test_what_has_no_layers_or_no_values_is_refused(network: nn.Module, made, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        as_backbone(made(network))
    with pytest.raises(OptionError, match=message):
        FeatureExtractor(made(network), ["0"])
