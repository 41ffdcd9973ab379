"""Archives of datasets with hostile names and damaged bytes, through `defectlab data download --file`."""

import gzip
import hashlib
import io
import lzma
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from defectlab.data.download.download import download
from tests.fuzz.mutations import damage
from tests.fuzz.target import Target

FORMS = ("tar", "tar.gz", "tar.xz", "zip")
HOSTILE = b"hostile"
PARTS = (
    *("..", ".", "", "obj", "bottle", "kept", "train", "good", "test", "ground_truth", "raw", "mvtec", "a" * 255),
    *("a" * 256, "a\\b", "..\\..", "C:", "a\x00b", "a\nb", "\x1b[2J", "Bottle", "BOTTLE", "A\u0301", "\u00c1", "con"),
    *("\udcff", "\udce4.png", "\u202egnp", "000.png", "000.PNG", "broken", ".unpacking-x", "downloads.json", " ", "~"),
)
TYPES = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S", b"Z")
Entry = tuple[str, bytes, bytes]  # name, content, type of a tar member
Fingerprint = dict[Path, tuple[int, bytes]]  # path -> kind, content


def prepare(good: Path) -> None:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8), dtype=np.uint8)
        Image.fromarray(np.where(pixels > 99, pixels, 0).astype(np.uint8)).save(good / f"{number}.png")


def attack(random: random.Random, good: Path, work: Path) -> None:
    data = work / "data"
    for folder in (work / "sentinel", data / "kept", data / "ground_truth"):
        (folder / "train/good").mkdir(parents=True)
        (folder / "train/good/000.png").write_bytes(b"of the user")
    layout = random.choice(("mvtec", "mvtec", "visa"))
    pictures = [path.read_bytes() for path in sorted(good.iterdir())]
    honest = _mvtec(pictures) if layout == "mvtec" else _visa(random, pictures)
    entries = list(honest)
    damaged = random.random() < 0.4
    if random.random() < 0.75:
        for _ in range(random.choice((1, 1, 2, 5))):
            entries.insert(random.randrange(len(entries) + 1), _hostile(random, honest, work))
    form = random.choice(FORMS)
    content = _packed(random, entries, form)
    if damaged:
        content = damage(random, content)
    archive = work / f"archive.{form}"
    archive.write_bytes(content)
    before = _fingerprint(work)
    folders: list[Path] = []
    try:
        chosen = random.choice(((), (), (), (), ("bottle",), ("kept",)))
        folders = download(layout, data, categories=chosen, file=archive, sha256=hashlib.sha256(content).hexdigest())
    finally:
        _check_only_made(folders, before, work)
    assert all(folder.parent == data for folder in folders)
    if not damaged or form != "tar":  # which alone has no checksum of its content
        _check_content(folders, honest, layout)


def _check_only_made(folders: list[Path], before: Fingerprint, work: Path) -> None:
    """Check that nothing but the folders was made, nothing that was there has changed, and no link is in them."""
    after = _fingerprint(work)
    lost = {path for path, facts in before.items() if after.get(path) != facts}
    assert not lost, f"changed: {sorted(lost)}"
    made = after.keys() - before.keys()
    assert made >= set(folders)
    assert all(any(path.is_relative_to(folder) for folder in folders) for path in made), f"outside: {made}"
    assert not any(path.is_symlink() for path in made)


def _check_content(folders: list[Path], honest: list[Entry], layout: str) -> None:
    """Check that what the honest archive has is there as it was, none of it left out in silence."""
    wanted = {name: content for name, content, _ in honest}
    made = {f"{folder.name}/{path.relative_to(folder).as_posix()}": path for folder in folders
            for path in folder.rglob("*")}  # fmt: skip
    assert all(made[name].read_bytes() == wanted[name] for name in made.keys() & wanted.keys()), "other content"
    tops = tuple(f"{folder.name}/" for folder in folders)
    lacking = [name for name in wanted if name.startswith(tops) and name not in made]
    assert layout == "visa" or not lacking, f"left out in silence: {lacking}"


def _mvtec(pictures: list[bytes]) -> list[Entry]:
    names = ("train/good/000.png", "test/good/000.png", "test/broken/000.png", "ground_truth/broken/000_mask.png")
    files = [(f"{category}/{name}", pictures[0]) for category in ("bottle", "grid") for name in names]
    return [(name, content, tarfile.REGTYPE) for name, content in [("license.txt", b"text"), *files]]


def _visa(random: random.Random, pictures: list[bytes]) -> list[Entry]:
    """Return VisA's files; in half of the archives a cell of the table that sorts them is hostile."""
    rows = [["candle", "train", "normal", "candle/Data/Images/Normal/0.png", ""]]
    rows += [["candle", "test", "normal", "candle/Data/Images/Normal/1.png", ""]]
    rows += [["candle", "test", "anomaly", "candle/Data/Images/Anomaly/0.png", "candle/Data/Masks/Anomaly/0.png"]]
    files = {name: pictures[number % 3] for number, row in enumerate(rows) for name in row[3:] if name}
    if random.random() < 0.5:
        row = random.choice(rows)
        row[random.randrange(5)] = random.choice((_name(random), *PARTS, "x" * 200_000, '"'))
    if random.random() < 0.1:
        rows[0] = rows[0][: random.randrange(5)]
    table = "\n".join(",".join(row) for row in [["object", "split", "label", "image", "mask"], *rows])
    files["split_csv/1cls.csv"] = table.encode("utf-8", "surrogateescape")
    return [(name, content, tarfile.REGTYPE) for name, content in files.items()]


def _hostile(random: random.Random, honest: list[Entry], work: Path) -> Entry:
    known = random.choice(honest)[0]
    name = random.choice(
        (
            _name(random), _name(random), f"{work}/sentinel/train/good/000.png", f"{work}/data/kept/train/good/000.png",
            f"{work}/data/new/train/good/000.png", "../sentinel/train/good/000.png", f"obj/../{known}", f"./{known}",
            f"x/../../data/{known}", known, known.upper(), f"{known}/inside", known.rpartition("/")[0] or "bottle",
            f"obj/../train/{PARTS[random.randrange(len(PARTS))]}", f"/{known}", f"//{known}",
            f"ground_truth/train/good/{random.choice(PARTS)}", f"kept/train/good/{random.choice(PARTS)}",
            "/".join(["deep"] * 600) + "/train/x.png", "/".join(["d" * 200] * 30),
        )
    )  # fmt: skip
    return name, HOSTILE, random.choice((tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, *TYPES))


def _name(random: random.Random) -> str:
    return "/".join(random.choice(PARTS) for _ in range(random.choice((1, 2, 3, 4, 5))))


def _packed(random: random.Random, entries: list[Entry], form: str) -> bytes:
    stream = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content, kind in entries:
                info = zipfile.ZipInfo("x")
                info.filename = info.orig_filename = name.encode("utf-8", "replace").decode()
                info.compress_type = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
                mode = stat.S_IFLNK if kind == tarfile.SYMTYPE else stat.S_IFIFO if kind == tarfile.FIFOTYPE else 0
                info.external_attr = (mode | 0o644) << 16
                archive.writestr(info, content)
        packed = bytearray(stream.getvalue())
        if random.random() < 0.1:  # encrypted, or of a method that nobody knows, in the central directory
            place = packed.find(b"PK\x01\x02")
            packed[place + random.choice((8, 10))] |= random.choice((1, 99))
        return bytes(packed)
    style = random.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(fileobj=stream, mode="w", format=style, errors="surrogateescape") as tar:
        for name, content, kind in entries:
            info = tarfile.TarInfo("x")
            info.name, info.type, info.size = name, kind, len(content)
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.size, info.linkname = 0, random.choice(("../sentinel", "/", "bottle", f"{name}x", ".."))
            if random.random() < 0.02:
                info.pax_headers = {random.choice(("size", "GNU.sparse.size", "x")): random.choice(("-512", "x"))}
            tar.addfile(info, io.BytesIO(content) if info.size else None)
    plain = stream.getvalue()
    if random.random() < 0.1:  # a size that lies
        plain = _lying(random, plain)
    if form == "tar.gz":
        return gzip.compress(plain, 1, mtime=0)
    return lzma.compress(plain, preset=0) if form == "tar.xz" else plain


def _lying(random: random.Random, plain: bytes) -> bytes:
    """Return the tar with another size in one header, and that header's checksum made right."""
    changed = bytearray(plain)
    start = random.randrange(len(plain) // 512) * 512
    header = changed[start : start + 512]
    header[124:136] = random.choice(
        (b"77777777777\0", b"\xff" * 11 + b"\x00", b"\x80" + b"\xff" * 11, b"00000000000\0")
    )
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    changed[start : start + 512] = header
    return bytes(changed)


def _fingerprint(folder: Path) -> Fingerprint:
    """Return kind and content of everything below a folder."""
    return {
        path: (
            stat.S_IFMT(path.lstat().st_mode),
            path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
        )
        for path in folder.rglob("*")
    }


TARGET = Target("archives", prepare, attack)
