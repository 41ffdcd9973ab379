"""Damaged checkpoints, through the loader of models: what loads must be bitwise what was saved."""

import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from defectlab import LinearVae
from defectlab.engine.checkpoints import DigestCheckpointIO
from defectlab.models.loading import restore
from tests.fuzz.mutations import damage
from tests.fuzz.target import Target


def prepare(good: Path) -> None:
    write_small_checkpoint(good / "model.ckpt")


def write_small_checkpoint(path: Path) -> None:
    """Write the checkpoint of a network of a few hundred weights, with thresholds."""
    model = LinearVae(latent_dim=2, hidden=[8, 4], image_size=(8, 8), seed=7)
    model.post_processor.set_thresholds(0.5, 0.25)
    model.save_options()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(plugins=[DigestCheckpointIO()], accelerator="cpu", **quiet)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)


def attack(random: random.Random, good: Path, work: Path) -> None:
    path = work / "model.ckpt"
    path.write_bytes(damage(random, (good / "model.ckpt").read_bytes()))
    assert_same(contents(path), _wanted(good / "model.ckpt"))


@lru_cache(maxsize=1)
def _wanted(good: Path) -> dict[str, Any]:
    return contents(good)


def contents(path: Path) -> dict[str, Any]:
    """Return all of a loaded model that decides what it says of an image."""
    model = restore(path)
    plain = {"options": model.options, "preprocessing": model.preprocessing.to_dict(), "class": type(model)}
    return plain | {key: value.clone() for key, value in model.state_dict().items()}


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compare what `contents` returned, tensors bit by bit."""
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == found[key].dtype, key
            assert value.reshape(-1).view(torch.uint8).equal(found[key].reshape(-1).view(torch.uint8)), key
        else:
            assert value == found[key], key


TARGET = Target("checkpoints", prepare, attack)
