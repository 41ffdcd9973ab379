"""Checkpoint files that are damaged, made by others or hostile: refused with the fix, and nothing of them runs."""

import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.malicious import KINDS

from defectlab.models.checkpoint import CHECKPOINT_KEY, read_checkpoint, write_checkpoint
from defectlab.models.loading import restore
from defectlab.utils.tensor_archive import DIGEST, DamagedArchiveError
from defectlab_runtime.errors import InputError
from tests.fuzz.checkpoints import assert_same, contents, write_small_checkpoint

FILES = 120
FIRST = "model.encoder.body.1.weight"
COUNTER = "model.encoder.body.1.num_batches_tracked"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "model.ckpt"
    write_small_checkpoint(path)
    return path


def _without_digest(whole: Path, path: Path) -> Path:
    torch.save(torch.load(whole, weights_only=True), path)
    return path


def _flipped(path: Path, source: Path, place: int) -> Path:
    content = bytearray(source.read_bytes())
    content[place] ^= 1 << 6
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return path


def test_of_120_files_with_flipped_bytes_none_loads_as_another_model(whole: Path, tmp_path: Path) -> None:
    places = random.Random(0).sample(range(whole.stat().st_size), FILES)
    wanted, refused = contents(whole), 0
    for place in places:
        try:
            found = contents(_flipped(tmp_path / "damaged.ckpt", whole, place))
        except InputError:
            refused += 1
        else:
            assert_same(found, wanted)
    assert refused > FILES // 2


@pytest.mark.parametrize(
    "text", [b"image_size", b"preprocessing", b"latent_dim", b"interpolation", b"_image_threshold"]
)
@pytest.mark.parametrize("digest", [True, False])
def test_a_damaged_setting_is_found_with_a_digest_or_without(
    whole: Path, tmp_path: Path, text: bytes, digest: bool
) -> None:
    source = whole if digest else _without_digest(whole, tmp_path / "old.ckpt")
    place = source.read_bytes().index(text) + len(text) + 2  # the beginning of its value
    with pytest.raises(DamagedArchiveError, match="Copy it again"):
        restore(_flipped(tmp_path / "damaged.ckpt", source, place))


def test_the_hurried_get_a_damaged_file_as_it_is(whole: Path, tmp_path: Path) -> None:
    weights = read_checkpoint(whole)["state_dict"][FIRST].numpy().tobytes()
    damaged = _flipped(tmp_path / "damaged.ckpt", whole, whole.read_bytes().index(weights) + 40)
    with pytest.raises(DamagedArchiveError):
        restore(damaged)
    loaded = restore(damaged, verify=False).state_dict()[FIRST]
    assert loaded.numpy().tobytes() != weights


def test_a_file_from_before_there_were_digests_loads_and_says_so_once(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = _without_digest(whole, tmp_path / "old.ckpt")
    with caplog.at_level("INFO"):
        assert_same(contents(old), contents(whole))
        restore(old)
    assert caplog.text.count("has no digest") == 1
    assert "old.ckpt" in caplog.text


def test_the_bytes_depend_on_the_content_alone(whole: Path, tmp_path: Path) -> None:
    write_checkpoint(read_checkpoint(whole), tmp_path / "another name.ckpt")
    write_checkpoint(read_checkpoint(whole), tmp_path / "model.ckpt")
    assert (tmp_path / "another name.ckpt").read_bytes() == (tmp_path / "model.ckpt").read_bytes()
    assert [name for name in zipfile.ZipFile(tmp_path / "model.ckpt").namelist() if name.endswith(DIGEST)]


def _record(content: dict[str, Any], key: str, value: Any) -> None:
    content[CHECKPOINT_KEY] = content[CHECKPOINT_KEY] | {key: value}


CHANGES: dict[str, Any] = {
    "no state_dict": lambda content: content.pop("state_dict"),
    "no settings": lambda content: content.pop("hyper_parameters"),
    "record of another kind": lambda content: content.update({CHECKPOINT_KEY: [1]}),
    "no backbone": lambda content: content[CHECKPOINT_KEY].pop("backbone"),
    "backbone of another kind": lambda content: _record(content, "backbone", "resnet18"),
    "format of another kind": lambda content: _record(content, "format", "1"),
    "unknown model": lambda content: _record(content, "model", "patchcroe"),
    "unknown setting": lambda content: content["hyper_parameters"].update(latent=3),
    "setting of another kind": lambda content: content["hyper_parameters"].update(latent_dim="two"),
    "unknown preprocessing": lambda content: _record(content, "preprocessing", {"size": 3}),
    "threshold of another kind": lambda content: _record(content, "thresholds", {"image": "high", "pixel": None}),
    "no tensors": lambda content: content.update(state_dict={}),
    "a tensor more": lambda content: content["state_dict"].update(extra=torch.zeros(2)),
    "a tensor less": lambda content: content["state_dict"].pop(FIRST),
    "a tensor of another shape": lambda content: content["state_dict"].update({FIRST: torch.ones(2)}),
    "fractions for integers": lambda content: content["state_dict"].update({COUNTER: torch.tensor(0.5)}),
    "a list for a tensor": lambda content: content["state_dict"].update({FIRST: [1.0]}),
    "a bomb": lambda content: content["state_dict"].update({FIRST: torch.ones(1).expand(1 << 40)}),
    "a sparse tensor": lambda content: content["state_dict"].update({FIRST: torch.eye(3).to_sparse()}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_content_that_makes_no_model_is_refused_with_the_fix(whole: Path, tmp_path: Path, change: str) -> None:
    content = torch.load(whole, weights_only=True)
    CHANGES[change](content)
    write_checkpoint(content, tmp_path / "changed.ckpt")
    with pytest.raises(InputError, match=r"again|Load it with anomalib|Did you mean"):
        restore(tmp_path / "changed.ckpt")


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_pickle_runs(whole: Path, tmp_path: Path, kind: str) -> None:
    content = torch.load(whole, weights_only=True)
    content["hyper_parameters"]["latent_dim"] = KINDS[kind](tmp_path / "mark")
    write_checkpoint(content, tmp_path / "hostile.ckpt")
    with pytest.raises(InputError, match="weights_only=True"):
        restore(tmp_path / "hostile.ckpt")
    torch.save(content, tmp_path / "legacy.ckpt", _use_new_zipfile_serialization=False)
    for verify in (True, False):
        with pytest.raises(InputError):
            restore(tmp_path / "legacy.ckpt", verify=verify)
    assert not (tmp_path / "mark").exists()
