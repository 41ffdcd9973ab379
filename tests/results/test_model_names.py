from defectlab.models.registry import MODELS, OTHERS
from defectlab.results.model_names import TITLES, class_name, title


def test_class_names_are_those_of_the_registry():
    known = MODELS | OTHERS
    assert {name: class_name(name) for name in known} == {name: info.class_name for name, info in known.items()}
    assert set(TITLES) <= set(known)
    assert title("linear_vae") == "LinearVae"
