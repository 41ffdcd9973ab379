"""The description in an exported file: every digit survives, and what is wrong is named exactly."""

import json
import math
from dataclasses import replace

import pytest

from defectlab_runtime.description import BackboneFacts, Description, RunFacts
from defectlab_runtime.errors import DescriptionError

DESCRIPTION = Description(
    defectlab="0.1.0",
    run=RunFacts("abc", "resnet18_layer2", "Patchcore", "bottle", "0123"),
    model="patchcore",
    preprocessing={"size": [256, 256], "mean": [0.485, 0.456, 0.406], "crop": None},
    image_threshold=0.1 + 0.2,
    pixel_threshold=math.nextafter(1.0, 2.0),
    score_range=(1e-300, 1e300),
    map_range=(-0.0, 5.0),
    relative_maps=False,
    has_maps=True,
    backbone=BackboneFacts("resnet18", "BSD-3-Clause", "ff" * 32),
    versions={"torch": "2.9.0"},
)


def test_every_digit_survives():
    assert Description.from_json(DESCRIPTION.to_json()) == DESCRIPTION
    assert Description.from_json(DESCRIPTION.to_json().encode()) == DESCRIPTION
    without = replace(DESCRIPTION, image_threshold=None, pixel_threshold=None, backbone=None, precision="int8")
    assert Description.from_json(without.to_json()) == without


def test_numbers_that_are_not_finite_survive_in_strict_json():
    given = replace(DESCRIPTION, image_threshold=math.nan, pixel_threshold=-math.inf, score_range=(math.inf, -math.inf))
    text = given.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    found = Description.from_json(text)
    assert found.image_threshold is not None
    assert math.isnan(found.image_threshold)
    assert (found.pixel_threshold, found.score_range) == (-math.inf, (math.inf, -math.inf))


def test_everything_that_is_wrong_is_named_at_once():
    data = json.loads(DESCRIPTION.to_json())
    del data["model"], data["run"]["hash"]
    data |= {"image_threshold": "high", "score_range": [2, 1], "has_maps": 1, "classes": ["good"], "precision": "int4"}
    data["map_range"] = [10**400, 1]
    data["backbone"]["sha256"] = 5
    with pytest.raises(DescriptionError) as error:
        Description.from_json(json.dumps(data), "m.onnx")
    assert str(error.value).splitlines() == [
        "The description in m.onnx is damaged:",
        "  run.hash is missing",
        "  backbone.sha256 is 5, not text or null",
        "  model is missing",
        '  image_threshold is "high", not a number or null',
        "  score_range is [2, 1], not two numbers, the first not above the second",
        f"  map_range is [1{'0' * 58}..., not two numbers, the first not above the second",
        "  has_maps is 1, not true or false",
        '  classes is ["good"], not two texts',
        '  precision is "int4", not one of float32, float16, int8',
        "Export the run again.",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged: Expecting value"),
        ("[" * 100_000, "damaged"),
        ('"text"', "no JSON object"),
        (b"\xff", "damaged"),
        ("{}", "format is None"),
        ('{"format": true}', "format is True"),
        ('{"format": 2, "defectlab": "9.0"}', "format 2, from DefectLab 9.0, .* update defectlab-runtime"),
    ],
)
def test_a_text_that_is_no_description_is_refused(text: str | bytes, message: str):
    with pytest.raises(DescriptionError, match=message):
        Description.from_json(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": [0, 4]}, "image_size must be"),
        ({"size": 4, "interpolation": "lanczos"}, "interpolation must be one of"),
        ({"colour": 1}, "unexpected keyword argument 'colour'"),
        ({"size": [32, 32], "tiling": {"overlap": 0.5}}, "image_size"),
        ({"size": [32, 32], "area": {"size": [8, 8], "code": "AAAA"}}, "Error -"),
        ({"size": [32, 32], "area": {"size": [8, 8], "code": "eJxjYGBgAAAABAAB"}}, "has not the 8 bytes"),
        ({"size": [32, 32], "area": {"size": [1 << 20, 1 << 20], "code": "eJxjYGBgAAAABAAB"}}, "more than"),
    ],
)
def test_preprocessing_that_cannot_work_is_refused(wrong: dict[str, object], message: str):
    data = json.loads(DESCRIPTION.to_json()) | {"preprocessing": wrong}
    with pytest.raises(DescriptionError, match=f"preprocessing cannot be used: .*{message}"):
        Description.from_json(json.dumps(data))


def test_keys_of_later_versions_are_left_out():
    data = json.loads(DESCRIPTION.to_json()) | {"of_later": 1}
    assert Description.from_json(json.dumps(data)) == DESCRIPTION
