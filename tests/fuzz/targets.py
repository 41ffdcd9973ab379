"""Every target, by name; a module is imported when its target is asked for."""

from importlib import import_module

from tests.fuzz.target import Target

# Target name -> module of this package that holds it as TARGET, and its share of the inputs of a long run.
TARGETS: dict[str, tuple[str, float]] = {
    "images": ("images", 3),
    "archives": ("archives", 2),
    "yaml": ("yaml_settings", 2),
    "names": ("names", 3),
    "records": ("run_records", 2),
    "checkpoints": ("checkpoints", 2),
    "weights": ("weights", 2),
    "workbook": ("workbook", 1),
}


def load_target(name: str) -> Target:
    """Return the target `name` of `TARGETS`."""
    target = import_module(f"tests.fuzz.{TARGETS[name][0]}").TARGET
    assert isinstance(target, Target)
    return target
