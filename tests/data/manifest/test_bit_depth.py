"""Files of 16 bits that hold fewer: warned of, and read by `bit_depth` in training, prediction and pictures."""

import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from defectlab import Detector, Engine
from defectlab.data.image_facts import probe
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.inference.figures import prediction_images
from defectlab.inference.prediction_files import predict_to_folder
from defectlab.models.checkpoint import read_checkpoint_record
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab_runtime.errors import DataError, InputError, OptionError
from defectlab_runtime.images import read_image
from tests.helpers.datasets import make_parts
from tests.helpers.models import data, small


def deep_png(path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) uint16 as a PNG of 16 bits a colour, which Pillow cannot write."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def as_grey(root, dtype: type, factor: int, suffix: str = ".png"):
    """Rewrite the images of a dataset as grey files of 16 or 32 bits, their 8-bit values times `factor`."""
    for path in sorted(root.glob("t*/*/*.png")):
        values = np.asarray(Image.open(path).convert("L"))
        path.unlink()
        Image.fromarray((values.astype(np.uint32) * factor).astype(dtype)).save(path.with_suffix(suffix))
    return root


@pytest.fixture
def parts(tmp_path):
    """Images of a 12-bit camera in 16-bit PNG files."""
    return as_grey(make_parts(tmp_path / "parts", train=6, good=4, bad=4, size=48), np.uint16, 16)


@pytest.mark.parametrize(("dtype", "factor", "bits"), [(np.uint16, 16, 12), (np.int32, 1, 8), (np.uint16, 4, 10)])
def test_images_that_use_little_of_their_range(tmp_path, dtype, factor, bits):
    suffix = ".tif" if dtype is np.int32 else ".png"
    root = as_grey(make_parts(tmp_path, train=4, good=2, bad=2, size=40), dtype, factor, suffix)
    largest = max(read_image(path, bits).max() for path in root.glob("t*/*/*"))
    text = check(root, near=False).text
    title, top = "Warning: The range of 16-bit images (1)", largest * (2**bits - 1)
    assert f"{title}:\n  8 images of 16 bits have no value above {top:.0f}, so" in text
    assert f"say bit_depth: {bits}" in text
    text = check(root, near=False, bit_depth=bits).text
    assert "The range of" not in text
    assert f"Note: 8 images of 16 bits are divided by {2**bits - 1} (bit_depth)." in text
    with pytest.raises(DataError, match=r"Images with values above 63, the largest of bit_depth 6 \(8\)"):
        build_manifest(root, bit_depth=6)


def test_a_full_range_and_files_of_8_bits_are_not_warned_of(tmp_path):
    root = make_parts(tmp_path, train=4, good=2, bad=2, size=40)
    assert build_manifest(root).warnings == ()
    assert "bit_depth 12 changes nothing" in check(root, near=False, bit_depth=12).text
    assert build_manifest(as_grey(root, np.uint16, 257)).warnings == ()


def test_colours_of_16_bits(tmp_path):
    root = make_parts(tmp_path, train=4, good=2, bad=2, size=40)
    path = root / "train/good/000.png"
    deep_png(path, np.full((40, 40, 3), 4000, dtype=np.uint16))
    facts = probe(path)
    assert (facts.deep_colour, facts.largest) == (True, 15 * 256 + 255)
    assert "save such images as 8-bit colour or 16-bit grey" in build_manifest(root).warnings[0]
    with pytest.raises(DataError, match="of which the upper 8 alone can be read"):
        build_manifest(root, bit_depth=12)
    with pytest.raises(DataError, match="16 bits a colour"):
        read_image(path, 12)


def test_values_beyond_the_depth(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 2048, 4095]], dtype=np.uint16)).save(path)
    np.testing.assert_allclose(read_image(path, 12)[0, :, 0], [0, 2048 / 4095, 1], rtol=1e-6)
    with pytest.raises(DataError, match=r"a\.png: It has values up to 4095, and bit_depth 10 ends at 1023"):
        read_image(path, 10)
    with pytest.raises(OptionError, match="bit_depth must be a whole number of at least 1 and at most 16"):
        build_manifest(tmp_path, bit_depth=17)


def test_preprocessing_with_and_without_a_depth():
    plain, deep = Preprocessing(), Preprocessing(bit_depth=12)
    assert "bit_depth" not in plain.to_dict()
    assert plain.hash != deep.hash
    assert Preprocessing.from_dict(deep.to_dict()) == deep


def test_training_and_prediction_read_by_the_same_depth(parts, tmp_path, caplog):
    run = trained(parts, bit_depth=12)
    checkpoint = run.checkpoint_file()
    assert run.record.preprocessing.bit_depth == read_checkpoint_record(checkpoint)["preprocessing"]["bit_depth"] == 12
    assert Manifest.read(run.folder / "manifest.json").protocol.bit_depth == 12
    detector = Detector.load(checkpoint)
    scores = {row.image_path: row.score for row in run.scores("test")}
    for path, own in scores.items():
        found = detector.predict(paths.resolve(path))[0]
        assert found.score == pytest.approx(own, rel=1e-5)
        pixels = np.asarray(Image.open(found.image_path))
        assert detector.predict(pixels)[0].score == pytest.approx(own, rel=1e-5)
        assert prediction_images(detector, found)[0].max() > 90, "the picture is not black"
    Image.fromarray(np.full((48, 48), 5000, dtype=np.uint16)).save(parts / "test/good/999.png")
    rows = predict_to_folder(run.folder, parts / "test/good", tmp_path / "out", heatmaps=True).read_text()
    assert "values beyond bit_depth 12" in rows
    with pytest.raises(DataError, match="does not fit these images"):
        predict_to_folder(run.folder, parts / "test/good", tmp_path / "strict", strict=True)
    for call in (
        lambda: Engine().test(datamodule=data(parts), ckpt_path=checkpoint),
        lambda: Engine().predict(datamodule=data(parts), ckpt_path=checkpoint),
        lambda: Engine().predict(data_path=parts / "test/good", ckpt_path=checkpoint),
    ):
        with pytest.raises(
            DataError, match=r"bit_depth 12 \(values up to 4095\)[^\n]*\(1\):\n.*999\.png: values up to 5000"
        ):
            call()
    (parts / "test/good/999.png").unlink()
    with pytest.raises(InputError, match="bit_depth differs from that of the training"):
        Engine().test(datamodule=data(parts, bit_depth=16), ckpt_path=checkpoint)
    Engine().test(datamodule=data(parts), ckpt_path=checkpoint)
    assert {row.image_path: row.score for row in run.scores("test")} == pytest.approx(scores, rel=1e-5)
    caplog.clear()
    plain = trained(parts)
    with caplog.at_level(logging.WARNING):
        predict_to_folder(plain.folder, parts / "test/good", tmp_path / "plain")
    assert "no value above" in caplog.text


def trained(root, **options) -> Run:
    model = small("padim")
    Engine().train(model=model, datamodule=data(root, **options))
    return Run.open(model.run_folder)
