"""Defaults of row 3.13, model by model, and where ours differ on purpose."""

import inspect
from typing import Any

import pytest
from helpers.models import backbone, small

from defectlab.models.registry import model_class, model_info

FIRST_THREE = ("layer1", "layer2", "layer3")
# model -> what its constructor takes where nothing is said
DEFAULTS: dict[str, dict[str, Any]] = {
    "padim": {"layers": FIRST_THREE, "n_features": None},
    "patchcore": {
        "layers": ("layer2", "layer3"),
        "coreset_sampling_ratio": 0.1,
        "num_neighbors": 9,
        "compress_memory_bank": False,
        "bank_sampling": "coreset",
        "score_computation": "anomalib",
    },
    "cflow": {
        "layers": ("layer2", "layer3", "layer4"),
        "decoder": "freia-cflow",
        "condition_vector": 128,
        "coupling_blocks": 8,
        "clamp_alpha": 1.9,
        "lr": 1e-4,
        "fiber_batch_size": 64,
    },
    "fastflow": {"flow_steps": 8, "hidden_ratio": 1.0, "conv3x3_only": False, "lr": 1e-3, "weight_decay": 1e-5},
    "draem": {"lr": 1e-4, "dtd_dir": None, "enable_sspcab": False, "sspcab_lambda": 0.1, "beta": (0.1, 1.0)},
    "csflow": {
        "cross_conv_hidden_channels": 1024,
        "n_coupling_blocks": 4,
        "clamp": 3,
        "num_channels": 3,
        "lr": 2e-4,
        "eps": 1e-4,
        "weight_decay": 1e-5,
    },
    "efficient_ad": {
        "model_size": "small",
        "teacher_out_channels": 384,
        "lr": 1e-4,
        "weight_decay": 1e-5,
        "padding": False,
        "pad_maps": True,
        "pre_padding": (0, 0, 0, 0),
        "imagenet_dir": None,
    },
    "stfpm": {"layers": FIRST_THREE},
}
# by name, in YAML and on the command line
NAMED: dict[str, dict[str, Any]] = {
    **{name: {"backbone": "resnet18"} for name in ("padim", "patchcore", "cflow", "fastflow", "stfpm")},
    "draem": {"backbone": None},
    "csflow": {"backbone": "efficientnet_b5"},
    "efficient_ad": {"backbone": None, "default_epochs": 20},
}


@pytest.mark.row("3.13")
@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_row_3_13s(name: str):
    parameters = inspect.signature(model_class(name).__init__).parameters
    assert {key: parameters[key].default for key in DEFAULTS[name]} == DEFAULTS[name]
    info = model_info(name)
    assert {key: getattr(info, key) for key in NAMED[name]} == NAMED[name]


@pytest.mark.parametrize("name", ["padim", "fastflow"])
def test_images_are_brought_to_256_pixels_as_in_anomalib_2(name: str):
    # row 3.13 has 224 for PaDiM and PatchCore, which is anomalib 0.7's: `image_size: 224` asks for it
    assert model_class(name)(backbone=backbone()).preprocessing.input_size == (256, 256)


# model, its options beside the defaults, and what its optimiser is to have
OPTIMISERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("cflow", {"layers": ["layer2"], "coupling_blocks": 1}, {"lr": 1e-4}),
    ("fastflow", {"flow_steps": 1}, {"lr": 1e-3, "weight_decay": 1e-5}),
    ("stfpm", {}, {"lr": 0.4, "momentum": 0.9, "weight_decay": 1e-3}),
    ("draem", {"reconstructive_width": 4, "discriminative_width": 4}, {"lr": 1e-4}),
    (
        "csflow",
        {"layers": ["layer3"], "n_coupling_blocks": 1, "cross_conv_hidden_channels": 16},
        {"lr": 2e-4, "eps": 1e-4, "weight_decay": 1e-5, "betas": (0.5, 0.9)},
    ),
]


@pytest.mark.row("3.13")
@pytest.mark.parametrize(("name", "options", "wanted"), OPTIMISERS, ids=[case[0] for case in OPTIMISERS])
def test_the_optimiser_has_them(name: str, options: dict[str, Any], wanted: dict[str, Any]):
    own = options if model_info(name).backbone is None else {"backbone": backbone(), **options}
    optimisers: Any = model_class(name)(image_size=64, **own).configure_optimizers()
    optimiser = optimisers[0][0] if isinstance(optimisers, list | tuple) else optimisers
    assert wanted.items() <= optimiser.param_groups[0].items()


def test_efficient_ads_networks_are_the_small_ones():
    model = small("efficient_ad", model_size="small", teacher_out_channels=384).model
    assert (model.teacher.conv2.out_channels, model.student.conv4.out_channels) == (256, 768)
