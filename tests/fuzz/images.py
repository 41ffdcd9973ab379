"""Damaged, lying and foreign image files, through every reader: of images, of masks, of bytes and of `data check`."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from defectlab.data.image_facts import ImageFacts, probe
from defectlab.data.mask_files import read_mask
from defectlab_runtime.errors import InputError
from defectlab_runtime.images import decode_image, read_image
from tests.fuzz.mutations import damage
from tests.fuzz.target import Target

Reader = Callable[[], np.ndarray]

# Kinds of pixels, and what each is saved as.
FORMATS = {
    "RGB": ("png", "jpg", "bmp", "tif", "webp", "ppm"),
    "L": ("png", "jpg", "bmp", "tif", "pgm"),
    "1": ("png", "bmp", "tif", "pbm"),
    "P": ("png", "bmp", "tif"),
    "RGBA": ("png", "tif", "webp"),
    "LA": ("png", "tif"),
    "I;16": ("png", "tif", "pgm"),
    "F": ("tif",),
    "CMYK": ("jpg", "tif"),
}
TIFF_COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
FOREIGN = ("EPS", "PDF", "GIF", "TGA", "ICO", "PCX", "SGI", "JPEG2000", "DDS", "IM", "MSP", "AVIF", "ICNS", "SPIDER")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm", ".pnm", ".pxm")
NUMBERS = (0, 1, 255, 4095, 16383, 20_000, 32_767, 65_535, 0x7FFFFFFF, 0xFFFFFFFF)


def prepare(good: Path) -> None:
    generator = np.random.default_rng(0)
    colours = Image.fromarray(generator.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    grey = Image.fromarray(generator.integers(0, 65536, (24, 20), dtype=np.uint16))
    unit = Image.fromarray(generator.random((24, 20), dtype=np.float32))
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode, suffixes in FORMATS.items():
        image = {"I;16": grey, "F": unit}[mode] if mode in ("I;16", "F") else colours.convert(mode)
        for suffix in suffixes:
            image.save(good / f"{mode.replace(';', '')}.{suffix}")
    for compression in TIFF_COMPRESSIONS:
        colours.save(good / f"{compression}.tif", compression=compression)
    colours.convert("1").save(good / "group4.tif", compression="group4")
    for suffix in ("png", "webp", "tif"):
        colours.save(good / f"pages.{suffix}", save_all=True, append_images=[colours.rotate(90), colours.rotate(180)])
    for suffix in ("png", "jpg", "webp", "tif"):
        colours.save(good / f"exif.{suffix}", exif=exif)
    colours.save(good / "progressive.jpg", progressive=True)
    colours.save(good / "lossless.webp", lossless=True)
    (good / "foreign").mkdir()
    for name in FOREIGN:
        colours.convert({"MSP": "1", "SPIDER": "F", "ICO": "RGBA"}.get(name, "RGB")).save(good / "foreign" / name, name)


def attack(random: random.Random, good: Path, work: Path) -> None:
    kind = random.choice((_damaged, _damaged, _damaged, _damaged_inside, _lying, _lying, _foreign, _bomb))
    name, content = kind(random, good)
    path = work / name
    path.write_bytes(content)
    read_and_compare(path, content)
    assert kind is not _foreign, "a file of a format that is not on the list was read"


def read_and_compare(path: Path, content: bytes) -> None:
    """Read a file by every reader; what `data check` says of it must be what reading finds."""
    image = _attempt(lambda: read_image(path))
    _agree(path, probe(path), image, "image")
    _agree(path, probe(path, as_mask=True), _attempt(lambda: read_mask(path)), "mask")
    given = _attempt(lambda: decode_image(content))
    assert isinstance(given, InputError) == isinstance(image, InputError), f"as bytes: {given!r}, as a file: {image!r}"
    if isinstance(image, InputError):
        raise image


def _attempt(reader: Reader) -> np.ndarray | InputError:
    try:
        return reader()
    except InputError as error:
        error.__cause__ = error.__context__ = None  # which hold what was decoded so far, up to gigabytes
        return error.with_traceback(None)


def _agree(path: Path, facts: ImageFacts, read: np.ndarray | InputError, what: str) -> None:
    if isinstance(read, InputError):
        assert facts.problem, f"{path.name} is readable as {what} to data check, and not to training: {read}"
    else:
        assert not facts.problem, f"{path.name} is readable as {what} to training, and not to data check: {facts}"
        assert (facts.height, facts.width) == read.shape[:2], f"{facts} is read as {read.shape}"


def _file(random: random.Random, good: Path, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    return random.choice(sorted(path for path in good.iterdir() if path.suffix in suffixes))


def _damaged(random: random.Random, good: Path) -> tuple[str, bytes]:
    source = _file(random, good)
    return source.name, damage(random, source.read_bytes())


def _damaged_inside(random: random.Random, good: Path) -> tuple[str, bytes]:
    """Damage a chunk of a PNG and mend its checksum, so that what lies behind the checksum reads it."""
    chunks = png_chunks(_file(random, good, (".png",)).read_bytes())
    index = random.randrange(len(chunks))
    kind, body = chunks[index]
    if kind == b"IDAT" and random.random() < 0.5:
        body = zlib.compress(damage(random, zlib.decompress(body)))
    else:
        body = damage(random, body)
    chunks[index] = kind, body
    return "chunk.png", png_of(chunks)


def _lying(random: random.Random, good: Path) -> tuple[str, bytes]:
    """Write another size, or another number, where the header of the format has it."""
    source = _file(random, good)
    content, number = bytearray(source.read_bytes()), random.choice(NUMBERS)
    if source.suffix == ".png":
        chunks = png_chunks(bytes(content))
        head = bytearray(chunks[0][1])
        struct.pack_into(">I", head, random.choice((0, 4)), number)
        if random.random() < 0.5:
            struct.pack_into(">II", head, 0, number, random.choice(NUMBERS))
        chunks[0] = b"IHDR", bytes(head)
        return source.name, png_of(chunks)
    if source.suffix == ".jpg":
        for marker in (b"\xff\xc0", b"\xff\xc2"):
            if (at := content.find(marker)) >= 0:
                struct.pack_into(">HH", content, at + 5, number & 0xFFFF, random.choice(NUMBERS) & 0xFFFF)
    elif source.suffix == ".bmp":
        struct.pack_into("<II", content, 18, number, random.choice(NUMBERS))
    elif source.suffix == ".webp":
        struct.pack_into("<I", content, random.choice((20, 24, 26, 27, 30)), number)
    elif source.suffix == ".tif":
        start, step = struct.unpack_from("<I", content, 4)[0], 12
        entries = struct.unpack_from("<H", content, start)[0]
        for _ in range(random.choice((1, 1, 2))):  # tag, type, count, value
            entry = start + 2 + step * random.randrange(entries)
            struct.pack_into("<I", content, entry + random.choice((4, 8)), random.choice(NUMBERS))
    else:
        head, _, rest = bytes(content).partition(b"\n")
        _, _, rest = rest.partition(b"\n")
        return source.name, b"%s\n%d %d\n" % (head, number, random.choice(NUMBERS)) + rest
    return source.name, bytes(content)


def _foreign(random: random.Random, good: Path) -> tuple[str, bytes]:
    """Give a file of another format, whole or damaged, the name of one that is read."""
    content = (good / "foreign" / random.choice(FOREIGN)).read_bytes()
    return f"foreign{random.choice(SUFFIXES)}", damage(random, content) if random.random() < 0.3 else content


def _bomb(random: random.Random, _good: Path) -> tuple[str, bytes]:
    make = random.choice((_png_of_zeros, _text, _profile, _many_pages, _page_loop, _tag_counts, _nested_exif))
    return make(random)


def _png_of_zeros(random: random.Random) -> tuple[str, bytes]:
    """A whole PNG whose size is true, and whose pixels are all zero."""
    side = random.choice((1_000, 2_000, 3_000))
    depth, colour, bits = random.choice(((1, 0, 1), (8, 0, 8), (8, 2, 24), (16, 0, 16)))
    row = b"\0" * (1 + (side * bits + 7) // 8)
    head = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    return "zeros.png", png_of([(b"IHDR", head), (b"IDAT", zlib.compress(row * side, 1)), (b"IEND", b"")])


def _small_png(*more: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)
    return png_of([(b"IHDR", head), *more, (b"IDAT", zlib.compress(bytes(6))), (b"IEND", b"")])


def _text(random: random.Random) -> tuple[str, bytes]:
    size = random.choice((1 << 10, 1 << 20, 1 << 24))
    body = zlib.compress(b"a" * size, 1)
    kind, head = random.choice(((b"zTXt", b"k\0\0"), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"), (b"tEXt", b"k\0")))
    return "text.png", _small_png(*[(kind, head + (body if kind != b"tEXt" else b"a" * 1000))] * random.choice((1, 90)))


def _profile(random: random.Random) -> tuple[str, bytes]:
    body = zlib.compress(b"a" * random.choice((1 << 10, 1 << 20, 1 << 24)), 1)
    return "profile.png", _small_png((b"iCCP", b"k\0\0" + body))


def tiff_of_pages(pages: int, back_to: int | None = None) -> bytes:
    """Return a TIFF of one grey pixel a page; `back_to` makes the last page's successor an earlier page."""
    tags = ((256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1))
    length = 2 + 12 * len(tags) + 4
    content = bytearray(b"II*\0" + struct.pack("<I", 10) + b"\x80\0")
    for page in range(pages):
        following = 10 + length * (page + 1) if page + 1 < pages else 0
        if page + 1 == pages and back_to is not None:
            following = 10 + length * back_to
        content += struct.pack("<H", len(tags))
        content += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        content += struct.pack("<I", following)
    return bytes(content)


def _many_pages(random: random.Random) -> tuple[str, bytes]:
    return "many.tif", tiff_of_pages(random.choice((2, 50, 2_000)))


def _page_loop(random: random.Random) -> tuple[str, bytes]:
    pages = random.randrange(1, 5)
    return "loop.tif", tiff_of_pages(pages, random.randrange(pages))


def _tag_counts(random: random.Random) -> tuple[str, bytes]:
    content = bytearray(tiff_of_pages(1))
    entry = 12 + 12 * random.randrange(9)
    struct.pack_into("<HI", content, entry + 2, random.randrange(14), random.choice(NUMBERS))
    return "tags.tif", bytes(content)


def _nested_exif(random: random.Random) -> tuple[str, bytes]:
    """EXIF whose directory of its own points back to itself, with many entries."""
    entries = random.choice((1, 100, 5_000))
    directory = struct.pack("<H", entries) + struct.pack("<HHII", 0x8769, 4, 1, 8) * entries + struct.pack("<I", 8)
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0" + directory)
    return "exif.png", stream.getvalue()


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Return the chunks of a whole PNG: kind and body."""
    chunks, at = [], 8
    while at < len(content):
        length = struct.unpack_from(">I", content, at)[0]
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Return a PNG of chunks with the right checksums."""
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


TARGET = Target("images", prepare, attack)
