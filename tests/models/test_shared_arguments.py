"""Arguments of every model are declared in one place, and reach every constructor and the YAML from there."""

import ast
import inspect
import logging
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import anomalib.models
import pytest
from helpers.models import small

import defectlab.models
from defectlab import Patchcore, load_backbone, model_class
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.experiment import Experiment, build
from defectlab.models.processors import RecordedPreProcessor
from defectlab.models.registry import ANOMALIB_MODELS, MODELS
from defectlab.models.shared_arguments import SharedArguments
from defectlab_runtime.errors import OptionError

SHARED = [field.name for field in fields(SharedArguments)]

ADD_AN_ARGUMENT = """
from dataclasses import dataclass, field
from pathlib import Path
from defectlab.models import shared_arguments

@dataclass(frozen=True, kw_only=True)
class More(shared_arguments.SharedArguments):
    brightness: float = 1.0

shared_arguments.SharedArguments = More

import inspect
from defectlab.experiment import Experiment, build
from defectlab.models.registry import MODELS, ANOMALIB_MODELS, model_class

for name in [*MODELS, *ANOMALIB_MODELS]:
    parameter = inspect.signature(model_class(name)).parameters["brightness"]
    assert (parameter.default, parameter.annotation) == (1.0, float), name
experiment = Experiment.from_dict({
    "data": {"root": ROOT, "num_workers": 0},
    "model": {"name": "small_conv_vae", "brightness": 0.5},
})
build(experiment)
experiment.model["brightnes"] = experiment.model.pop("brightness")
try:
    build(experiment)
except TypeError as error:
    print(error)
"""


@pytest.mark.parametrize("name", [*MODELS, *ANOMALIB_MODELS])
def test_every_constructor_shows_them(name: str):
    parameters = inspect.signature(model_class(name)).parameters
    assert {key: parameters[key].default for key in SHARED} == {f.name: f.default for f in fields(SharedArguments)}
    assert "keep_aspect: Fit the image" in inspect.getdoc(model_class(name).__init__)


def test_no_model_spells_them_again():
    for file in Path(defectlab.models.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and "shared" in [one.arg for one in node.args.args]:
                assert not {one.arg for one in node.args.args} & set(SHARED), file


def test_one_more_reaches_every_model_and_the_yaml(parts: Path):
    code = ADD_AN_ARGUMENT.replace("ROOT", repr(str(parts)))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "SmallConvVae has no option 'brightnes'. Did you mean 'brightness'?" in result.stdout


def test_they_are_read_from_yaml(parts: Path):
    model, *_ = build(
        Experiment.from_dict({
            "seed": 3,
            "data": {"root": str(parts), "num_workers": 0},
            "model": {"name": "small_conv_vae", "image_size": [48, 64], "center_crop": 40, "keep_aspect": True},
        })
    )  # fmt: skip
    assert model.preprocessing == Preprocessing((48, 64), (40, 40), True, (0, 0, 0), (1, 1, 1))
    assert model.seed == 3


def test_their_order_is_anomalibs():
    theirs, ours = (list(inspect.signature(cls).parameters) for cls in (anomalib.models.Padim, model_class("padim")))
    assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centre_crop": 10}, "Did you mean 'center_crop'"),
        ({"keep_aspect": "False"}, "keep_aspect must be true or false"),
        ({"pre_processor": False}, "resizing"),
        ({"interpolation": "cubic"}, "interpolation must be one of nearest, bilinear, bicubic, got 'cubic'"),
        (
            {"pre_processor": RecordedPreProcessor(Preprocessing((64, 64))), "interpolation": "bicubic"},
            "bilinear: leave",
        ),
        ({"pre_processor": RecordedPreProcessor(Preprocessing((64, 64))), "image_size": 64}, "not both"),
        ({"pre_processor": RecordedPreProcessor(Preprocessing((64, 64))), "keep_aspect": True}, "not both"),
    ],
)
@pytest.mark.parametrize("name", ["padim", "linear_vae"])
def test_what_cannot_work_is_refused(name: str, options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small(name, **options)


def test_one_of_anomalibs_models_keeps_its_own_size_unless_told():
    plain = model_class("ganomaly")(n_features=8, latent_vec_size=8)
    assert plain.preprocessing.size == (256, 256)
    with pytest.raises(OptionError, match="not both"):
        model_class("ganomaly")(pre_processor=RecordedPreProcessor(plain.preprocessing), image_size=64)


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [
        ("efficientnet_lite0", ["blocks.2", "blocks.4"]),
        ("cspdarknet53", ["stages.2", "stages.3"]),
        ("resnet18", ["layer2", "layer3"]),
    ],
)
def test_layers_that_are_not_given_are_the_backbones_own_of_the_same_strides(
    backbone: str, layers: list[str], caplog: pytest.LogCaptureFixture
):
    network = load_backbone(backbone, "random")
    with caplog.at_level(logging.INFO):
        model = Patchcore(network)
    assert model.options["layers"] == layers
    assert ("where a ResNet has" in caplog.text) == (backbone != "resnet18")
    shapes = FeatureExtractor(network, layers).feature_shapes((256, 256))
    assert [shape[1:] for shape in shapes.values()] == [(32, 32), (16, 16)]
    with pytest.raises(OptionError, match="Unknown layer 'layer9'"):
        Patchcore(network, layers=["layer9"])
