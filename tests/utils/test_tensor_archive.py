import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from defectlab.utils.tensor_archive import DIGEST, DamagedArchiveError, add_digest, check_archive

CONTENT = {"weights": torch.arange(600.0), "bias": torch.ones(3), "threshold": 0.25, "size": [256, 256]}
STEP = 3  # every third byte is damaged


def _written(path: Path, *, digest: bool) -> Path:
    torch.save(CONTENT, path)
    if digest:
        add_digest(path)
    return path


def _same(path: Path) -> bool:
    found = torch.load(path, weights_only=True, mmap=True)
    plain = {key: value for key, value in found.items() if not torch.is_tensor(value)}
    tensors = [key for key, value in found.items() if torch.is_tensor(value)]
    return (
        tensors == ["weights", "bias"]
        and plain == {"threshold": 0.25, "size": [256, 256]}
        and all(torch.equal(found[key], CONTENT[key]) for key in tensors)
    )


@pytest.mark.parametrize("digest", [True, False])
def test_a_flipped_byte_is_found_wherever_it_changes_the_content(tmp_path: Path, digest: bool) -> None:
    whole = _written(tmp_path / "whole.ckpt", digest=digest).read_bytes()
    found = harmless = 0
    damaged = tmp_path / "damaged.ckpt"
    for place in range(0, len(whole), STEP):
        damaged.unlink(missing_ok=True)
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            check_archive(damaged)
        except DamagedArchiveError:
            found += 1
            continue
        try:
            assert _same(damaged), place
        except (RuntimeError, ValueError, pickle.UnpicklingError):  # torch refuses it
            continue
        harmless += 1  # padding, dates
    assert found > 2400 / STEP  # 600 float32 numbers
    assert harmless > 0


@pytest.mark.parametrize("mmap", [True, False])
def test_torch_reads_a_file_with_a_digest_as_one_without(tmp_path: Path, mmap: bool) -> None:
    path = _written(tmp_path / "a.ckpt", digest=True)
    assert any(name.endswith(DIGEST) for name in zipfile.ZipFile(path).namelist())
    assert torch.equal(torch.load(path, weights_only=True, mmap=mmap)["weights"], CONTENT["weights"])


def test_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    first = _written(tmp_path / "a.ckpt", digest=True).read_bytes()
    assert _written(tmp_path / "a.ckpt", digest=True).read_bytes() == first


def test_a_file_that_torch_wrote_without_checksums_is_taken(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        check_archive(_written(tmp_path / "a.pth", digest=False))
    finally:
        torch.serialization.set_crc32_options(True)


def test_a_compressed_file_which_torch_never_writes_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(DamagedArchiveError, match="not as torch writes it"):
        check_archive(tmp_path / "bomb.pth")


def test_a_file_that_is_changed_after_a_check_is_checked_again(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.ckpt", digest=True)
    check_archive(path)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1000])
    with pytest.raises(DamagedArchiveError, match="Copy it again"):
        check_archive(path)
