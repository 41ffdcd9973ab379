"""Archives that want out of their folder, lie about their size or are cut: refused, and nothing outside changes."""

import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from defectlab.data.download import archive_reader, zip_members
from defectlab.data.download.archive_reader import extract, read_archive
from defectlab_runtime.errors import DataError


def tar_of(members: Sequence[tarfile.TarInfo], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, errors="surrogateescape") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(bytes(info.size)) if info.size else None)
    return stream.getvalue()


def member(name: str, size: int = 3, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.name, info.size, info.type = name, size, kind  # a slash behind it stays
    return info


def zip_of(*infos: zipfile.ZipInfo, content: bytes = b"abc") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for info in infos:
            archive.writestr(info, content)
    return stream.getvalue()


def zip_member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    return info


def refused(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "archive"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"archive cannot be unpacked: .*Nothing was unpacked") as error:
        read_archive(path)
    return str(error.value)


NAMES = {
    "/bottle/train/x.png": "an absolute name",
    "//bottle/x.png": "an absolute name",
    "C:/bottle/x.png": "an absolute name",
    "obj/../ground_truth/x.png": "'..'",
    "../x.png": "'..'",
    "a/./x.png": "'..'",
    "a//x.png": "empty part",
    "..\\x.png": "a backslash",
    "a\nb.png": "control characters",
    "a\x1b[2Jb.png": "control characters",
    "x" * 256: "more than 255 bytes",
    "/".join(["d" * 200] * 6): "a path of more than 1,024 bytes",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_or_cannot_be_made_is_refused(name: str, tmp_path: Path):
    assert NAMES[name] in refused(tmp_path, tar_of([member("fine.png"), member(name)]))
    assert NAMES[name] in refused(tmp_path, tar_of([member(name)], tarfile.GNU_FORMAT))
    assert NAMES[name] in refused(tmp_path, zip_of(zip_member("fine.png"), zip_member(name)))


def test_undecodable_names_and_nul_are_refused(tmp_path: Path):
    assert "no UTF-8" in refused(tmp_path, tar_of([member("a\udcff.png")], tarfile.GNU_FORMAT))
    assert "control characters" in refused(tmp_path, zip_of(zip_member("a.png")).replace(b"a.png", b"a\0png"))
    content = zip_of(zip_member("\xe4.png")).replace("\xe4.png".encode(), b"\xff\xff.png")
    assert "UnicodeDecodeError" in refused(tmp_path, content)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("a/x.png", "a/x.png", "'a/x.png' twice"),
        ("a/x.png", "A/y.png", "one name on some file systems"),
        ("\xe4.png", "a\u0308.png", "one name on some file systems"),
        ("a", "a/x.png", "as a file and as a folder"),
        ("a/x.png", "a", "as a file and as a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_names_for_one_file_are_refused(first: str, second: str, words: str, tmp_path: Path):
    assert words in refused(tmp_path, tar_of([member(first), member(second)]))
    assert words in refused(tmp_path, zip_of(zip_member(first), zip_member(second)))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path):
    info = member("bottle", 0, kind)
    info.linkname = "../elsewhere"
    assert "'bottle' is a link, a device" in refused(tmp_path, tar_of([info, member("bottle/x.png")]))
    link = zip_member("bottle")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "'bottle' is a link" in refused(tmp_path, zip_of(link))


def test_encrypted_and_unknown_members_of_a_zip_are_refused(tmp_path: Path):
    content = bytearray(zip_of(zip_member("a.png")))
    directory = content.find(b"PK\x01\x02")
    content[directory + 8] |= 1
    assert "'a.png' is encrypted" in refused(tmp_path, bytes(content))
    content[directory + 8] &= ~1
    content[directory + 10] = 99
    assert "number 99" in refused(tmp_path, bytes(content))


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    huge = member("a.png", 0)
    huge.pax_headers = {"size": str(1 << 50)}
    assert "more than 1,024 GB" in refused(tmp_path, gzip.compress(tar_of([huge])))
    huge.pax_headers = {"size": "-512"}
    assert "claims -512 bytes" in refused(tmp_path, tar_of([huge]))
    header = member("a.png", 7 << 30, tarfile.XHDTYPE).tobuf()
    assert "a header claims 7,516,192,768 bytes" in refused(tmp_path, header)
    header = tarfile.TarInfo("a.png")
    header.size = 1 << 30
    assert "200 times its size" in refused(tmp_path, lzma.compress(header.tobuf()))
    bomb = zip_of(zip_member("a.png"), content=bytes(100))
    monkeypatch.setattr(archive_reader, "RATIO_FROM", 0)
    monkeypatch.setattr(archive_reader, "MAX_RATIO", 0.1)
    assert "times its size" in refused(tmp_path, bomb)
    monkeypatch.setattr(archive_reader, "MAX_MEMBERS", 2)
    monkeypatch.setattr(archive_reader, "MAX_RATIO", 10_000)
    assert "more than 2 files" in refused(tmp_path, tar_of([member(f"{number}.png") for number in range(3)]))
    monkeypatch.setattr(archive_reader, "MAX_MEMBERS", 1000)
    monkeypatch.setattr(archive_reader, "MEMBERS_FROM", 100)
    many = gzip.compress(tar_of([member(f"{number}.png", 0) for number in range(300)]))
    assert "less than 64 packed bytes each" in refused(tmp_path, many)
    monkeypatch.setattr(zip_members, "MAX_DIRECTORY_BYTES", 40)
    assert "its list of members" in refused(tmp_path, zip_of(zip_member("a.png")))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_tar_that_is_cut_between_two_files_is_not_read_as_a_smaller_one(pack, tmp_path: Path):
    whole = tar_of([member(f"{number}.png") for number in range(3)])
    assert "its end is missing" in refused(tmp_path, pack(whole[:2048]))
    assert "cannot be unpacked" in refused(tmp_path, pack(whole)[: len(pack(whole)) // 8])
    assert "something follows its end" in refused(tmp_path, pack(whole + whole))


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "archive").write_bytes(tar_of([member("a.png", 3000)]))
    archive = read_archive(tmp_path / "archive")
    usage = type("Usage", (), {"free": 2999})
    monkeypatch.setattr(archive_reader.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="--destination"):
        extract(archive, ["a.png"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_all_forms_give_the_same_files(tmp_path: Path):
    tar = tar_of([member("./", 0, tarfile.DIRTYPE), member("./a", 0, tarfile.DIRTYPE), member(f"./a/{'x' * 150}.png")])
    packed = (tar, gzip.compress(tar), lzma.compress(tar), zip_of(zip_member(f"a/{'x' * 150}.png"), content=bytes(3)))
    for number, content in enumerate(packed):
        (tmp_path / "archive").write_bytes(content)
        archive = read_archive(tmp_path / "archive")
        assert archive.sizes == {f"a/{'x' * 150}.png": 3}
        extract(archive, list(archive.sizes), tmp_path / str(number))
        assert (tmp_path / str(number) / f"a/{'x' * 150}.png").read_bytes() == bytes(3)
