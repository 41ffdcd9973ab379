import copy
import pickle

import pytest
import timm
import torch
import torchvision
from helpers.backbones import images, shaken
from torch import Tensor, nn

from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.loading import load_backbone
from defectlab_runtime.errors import OptionError, WeightsError


def test_equals_anomalibs_extractor_in_keys_and_features(resnet18: nn.Module) -> None:
    from anomalib.models.components.feature_extractors import TimmFeatureExtractor

    ours = FeatureExtractor(resnet18, ["layer2", "layer3"])
    plain = TimmFeatureExtractor("resnet18", ["layer2", "layer3"], pre_trained=False)
    assert set(ours.state_dict()) == set(plain.state_dict())
    plain.load_state_dict(ours.state_dict(), strict=True)
    theirs = plain(images(96))
    for layer, features in ours(images(96)).items():
        assert torch.equal(features, theirs[layer])
    assert ours.out_dims == list(plain.out_dims)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_rounds_features_and_leaves_the_weights(precision: str) -> None:
    full, lower = (
        FeatureExtractor(load_backbone("resnet18", "random", precision=each), ["layer1", "layer2"])
        for each in ("float32", precision)
    )
    expected = full(images(64))
    for layer, features in lower(images(64)).items():
        assert features.dtype == torch.float32
        apart = float((features - expected[layer]).norm() / expected[layer].norm())
        assert 0 < apart < (0.02 if precision == "bfloat16" else 0.003)
    assert lower.feature_shapes((64, 64)) == full.feature_shapes((64, 64))
    states = [extractor.state_dict() for extractor in (full, lower)]
    assert all(torch.equal(states[1][key], value) for key, value in states[0].items())


def test_an_images_features_are_free_of_its_batch(resnet18: nn.Module) -> None:
    extractor = FeatureExtractor(resnet18, ["layer1", "layer3"])
    together, alone = extractor(images(96)), extractor(images(96)[1:])
    for layer, features in together.items():
        assert (features[1:] - alone[layer]).abs().max() <= 1e-5 * features.abs().max()


def test_the_users_order_is_kept_and_correct(resnet18: nn.Module) -> None:
    extractor = FeatureExtractor(resnet18, ["layer3", "layer1"])
    features = extractor(images())
    assert [(name, f.shape[1]) for name, f in features.items()] == [("layer3", 256), ("layer1", 64)]
    assert extractor.out_dims == [256, 64]
    assert extractor.feature_shapes((96, 64)) == {"layer3": (256, 6, 4), "layer1": (64, 24, 16)}
    alone = FeatureExtractor(resnet18, ["layer1"])
    assert torch.equal(alone(images())["layer1"], features["layer1"])


def test_a_layer_and_its_last_part_are_equal(resnet18: nn.Module) -> None:
    features = FeatureExtractor(resnet18, ["layer1", "layer1.1"])(images())
    assert torch.equal(features["layer1"], features["layer1.1"])


def test_a_node_overwritten_in_place_is_read_before_that(resnet18: nn.Module) -> None:
    features = FeatureExtractor(resnet18, ["layer1.0.bn1", "layer1"])(images())
    found: list[Tensor] = []
    handle = resnet18.layer1[0].bn1.register_forward_hook(lambda _m, _i, output: found.append(output.clone()))
    with torch.no_grad():
        resnet18(images())
    handle.remove()
    assert found[0].min() < 0  # else the overwriting ReLU would not show
    assert torch.equal(features["layer1.0.bn1"], found[0])


def test_always_in_eval_mode_without_gradients(resnet18: nn.Module) -> None:
    extractor = FeatureExtractor(resnet18, ["layer1"])
    before = {key: value.clone() for key, value in extractor.state_dict().items()}
    nn.Sequential(extractor).train()
    features = extractor(images())["layer1"]
    assert not features.requires_grad
    assert not any(module.training for module in extractor.modules())
    assert all(torch.equal(before[key], value) for key, value in extractor.state_dict().items())


def test_the_network_is_neither_shared_nor_changed() -> None:
    network = torchvision.models.resnet18()
    network.bn1.eval()
    extractor = FeatureExtractor(network, ["layer1"])
    assert (network.training, network.bn1.training, network.conv1.weight.requires_grad) == (True, False, True)
    assert extractor.feature_extractor.conv1.weight.data_ptr() != network.conv1.weight.data_ptr()
    tensors = [tensor.data_ptr() for tensor in extractor.state_dict().values()]
    assert len(tensors) == len(set(tensors))


def test_copies_pickles_and_half_precision(resnet18: nn.Module) -> None:
    extractor = FeatureExtractor(resnet18, ["layer2", "layer1"])
    expected = extractor(images())
    for twin in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        features = twin(images())
        assert list(features) == ["layer2", "layer1"]
        assert all(torch.equal(features[layer], expected[layer]) for layer in expected)
        assert set(twin.state_dict()) == set(extractor.state_dict())
    assert FeatureExtractor(copy.deepcopy(resnet18).half(), ["layer1"]).out_dims == [64]


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([], "empty"),
        (["layer1", "layer2", "layer1"], "layer1 twice"),
        (["layer22"], r"Unknown layer 'layer22'. Did you mean 'layer2'\? Available: .*layer1, layer2"),
        (["fc"], r"Layer 'fc' gives \(1, 1000\), not a feature map"),
        ([1], "must be names"),
    ],
)
def test_layers_that_cannot_work(resnet18: nn.Module, layers: list[str], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        FeatureExtractor(resnet18, layers)


def test_main_layers_of_an_unregistered_network_are_listed() -> None:
    with pytest.raises(OptionError, match=r"features\.0, .*features\.8"):
        FeatureExtractor(torchvision.models.efficientnet_b0(), ["blocks.1"])


def test_an_average_of_maps_of_one_shape_and_of_several(resnet18: nn.Module) -> None:
    single = FeatureExtractor(resnet18, ["layer1.0", "layer1.1"])(images())
    features = FeatureExtractor(resnet18, ["layer2", "layer1.0 + layer1.1"])(images())
    assert list(features) == ["layer2", "layer1.0 + layer1.1"]
    assert torch.allclose(features["layer1.0 + layer1.1"], (single["layer1.0"] + single["layer1.1"]) / 2, atol=1e-6)
    with pytest.raises(OptionError, match=r"'layer1\+layer2' is an average, .*differ in shape.*list of layers"):
        FeatureExtractor(resnet18, ["layer1+layer2"])


class Untraceable(nn.Module):
    """A network whose path depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2)
        self.deep = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(inplace=True))
        self.unused = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if x.sum() > 1e9:
            x = x * 2
        return self.deep(x)


def test_a_network_that_cannot_be_traced_is_read_through_hooks() -> None:
    network = Untraceable().eval()
    extractor = FeatureExtractor(network, ["deep", "stem"])
    assert extractor.hooked
    assert extractor.out_dims == [6, 4]
    for twin in (extractor, copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        features = twin(images())
        assert list(features) == ["deep", "stem"]
        assert torch.equal(features["stem"], network.stem(images()))
        assert torch.equal(features["deep"], network(images()))
    with pytest.raises(OptionError, match="Did you mean 'stem'"):
        FeatureExtractor(network, ["stem1"])
    with pytest.raises(OptionError, match="does not run its layers unused"):
        FeatureExtractor(network, ["unused"])
    with pytest.raises(WeightsError, match=r"stem\.bias"):
        FeatureExtractor(network, ["stem"], unfilled=frozenset({"stem.bias"}))


def test_only_what_a_layer_needs_must_be_filled(resnet18: nn.Module) -> None:
    unfilled = frozenset({"layer3.1.bn2.weight"})
    FeatureExtractor(resnet18, ["layer3.0", "layer2"], unfilled=unfilled)
    with pytest.raises(WeightsError, match=r"'layer3' needs 1 tensors.*layer3\.1\.bn2\.weight"):
        FeatureExtractor(resnet18, ["layer2", "layer3"], unfilled=unfilled)


def test_same_padding_convolutions_of_timm_keep_their_keys() -> None:
    network = shaken(timm.create_model("tf_efficientnet_b0"))
    extractor = FeatureExtractor(network, ["blocks.1"])
    assert not extractor.hooked
    assert {key.removeprefix("feature_extractor.") for key in extractor.state_dict()} <= set(network.state_dict())
    with torch.no_grad():
        expected = network.blocks[:2](network.bn1(network.conv_stem(images(72))))
    assert torch.equal(extractor(images(72))["blocks.1"], expected)


@pytest.mark.parametrize(
    ("network", "layers"),
    [
        (lambda: torchvision.models.swin_t(), ["features.1", "features.3"]),
        pytest.param(lambda: torchvision.models.swin_v2_t(), ["features.1", "features.3"], marks=pytest.mark.long),
        pytest.param(
            lambda: timm.create_model("swin_tiny_patch4_window7_224"), ["layers.0", "layers.1"], marks=pytest.mark.long
        ),
    ],
)  # fmt: skip
def test_channels_last_are_permuted(network, layers: list[str]) -> None:
    torch.manual_seed(0)
    network = network().eval()
    fixed = isinstance(getattr(network, "pretrained_cfg", None), dict)
    batch = images(224 if fixed else 64)
    found: list[Tensor] = []
    handle = network.get_submodule(layers[1]).register_forward_hook(lambda _m, _i, output: found.append(output))
    with torch.no_grad():
        network(batch)
    handle.remove()
    extractor = FeatureExtractor(network, layers)
    features = extractor(batch)
    assert extractor.out_dims == [96, 192]
    assert torch.allclose(features[layers[1]], found[0].permute(0, 3, 1, 2), atol=1e-5)
    assert {layer: feature.shape[1:] for layer, feature in features.items()} == extractor.feature_shapes(
        batch.shape[2:]
    )


def test_inner_nodes_of_a_convnext_are_permuted_and_its_outputs_are_not() -> None:
    extractor = FeatureExtractor(torchvision.models.convnext_tiny(), ["features.1", "features.1.0.block.2"])
    assert extractor.feature_shapes((64, 64)) == {"features.1": (96, 16, 16), "features.1.0.block.2": (96, 16, 16)}
    assert extractor.channels_last == {"features.1.0.block.2"}


QUICK = {"resnet10t": 64, "mobilenetv3_small_050": 64, "convnext_atto": 64, "vgg11": 64}
LONG = {
    64: "regnetx_002 efficientnet_lite0 densenet121 dla34 ghostnet_050 hardcorenas_a mnasnet_small resnest14d "
    "rexnet_100 res2net50_14w_8s selecsls42 tinynet_e cspresnet50 darknet17 dpn48b fbnetc_100 lcnet_050 mixnet_s "
    "nf_resnet26 skresnet18 "
    "edgenext_xx_small efficientvit_b0 fastvit_t8 mobileone_s0 repvgg_a0 tresnet_m poolformer_s12 pvt_v2_b0 hgnet_tiny "
    "starnet_s1 inception_next_atto repghostnet_050 caformer_s18 focalnet_tiny_srf repvit_m0_9 ese_vovnet19b_dw",
    128: "xception41 inception_v3",
    224: "swinv2_cr_tiny_224 swin_tiny_patch4_window7_224 coatnet_nano_rw_224 nest_tiny visformer_tiny",
    256: "maxvit_rmlp_pico_rw_256",
}  # fmt: skip
CASES = [pytest.param(name, size, id=name) for name, size in QUICK.items()] + [
    pytest.param(name, size, id=name, marks=pytest.mark.long) for size, names in LONG.items() for name in names.split()
]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_channels_of_timm_families_are_those_of_a_forward_pass_and_of_timms_own_account(name: str, size: int) -> None:
    network = timm.create_model(name).eval()
    info = network.feature_info[-3:-1]
    extractor = FeatureExtractor(network, [str(one["module"]) for one in info])
    features = extractor(images(size))
    assert extractor.out_dims == [one["num_chs"] for one in info]
    for feature, one in zip(features.values(), info, strict=True):
        _, channels, height, width = feature.shape
        assert channels == one["num_chs"]
        assert height == width
        assert abs(height - size / one["reduction"]) <= 3  # convolutions without padding lose a few


class TwoMaps(nn.Module):
    """A network with a stage that returns two maps, as those of HRNet do."""

    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = nn.Conv2d(4, 5, 1), nn.Conv2d(4, 6, 3, stride=2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.fine(x), self.coarse(x)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stage = nn.Conv2d(3, 4, 3, stride=2), self.Stage()

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = self.stage(self.stem(x))
        return fine.mean() + coarse.mean()


def test_a_layer_that_gives_several_maps_is_refused_with_the_names_of_each() -> None:
    with pytest.raises(OptionError, match=r"'stage' gives 2 results .*one of stage\.fine, stage\.coarse"):
        FeatureExtractor(TwoMaps(), ["stage"])
    assert FeatureExtractor(TwoMaps(), ["stage.coarse"]).out_dims == [6]


def test_a_layer_that_runs_twice_in_a_network_read_through_hooks_is_refused() -> None:
    class Twice(Untraceable):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.stem(x)[:, :3])

    with pytest.raises(OptionError, match="'stem' runs several times"):
        FeatureExtractor(Twice(), ["stem"])
