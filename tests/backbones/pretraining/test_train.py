import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from defectlab.backbones.backbone import tensors_sha256
from defectlab.backbones.pretraining import make
from defectlab.backbones.pretraining.config import Recipe
from defectlab.backbones.pretraining.images import NO_LABEL
from defectlab.backbones.pretraining.train import CURVE, _spread_cross_entropy, pretrain, rate_at
from defectlab.utils.errors import OptionError

SHORT = Recipe(
    small_steps=3,
    large_steps=2,
    small=32,
    large=48,
    small_batch=8,
    large_batch=8,
    per_kind=1,
    cell_sheets=1,
    warm_up=2,
    settling=2,
    settling_size=48,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return tensors_sha256(pretrain(SHORT, folder, every=2)), folder


def test_two_shortened_trainings_give_the_same_weights(whole: tuple[str, Path], tmp_path: Path) -> None:
    assert tensors_sha256(pretrain(SHORT, tmp_path)) == whole[0]
    assert (whole[1] / CURVE).read_text(encoding="utf-8").count("\n") == 3


def test_an_interrupted_training_continues_to_the_same_weights(whole: tuple[str, Path], tmp_path: Path) -> None:
    pretrain(SHORT, tmp_path, stop_at=2)
    assert tensors_sha256(pretrain(SHORT, tmp_path)) == whole[0]


def test_the_first_phase_may_be_cut_short_and_nothing_else_changed(tmp_path: Path) -> None:
    pretrain(SHORT, tmp_path, stop_at=2)
    shorter = replace(SHORT, small_steps=2)
    continued = tensors_sha256(pretrain(shorter, tmp_path, stop_at=3))
    assert continued == tensors_sha256(pretrain(shorter, tmp_path / "other", stop_at=3))
    with pytest.raises(OptionError, match=r"other values of rate\. Fix"):
        pretrain(replace(shorter, rate=1e-3), tmp_path)
    with pytest.raises(OptionError, match="small_steps"):
        pretrain(SHORT, tmp_path)


def test_another_seed_gives_other_weights(whole: tuple[str, Path], tmp_path: Path) -> None:
    assert tensors_sha256(pretrain(replace(SHORT, seed=7), tmp_path)) != whole[0]


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    recipe = Recipe()
    assert rate_at(0, recipe) == pytest.approx(recipe.rate / recipe.warm_up)
    assert rate_at(recipe.small_steps, recipe) == recipe.rate
    assert rate_at(recipe.steps, recipe) == pytest.approx(0)


def test_the_pooled_loss_is_the_cross_entropy_with_shares() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5]])
    labels = torch.tensor([[[0, 1], [1, NO_LABEL]]])
    log_share = torch.log_softmax(logits, 1)[0]
    expected = -(log_share[0] + 2 * log_share[1]) / 3
    assert float(_spread_cross_entropy(logits, labels)) == pytest.approx(float(expected))


def test_the_command_writes_half_precision(home: Path) -> None:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in vars(SHORT).items()]
    file = home / "weights" / "made.safetensors"
    make.main(["--folder", str(home / "build"), "--weights", str(file), *options])
    state = load_file(file)
    assert {str(v.dtype) for v in state.values()} == {"torch.float16", "torch.int64"}
    assert {key.partition(".")[0] for key in state} == {"conv1", "bn1", "layer1", "layer2", "layer3"}
    with pytest.raises(OptionError, match="half precision"):
        make.write_weights({"a": torch.tensor([math.inf])}, file)
