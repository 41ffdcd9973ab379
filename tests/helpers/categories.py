"""Two categories below one root, with defects of one name, and a model trained on both."""

from pathlib import Path

from defectlab import Engine
from defectlab.results.run.run import Run
from helpers.datasets import make_parts
from helpers.models import data, small

NAMES = ["bolt", "nut"]


def make_categories(root: Path) -> Path:
    """Write the datasets bolt (with masks) and nut (larger, with masks) below a root."""
    make_parts(root / "bolt")
    make_parts(root / "nut", size=80, good=6)
    return root


def trained_on_both(root: Path, **options) -> Run:
    """The finished run of one PatchCore on both categories; `options` are the engine's."""
    model = small("patchcore")
    engine = Engine(enable_progress_bar=False, **options)
    engine.train(model=model, datamodule=data(root, categories=NAMES))
    return Run.open(model.run_folder)
