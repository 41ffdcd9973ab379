"""Which weights a training ends with: the model's own choice where none was made."""

from pathlib import Path

import pytest
from helpers.datasets import make_parts
from helpers.models import data, small

from defectlab import LinearVae
from defectlab.engine.checkpoint_policy import CheckpointPolicy
from defectlab_runtime.errors import OptionError


def vae() -> LinearVae:
    return LinearVae(latent_dim=2, hidden=[16, 8], image_size=(16, 16))


def test_a_model_chooses_where_nothing_was_asked_for(parts: Path):
    policy = CheckpointPolicy().for_training(vae(), data(parts))
    assert (policy.monitor, policy.keep, policy.checkpoint) == ("val_good_loss", "best", "weights")
    assert policy.trainer_options() == {"monitor": "val_good_loss", "keep": "best"}


def test_what_is_asked_for_wins(parts: Path):
    assert CheckpointPolicy(keep="last", checkpoint="all").for_training(vae(), data(parts)) == CheckpointPolicy(
        keep="last", checkpoint="all"
    )
    policy = CheckpointPolicy("image_AUROC", patience=3).for_training(vae(), data(parts))
    assert policy.trainer_options() == {"monitor": "image_AUROC", "keep": "best", "patience": 3}


def test_a_single_pass_monitors_nothing(parts: Path):
    policy = CheckpointPolicy("image_AUROC").for_training(small("padim"), data(parts))
    assert policy == CheckpointPolicy(checkpoint="all")
    assert policy.trainer_options() == {}


def test_a_models_own_monitor_gives_way_where_nothing_is_good(tmp_path: Path):
    bad_only = data(make_parts(tmp_path / "bad", good=0), normal_dir="train/good", val_split_mode="none")
    policy = CheckpointPolicy().for_training(vae(), bad_only)
    assert (policy.monitor, policy.keep) == (None, "last")
    with pytest.raises(OptionError, match="needs good validation images"):
        CheckpointPolicy("val_good_loss").for_training(vae(), bad_only)
