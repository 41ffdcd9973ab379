import json
import subprocess
import sys

import pytest
import torch

from defectlab.backbones.registry import REGISTRY, BackboneSpec, build, get_spec, list_backbones, variants
from defectlab_runtime.errors import OptionError


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_spec_survives_json(name: str) -> None:
    spec = REGISTRY[name]
    assert BackboneSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_from_dict_names_a_wrong_key() -> None:
    with pytest.raises(OptionError, match="'architecture'"):
        BackboneSpec.from_dict({"name": "x", "architectur": "y"})


def test_unknown_backbone_names_the_closest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'wide_resnet50_2'"):
        get_spec("wide_resnet50_3")
    with pytest.raises(OptionError, match=r"resnet18\.a1_in1k"):
        get_spec("resnet18.a1_in2k")


def test_timm_names_bring_their_own_statistics_and_layers() -> None:
    spec = get_spec("tf_efficientnet_b0.ap_in1k")
    assert spec.mean == (0.5, 0.5, 0.5)
    assert spec.layers == ("blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6")
    assert get_spec("resnet34").layers == ("act1", "layer1", "layer2", "layer3", "layer4")


def test_efficientnet_b7_has_two_architectures() -> None:
    first, second = variants("efficientnet_b7")
    assert (first.library, first.layers[-1]) == ("torchvision", "features.8")
    assert (second.library, second.architecture, second.layers[0]) == ("timm", "tf_efficientnet_b7", "blocks.0")


def test_list_backbones_puts_registered_names_first() -> None:
    names = list_backbones("*resnet50*")
    assert names[:2] == ["resnet50", "wide_resnet50_2"]
    assert "resnet50d" in names
    assert len(names) == len(set(names))


def test_build_is_seeded_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = build(REGISTRY["resnet18"], seed=1).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    again, other = build(REGISTRY["resnet18"], seed=1).state_dict(), build(REGISTRY["resnet18"], seed=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_meta_build_allocates_nothing() -> None:
    assert {p.device.type for p in build(REGISTRY["efficientnet_b7"], device="meta").parameters()} == {"meta"}


def test_unknown_library_cannot_be_built() -> None:
    with pytest.raises(OptionError, match="backbone=module"):
        build(BackboneSpec("Mine", "unknown", "mine.Mine", ()))


def test_listing_and_verifying_import_no_torch() -> None:
    code = (
        "import sys; from defectlab.backbones import registry, weights, weights_download; weights.list_weights(); "
        "weights.verify(); assert registry.REGISTRY; bad = {'torch', 'timm', 'anomalib'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
