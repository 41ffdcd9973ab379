import pytest
import torch

from defectlab.backbones import weights_matching
from defectlab.backbones.registry import REGISTRY
from defectlab.backbones.weights_matching import looks_like, shapes_of


def test_a_file_like_no_architecture_is_answered_without_building_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_matching, "shapes_of", lambda *_: pytest.fail("an architecture was built"))
    assert looks_like({f"layer{i}.weight": torch.zeros(3) for i in range(10_000)}) == []
    assert looks_like({"conv1.weight": torch.zeros(64, 3, 7, 5)}) == []


def test_the_right_one_of_several_with_one_stem_is_named() -> None:
    shapes, _ = shapes_of("torchvision", "resnet34")
    assert [spec.architecture for spec in looks_like({key: torch.zeros(s) for key, s in shapes.items()})] == [
        "resnet34"
    ]


@pytest.mark.long
def test_each_architecture_has_the_tensor_it_is_listed_by() -> None:
    listed = {one: stem for stem, architectures in weights_matching._STEMS.items() for one in architectures}
    for (library, architecture), (key, shape) in listed.items():
        assert shapes_of(library, architecture)[0][key] == shape, architecture
    assert {(spec.library, spec.architecture) for spec in REGISTRY.values()} <= listed.keys()
