"""anomalib's other models by name: no download, the same records, a checkpoint that reloads."""

import math
from pathlib import Path
from typing import Any

import pytest
from small import backbone, data

from defectlab import Detector, Engine, model_class
from defectlab.errors import OptionError
from defectlab.models.registry import MODELS, OTHERS
from defectlab.results.record import Run

OWN: dict[str, dict[str, Any]] = {
    "cfa": {},
    "dfm": {"layer": "layer2"},
    "fre": {"layer": "layer2", "pooling_kernel_size": 2, "input_dim": 2048, "latent_dim": 8},
    "reverse_distillation": {},
    "supersimplenet": {"image_size": 128},  # its noise needs 32 cells a side
}


def make(name: str, **options: Any) -> Any:
    return model_class(name)(**{"backbone": backbone(), "image_size": 64, **OWN[name], **options})


def test_every_one_is_under_test():
    assert set(OWN) == set(OTHERS)
    assert not set(OTHERS) & set(MODELS)


@pytest.mark.parametrize(
    "name", ["dfm", *(pytest.param(name, marks=pytest.mark.long) for name in OTHERS if name != "dfm")]
)
def test_it_trains_records_and_reloads_at_any_batch(name: str, parts: Path):
    model = make(name)
    Engine(max_epochs=2, enable_progress_bar=False).train(model=model, datamodule=data(parts))
    run = Run.open(model.run_folder)
    assert run.status == "finished"
    rows = run.scores("test")
    assert all(math.isfinite(row.score) for row in rows)
    auroc = run.record["metrics"]["image_AUROC"]
    assert auroc > 0.5
    detector = Detector.load(run.folder)
    own = [row.score for row in rows]
    for batch_size in (4, 1):
        got = [found.score for found in detector.predict([row.image_path for row in rows], batch_size=batch_size)]
        assert got == pytest.approx(own, rel=1e-4)


def test_options_are_checked():
    with pytest.raises(OptionError, match="Did you mean 'layer'"):
        make("dfm", layr="layer2")
