"""Public datasets from a server on loopback: tiny archives of the right form, cut, damaged, unknown, and there."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.server import Server, serving
from PIL import Image

from defectlab.cli.main import main
from defectlab.data.download import public_datasets
from defectlab.data.download.archives import move_folders
from defectlab.data.download.download import download
from defectlab.data.manifest.manifest import build_manifest
from defectlab.data.mask_files import read_mask
from defectlab_runtime.errors import DataError, OptionError


def picture(seed: int, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    if mode == "L":  # VisA's masks number the kinds of defect
        pixels = np.zeros((6, 8), dtype=np.uint8)
        pixels[1:3, 2:4] = 1 + seed % 3
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def archive(files: dict[str, bytes], mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def mvtec_archive(top: str = "") -> bytes:
    files = {f"{top}license.txt": b"text"}
    for start, category in ((0, "bottle"), (100, "grid")):
        for number in range(4):
            files[f"{top}{category}/train/good/{number:03d}.png"] = picture(start + number)
            files[f"{top}{category}/test/good/{number:03d}.png"] = picture(start + 10 + number)
            files[f"{top}{category}/test/broken/{number:03d}.png"] = picture(start + 20 + number)
            files[f"{top}{category}/ground_truth/broken/{number:03d}_mask.png"] = picture(number, "L")
    return archive(files, "w:xz")


def visa_archive(*, columns: str = "object,split,label,image,mask", more: bytes = b"") -> bytes:
    files, lines = {}, [columns]
    for start, category in ((0, "candle"), (100, "pcb1")):
        for number in range(8):
            image = f"{category}/Data/Images/Normal/{number:04d}.JPG"
            files[image] = picture(start + number)
            lines.append(f"{category},{'train' if number < 5 else 'test'},normal,{image},")
        for number in range(3):
            image = f"{category}/Data/Images/Anomaly/{number:03d}.JPG"
            mask = f"{category}/Data/Masks/Anomaly/{number:03d}.png"
            files[image], files[mask] = picture(start + 50 + number), picture(number, "L")
            lines.append(f"{category},test,anomaly,{image},{mask}")
    files["split_csv/1cls.csv"] = "\n".join(lines).encode() + b"\n" + more
    return archive(files, "w")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def table(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package's table that names the local server."""

    def write(content: bytes, layout: str = "mvtec", sha256: str | None = "known") -> None:
        server.content = content
        known = hashlib.sha256(content).hexdigest() if sha256 == "known" else sha256
        facts = {
            "title": layout,
            "file": f"{layout}.tar",
            "url": f"{server.url}/archive",
            "sha256": known,
            "layout": layout,
        }
        entry = {"name": layout, "sha256_from": "a test", **facts}
        (tmp_path / "table.json").write_text(json.dumps({"datasets": [entry]}))
        monkeypatch.setattr(public_datasets, "TABLE", tmp_path / "table.json")

    return write


def test_the_packages_table_is_sound():
    for name in ("mvtec", "visa"):
        found = public_datasets.find_dataset(name, Path("none"))
        assert len(found.sha256) == 64
        assert found.url.startswith("https://")
        assert found.url.endswith(found.file)
        assert "anomalib 2.7.0" in found.sha256_from
    with pytest.raises(DataError, match="Did you mean 'mvtec'"):
        public_datasets.find_dataset("mvtek", Path("none"))


@pytest.mark.row("3.11")
@pytest.mark.parametrize("top", ["", "mvtec_anomaly_detection/", "./"])
def test_mvtec_ad_in_its_layout(table, top: str, tmp_path: Path):
    table(mvtec_archive(top))
    folders = download("mvtec", tmp_path / "data")
    assert [folder.name for folder in folders] == ["bottle", "grid"]
    manifest = build_manifest(tmp_path / "data/bottle")
    assert (manifest.layout, len(manifest.entries)) == ("mvtec", 12)
    assert manifest.has_masks
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["bottle", "grid", "mvtec.tar"]


def test_visa_sorted_by_its_split(table, tmp_path: Path):
    table(visa_archive(), "visa")
    (folder,) = download("visa", tmp_path / "data", categories=["pcb1"])
    manifest = build_manifest(folder)
    assert manifest.layout == "good_bad"
    assert manifest.protocol.counts["train"] == {"good": 5, "anomalous": 0}
    assert len([entry for entry in manifest.entries if entry.label]) == 3
    assert len([entry for entry in manifest.entries if entry.split != "train" and not entry.label]) == 3
    mask = Image.open(folder / "ground_truth/bad/001.png")
    assert set(np.unique(np.asarray(mask))) == {0, 255}
    assert read_mask(folder / "ground_truth/bad/001.png").sum() == 4
    assert (folder / "test/bad/001.JPG").read_bytes() == picture(151)


@pytest.mark.row("3.11")
def test_a_cut_download_goes_on_and_nothing_is_overwritten(table, server: Server, tmp_path: Path):
    table(mvtec_archive())
    server.cut, server.cuts = len(server.content) // 5, 3
    with pytest.raises(DataError, match="Run the same command again to continue"):
        download("mvtec", tmp_path / "data", categories=["bottle"])
    assert not (tmp_path / "data/bottle").exists()
    download("mvtec", tmp_path / "data", categories=["bottle"])
    assert [wanted is None for wanted in server.asked] == [True, False, False, False]
    before = len(server.asked)
    with pytest.raises(DataError, match="bottle already, and nothing is overwritten"):
        download("mvtec", tmp_path / "data", categories=["bottle", "grid"])
    with pytest.raises(DataError, match="bottle already"):
        download("mvtec", tmp_path / "data")
    assert not (tmp_path / "data/grid").exists()
    download("mvtec", tmp_path / "data", categories=["grid"])  # from the archive that is there
    assert len(server.asked) == before
    assert not list((tmp_path / "data").glob(".unpacking*"))


def test_another_content_is_refused_and_an_unknown_one_remembered(table, server: Server, tmp_path: Path, caplog):
    table(mvtec_archive(), sha256="0" * 64)
    with pytest.raises(DataError, match=f"not {'0' * 64}") as refused:
        download("mvtec", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    found = hashlib.sha256(server.content).hexdigest()
    assert f"--sha256 {found}" in str(refused.value)
    table(mvtec_archive(), sha256=None)
    download("mvtec", tmp_path / "data", categories=["grid"])
    assert f"trusted on first download; sha256 {found}" in caplog.text
    assert public_datasets.find_dataset("mvtec", tmp_path / "data").sha256 == found
    (tmp_path / "data/mvtec.tar").write_bytes(mvtec_archive("x/"))
    with pytest.raises(DataError, match="the first download"):
        download("mvtec", tmp_path / "data", categories=["bottle"])


def test_what_is_no_such_archive_is_refused(table, tmp_path: Path):
    for content, layout, words in (
        (b"no archive", "mvtec", "cannot be unpacked"),
        (archive({"readme.txt": b"x"}, "w"), "mvtec", "holds no category"),
        (mvtec_archive(), "visa", "no archive of VisA"),
        (visa_archive(columns="a,b,c,d,e"), "visa", "has columns"),
    ):
        table(content, layout)
        with pytest.raises(DataError, match=words):
            download(layout, tmp_path / words[:4])
        assert not any(path.is_dir() for path in (tmp_path / words[:4]).iterdir())
    table(mvtec_archive())
    with pytest.raises(DataError, match="Did you mean 'bottle'"):
        download("mvtec", tmp_path / "more", categories=["botle"])
    with pytest.raises(OptionError, match="not both"):
        download("mvtec", tmp_path, url="http://x", file=tmp_path)
    with pytest.raises(DataError, match="Only http and https"):
        download("mvtec", tmp_path, url="ftp://x")


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "hostile",
    ["OUTSIDE/train/x.png", "obj/../train/x.png", "bottle/../ground_truth/broken/x.png", "Bottle/train/good/000.png"],
)
def test_a_hostile_archive_moves_and_overwrites_nothing(table, hostile: str, tmp_path: Path):
    outside, data = tmp_path / "outside", tmp_path / "data"
    for folder in (outside / "train", data / "obj", data / "ground_truth/broken"):
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(b"of the user")
    files = {"bottle/train/good/000.png": picture(1), hostile.replace("OUTSIDE", str(outside)): b"hostile"}
    table(archive(files, "w"))
    (tmp_path / "here.tar").write_bytes(archive(files, "w"))
    before = content_of(tmp_path)
    with pytest.raises(DataError, match="Nothing was unpacked"):
        download("mvtec", data, file=tmp_path / "here.tar")
    assert content_of(tmp_path) == before
    assert sorted(path.name for path in data.iterdir()) == ["ground_truth", "obj"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("..,train,normal,candle/Data/Images/Normal/0000.JPG,", "no name for a folder of data"),
        (",train,normal,candle/Data/Images/Normal/0000.JPG,", "no name for a folder of data"),
        (".x,train,normal,candle/Data/Images/Normal/0000.JPG,", "no name for a folder of data"),
        ("Candle,train,normal,candle/Data/Images/Normal/0000.JPG,", "one name on some systems"),
        ("candle,train,normal,/etc/hostname,", "line 24 .*absolute"),
        ("candle,test,anomaly,candle/Data/Images/Normal/0000.JPG,../x.png", "line 24 .*'..'"),
        ("candle,train", "line 24"),
        ("candle,train,normal,,", "line 24"),
        ("candle,else,normal,a.png,", "line 24 .*train or test"),
        (b"candle,train,normal,\xff.png,", "no text in UTF-8"),
        ("x" * 200_000, "line 24 .*field larger"),
        ("candle,train,normal,candle/Data/Images/Normal/0000.JPG,", "names it twice"),
    ],
)
def test_a_hostile_row_of_visas_split_is_refused(table, row: str | bytes, words: str, tmp_path: Path):
    content = visa_archive(more=row if isinstance(row, bytes) else row.encode())
    table(content, "visa")
    (tmp_path / "here.tar").write_bytes(content)
    with pytest.raises(DataError, match=words):
        download("visa", tmp_path / "data", file=tmp_path / "here.tar")
    assert not list((tmp_path / "data").iterdir())


def test_two_folders_of_one_name_are_not_chosen_between(table, tmp_path: Path):
    files = {"a/bottle/train/good/0.png": b"1", "b/bottle/train/good/0.png": b"2"}
    table(archive(files, "w"))
    with pytest.raises(DataError, match="two folders 'bottle'"):
        download("mvtec", tmp_path / "data")


def test_if_one_category_cannot_be_moved_none_is(tmp_path: Path):
    folders = [tmp_path / "scratch" / name for name in ("bottle", "grid")]
    for folder in (*folders, tmp_path / "data/grid/train"):
        folder.mkdir(parents=True)
    with pytest.raises(OSError, match="not empty"):
        move_folders(folders, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["grid"]
    assert all(folder.is_dir() for folder in folders)


def test_a_table_that_names_a_file_elsewhere_is_refused(tmp_path: Path):
    entry = {"name": "own", "title": "own", "url": None, "sha256": None, "sha256_from": None, "layout": "mvtec"}
    for file in ("../x.tar", "/x.tar", "downloads.json", "", 5, None):
        (tmp_path / "downloads.json").write_text(json.dumps({"datasets": [{**entry, "file": file}]}))
        with pytest.raises(DataError, match=r"file is .*Mend it"):
            public_datasets.find_dataset("own", tmp_path)
    for text in ("[" * 10_000, '{"datasets": [[]]}', '{"datasets": 5}', "[]"):
        (tmp_path / "downloads.json").write_text(text)
        with pytest.raises(DataError, match="Mend it"):
            public_datasets.find_dataset("own", tmp_path)


def test_a_destination_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "data").write_bytes(b"")
    for destination in (tmp_path / "data", tmp_path / "data/below"):
        with pytest.raises(DataError, match="--destination"):
            download("mvtec", destination)


def test_from_a_terminal_with_a_local_archive(table, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    table(mvtec_archive())
    (tmp_path / "here.tar.xz").write_bytes(mvtec_archive())
    arguments = ["data", "download", "mvtec", "--file", "here.tar.xz", "--category", "grid"]
    assert main(arguments) == 0
    assert "data/mvtec/grid" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
