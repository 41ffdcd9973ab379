from defectlab.models.registry import MODELS
from defectlab.results.model_names import TITLES, class_name, title


def test_class_names_are_those_of_the_registry():
    assert {name: class_name(name) for name in MODELS} == {name: info.class_name for name, info in MODELS.items()}
    assert set(TITLES) <= set(MODELS)
    assert title("linear_vae") == "LinearVae"
