"""Damaged weights files. One on record, or that has checksums of its own, must not load with other values."""

import os
import random
from functools import lru_cache
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file

from defectlab.backbones import weights_manifest
from defectlab.backbones.loading import read_verified_weights
from tests.fuzz.mutations import damage
from tests.fuzz.target import Target

ON_RECORD = "recorded.safetensors"
LEGACY = "legacy.pth"  # a bare pickle, and no record: nothing says what it held
SHAPES = {"conv1.weight": (4, 3, 3, 3), "bn1.weight": (4,), "layer1.0.conv1.weight": (4, 4, 3, 3)}


def prepare(good: Path) -> None:
    state = {key: torch.arange(torch.Size(shape).numel()).reshape(shape) / 7 for key, shape in SHAPES.items()}
    save_file(state, good / ON_RECORD)
    torch.save(state, good / "zipped.pth")
    torch.save({"state_dict": state, "epoch": 3}, good / "nested.pt")
    torch.save(state, good / LEGACY, _use_new_zipfile_serialization=False)


def attack(random: random.Random, good: Path, work: Path) -> None:
    source = good / random.choice((ON_RECORD, "zipped.pth", "nested.pt", LEGACY))
    path = work / source.name
    if source.name == ON_RECORD:
        sha256 = weights_manifest.file_sha256(source)
        weights_manifest.record(weights_manifest.WeightsEntry(path.name, "small", "small", "", sha256=sha256), work)
    path.write_bytes(damage(random, source.read_bytes()))
    with mock.patch.dict(os.environ, DEFECTLAB_WEIGHTS=str(work), DEFECTLAB_HOME=str(good)):
        found = read_verified_weights(path)
    if source.name != LEGACY:
        wanted = _wanted(source)
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            assert value.equal(found[key]), key


@lru_cache(maxsize=4)
def _wanted(good: Path) -> dict[str, torch.Tensor]:
    return read_verified_weights(good)


TARGET = Target("weights", prepare, attack)
