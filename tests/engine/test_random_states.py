"""A resumed training is the one that was not interrupted."""

from pathlib import Path

import pytest
import torch
from helpers.models import data, small

from defectlab import Engine
from defectlab.engine.checkpoints import KeepEpochs
from defectlab.engine.random_states import KEY
from defectlab.results.run.run import Run

QUIET = {"enable_progress_bar": False}


@pytest.mark.parametrize("name", ["stfpm", "small_conv_vae"])
def test_a_resumed_training_equals_an_undisturbed_one(name: str, parts: Path, tmp_path: Path):
    whole = small(name)
    keep = KeepEpochs(1, optimizer=True)
    Engine(max_epochs=3, callbacks=[keep], **QUIET).fit(model=whole, datamodule=data(parts))
    run = Run.open(whole.run_folder)
    (middle,) = (run.folder / "weights/epochs").glob("*_1.ckpt")
    resumed = small(name)
    engine = Engine(max_epochs=3, default_root_dir=tmp_path / "resumed", **QUIET)
    engine.fit(model=resumed, datamodule=data(parts), ckpt_path=middle)
    again = Run.open(resumed.run_folder)
    assert again.record.history["train_loss"] == pytest.approx(run.record.history["train_loss"][1:], rel=1e-6)
    expected = [row.score for row in run.scores("validation")]
    assert [row.score for row in again.scores("validation")] == pytest.approx(expected, rel=1e-6)

    content = torch.load(middle, weights_only=True)
    del content[KEY]  # as checkpoints were written before
    torch.save(content, tmp_path / "old.ckpt")
    old = small(name)
    engine = Engine(max_epochs=3, default_root_dir=tmp_path / "old", **QUIET)
    engine.fit(model=old, datamodule=data(parts), ckpt_path=tmp_path / "old.ckpt")
    assert len(Run.open(old.run_folder).record.history["train_loss"]) == 2
