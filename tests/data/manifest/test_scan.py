"""What is read and what is wrong on disk: images, masks, folders and files of annotations."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from helpers.datasets import mvtec, paths_of, well_set, write_image, write_mask
from PIL import Image

from defectlab.data.folder import Folder
from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.layouts import named
from defectlab.data.manifest.manifest import build_manifest
from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.scan import scan
from defectlab_runtime.errors import DataError
from defectlab_runtime.image_files import IMAGE_EXTENSIONS, list_images


def problem(root, **options):
    with pytest.raises(DataError) as caught:
        build_manifest(root, **options)
    return str(caught.value)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def test_one_error_lists_all(tmp_path):
    mvtec(tmp_path)
    truncate(tmp_path / "train/good/003.png")
    truncate(write_image(tmp_path / "train/good/big.jpg", size=(64, 64)))
    (tmp_path / "test/good/text.png").write_text("no picture")
    truncate(tmp_path / "ground_truth/crack/000_mask.png")
    (tmp_path / "ground_truth/crack/001_mask.png").unlink()
    (tmp_path / "ground_truth/hole/002_mask.png").unlink()
    write_image(tmp_path / "test/hole/000.jpg")
    write_mask(tmp_path / "ground_truth/hole/001_mask.png", size=(8, 20))
    write_image(tmp_path / "test/good/leak.png", seed=5)
    write_image(tmp_path / "train/good/leak.png", seed=5)
    text = problem(tmp_path)
    for words in (
        "train/good/003.png: image file is truncated",
        "train/good/big.jpg: image file is truncated",
        "test/good/text.png: not an image",
        "ground_truth/crack/000_mask.png: image file is truncated",
        "or task: classification for image metrics only (2):",
        "test/crack/001.png: no mask",
        "test/hole/002.png: no mask",
        "images of one stem: 000.jpg, 000.png",
        "ground_truth/hole/001_mask.png: mask 8 x 20, image 8 x 6",
        "test/good/leak.png (",
        "train/good/leak.png (train)",
    ):
        assert words in text


def test_without_mask_dir_nothing_is_paired_and_doubled_stems_do_no_harm(tmp_path):
    mvtec(tmp_path, masks=False)
    write_image(tmp_path / "test/crack/000.jpg")
    manifest = build_manifest(tmp_path)
    assert not manifest.has_masks
    assert all(entry.mask_sha256 is None for entry in manifest.entries)


def test_two_folders_with_equal_names_keep_their_own_masks(tmp_path):
    """anomalib pairs by position over all folders and swaps these silently."""
    for i in range(10):
        write_image(tmp_path / f"good/{i}.png")
    for kind, size in (("a", (8, 6)), ("b", (6, 8))):
        for i in range(3):
            write_image(tmp_path / f"{kind}/{i}.png", size=size)
            write_mask(tmp_path / f"masks_{kind}/{i}.png", size=size)
    for abnormal, masks in ((["b", "a"], ["masks_b", "masks_a"]), (["a", "b"], ["masks_a", "masks_b"])):
        manifest = build_manifest(tmp_path, normal_dir="good", abnormal_dir=abnormal, mask_dir=masks)
        for entry in manifest.entries:
            if entry.label:
                assert entry.mask == f"masks_{entry.path}"
        assert manifest.warnings == ()


def test_one_mask_folder_for_several_kinds(tmp_path):
    mvtec(tmp_path)
    parts = {"normal_dir": "train/good", "normal_test_dir": "test/good", "abnormal_dir": ["test/crack", "test/hole"]}
    manifest = build_manifest(tmp_path, mask_dir="ground_truth", **parts)
    assert all(e.mask == f"ground_truth/{e.defect}/{e.path[-7:-4]}_mask.png" for e in manifest.entries if e.label)
    for i in range(4):
        write_mask(tmp_path / f"flat/{i:03d}.png")
    text = problem(tmp_path, mask_dir="flat", **parts)
    assert "flat/000.png fits test/crack/000.png and test/hole/000.png" in text
    assert "2 folders for 1 abnormal_dir" in problem(
        tmp_path, normal_dir="train/good", abnormal_dir="test/crack", mask_dir=["flat", "ground_truth"]
    )


def test_swapped_mask_folders_are_put_right(tmp_path):
    manifest = build_manifest(
        mvtec(tmp_path),
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=["test/crack", "test/hole"],
        mask_dir=["ground_truth/hole", "ground_truth/crack"],
    )
    assert all(f"/{e.defect}/" in e.mask for e in manifest.entries if e.label)
    assert any("another order" in warning for warning in manifest.warnings)


def test_a_smaller_mask_is_a_warning_where_the_aspect_agrees(tmp_path, caplog):
    mvtec(tmp_path)
    write_mask(tmp_path / "ground_truth/crack/000_mask.png", size=(16, 12))
    manifest = build_manifest(tmp_path)
    assert len(manifest.warnings) == 1
    assert "ground_truth/crack/000_mask.png: mask 16 x 12, image 8 x 6" in manifest.warnings[0]
    assert manifest.warnings[0] in caplog.text


def test_sizes_are_compared_after_exif_rotation(tmp_path):
    mvtec(tmp_path)
    write_image(tmp_path / "test/crack/000.png", size=(32, 16), exif=orientation(6))
    write_mask(tmp_path / "ground_truth/crack/000_mask.png", size=(16, 32))
    write_image(tmp_path / "test/crack/001.png", size=(32, 16), exif=orientation(8))
    write_mask(tmp_path / "ground_truth/crack/001_mask.png", size=(32, 16), exif=orientation(8))
    manifest = build_manifest(tmp_path)
    assert manifest.warnings == ()
    entry = manifest.entries[manifest.index("test/crack/000.png")]
    assert (entry.width, entry.height) == (16, 32)
    write_mask(tmp_path / "ground_truth/crack/000_mask.png", size=(32, 16))
    assert "fits the unrotated image" in problem(tmp_path)


def test_orphan_and_jpeg_masks_are_warnings(tmp_path):
    mvtec(tmp_path)
    write_mask(tmp_path / "ground_truth/crack/orphan_mask.png")
    (tmp_path / "ground_truth/hole/000_mask.png").unlink()
    write_mask(tmp_path / "ground_truth/hole/000_mask.jpg")
    warnings = "\n".join(build_manifest(tmp_path).warnings)
    assert "Masks without an image, not used (1):\n  ground_truth/crack/orphan_mask.png" in warnings
    assert "JPEG masks have compression noise: above 127 counts as defect" in warnings


def test_folders_missing_empty_or_twice(tmp_path):
    mvtec(tmp_path)
    (tmp_path / "empty").mkdir()
    text = problem(
        tmp_path,
        normal_dir="train/god",
        abnormal_dir=["test/crack", "empty", "test/good"],
        normal_test_dir="test/good",
        mask_dir=["ground_truth/crak", "empty", "empty"],
    )
    assert "normal_dir 'train/god': no such folder. Did you mean 'train/good'?" in text
    assert "mask_dir 'ground_truth/crak': no such folder. Did you mean 'ground_truth/crack'?" in text
    assert "abnormal_dir 'empty' has no file" in text
    assert "'test/good' as normal_test_dir and as abnormal_dir" in text


def test_a_kind_without_its_mask_folder(tmp_path):
    mvtec(tmp_path)
    for path in list_images(tmp_path / "ground_truth/hole"):
        path.unlink()
    (tmp_path / "ground_truth/hole").rmdir()
    assert "mask_dir 'ground_truth/hole': no such folder" in problem(tmp_path)


def test_a_file_belongs_to_the_deepest_folder_given(tmp_path):
    for i in range(5):
        write_image(tmp_path / f"{i}.png")
    write_image(tmp_path / "bad/0.png")
    write_mask(tmp_path / "bad/masks/0.png")
    manifest = build_manifest(tmp_path, normal_dir=".", abnormal_dir="bad", mask_dir="bad/masks")
    assert [e.path for e in manifest.entries if e.label] == ["bad/0.png"]
    assert len(manifest.entries) == 6


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_of_any_script_in_folders_images_and_masks(tmp_path, form):
    def name(text):
        return unicodedata.normalize(form, text)

    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    for i in range(10):
        write_image(tmp_path / name(f"Детали/good/{i}.png"))
    for stem in ("дефект", "缺陷", "défaut", "й" * 50):
        write_image(tmp_path / name(f"Детали/царапина/{stem}.png"))
        write_mask(tmp_path / unicodedata.normalize(other, f"Детали/masks/{stem}_mask.png"))
    options = {"normal_dir": "good", "abnormal_dir": name("царапина"), "mask_dir": "masks"}
    manifest = build_manifest(tmp_path / "Детали", **options)
    assert manifest.warnings == ()
    masked = [entry for entry in manifest.entries if entry.mask]
    assert len(masked) == 4
    for entry in masked:
        assert manifest.absolute(entry).is_file()
        assert (manifest.root / entry.mask).is_file()
    assert unicodedata.normalize("NFC", masked[0].defect) == "царапина"


def test_composed_and_decomposed_trees_have_one_hash_and_split(tmp_path):
    hashes = set()
    for form in ("NFC", "NFD"):
        for i in range(6):
            for kind in ("good", "bad"):
                write_image(tmp_path / form / kind / unicodedata.normalize(form, f"é{i}.png"), seed=i + len(kind) * 100)
        hashes.add(build_manifest(tmp_path / form).hash)
    assert len(hashes) == 1


def test_a_name_that_is_no_text_is_refused(tmp_path):
    mvtec(tmp_path)
    source = tmp_path / "train/good/000.png"
    try:
        source.with_name(b"bad\xff.png".decode("utf-8", "surrogateescape")).write_bytes(source.read_bytes())
    except OSError:
        pytest.skip("this file system takes only valid Unicode")
    assert "not valid Unicode" in problem(tmp_path)


def test_extensions_choose_the_images(tmp_path):
    mvtec(tmp_path)
    write_image(tmp_path / "train/good/extra.jpg")
    assert build_manifest(tmp_path, extensions=[".PNG"]).counts()["train"] == {"good": 10}
    assert build_manifest(tmp_path).counts()["train"] == {"good": 11}


def test_scan_keeps_the_part_each_image_comes_from(tmp_path):
    mvtec(tmp_path, train=2, good=1, kinds={"crack": 1})
    options = DataOptions(tmp_path, normal_dir="train/good", abnormal_dir="test/crack", normal_val_dir="test/good")
    items = scan(*named(options), options, Findings())
    assert [(i.path, i.role, i.label, i.defect) for i in items] == [
        ("test/crack/000.png", "test", 1, "crack"),
        ("test/good/000.png", "validation", 0, "good"),
        ("train/good/000.png", "train", 0, "good"),
        ("train/good/001.png", "train", 0, "good"),
    ]


def test_photographs_may_be_jpegs_as_the_references_are(tmp_path: Path):
    for folder, names in (("train", "abcde"), ("proliv", "xy"), ("test/imgs", "pq")):
        for name in names:
            write_image(tmp_path / folder / f"{name}.jpg", size=(9, 7))
    (tmp_path / "test/test_annotation.txt").write_text("p.jpg 0\nq.jpg 1\n", encoding="utf-8")
    manifest = build_manifest(tmp_path)
    assert manifest.layout == "wells"
    assert paths_of(manifest, "test", 1) == ["test/imgs/q.jpg"]
    assert paths_of(manifest, "validation", 1) == ["proliv/x.jpg", "proliv/y.jpg"]
    assert len(paths_of(manifest, "train", 0)) == 4
    data = Folder(root=tmp_path, num_workers=0, eval_batch_size=2)
    data.setup()
    batch = next(iter(data.test_dataloader()))
    assert batch.gt_label.tolist() == [0, 1]


def test_blank_lines_tabs_of_windows_and_a_byte_order_mark_are_read(tmp_path: Path):
    well_set(tmp_path)
    text = b"\xef\xbb\xbfa.png 0\r\n\r\nb b.png 1\r\n c.png  0 \r\n"
    (tmp_path / "test/test_annotation.txt").write_bytes(text)
    assert paths_of(build_manifest(tmp_path), "test", 1) == ["test/imgs/b b.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a.png 0\nc.png 0\n", r"b b\.png: no line in test/test_annotation\.txt"),
        ("a.png 0\nb b.png 1\na.png 0\nc.png 0\n", r"a\.png: lines 1 and 3 of test/test_annotation\.txt"),
        ("a.png 0\nb b.png 1\nc.png 2\n", r"line 3: 'c\.png 2'"),
        ("a.png 0\nb b.png 1\nc.png\n", r"line 3: 'c\.png'"),
        ("", r"Images without an annotation.*\(3\)"),
    ],
)
def test_what_is_wrong_with_the_annotations_is_named(tmp_path: Path, lines: str, message: str):
    with pytest.raises(DataError, match=message):
        build_manifest(well_set(tmp_path, lines))


def test_an_annotation_of_no_image_is_warned_of(tmp_path: Path):
    manifest = build_manifest(well_set(tmp_path, "a.png 0\nb b.png 1\nc.png 0\nd.png 1\n"))
    assert any("test_annotation.txt line 4: d.png" in warning for warning in manifest.warnings)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    well_set(tmp_path)
    (tmp_path / "test/test_annotation.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="UTF-8"):
        build_manifest(tmp_path)


@pytest.mark.row("3.3")
@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "pbm", "pgm", "ppm", "pxm", "pnm"])
def test_every_ending_of_the_reference_is_an_image(tmp_path, ending):
    formats = {"pbm": ("1", "PPM"), "pgm": ("L", "PPM"), "ppm": ("RGB", "PPM"), "pxm": ("RGB", "PPM")}
    mode, kind = formats.get(ending, ("RGB", "PPM" if ending == "pnm" else None))
    for number in range(3):
        path = tmp_path / f"train/good/{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path, **({"format": kind} if kind else {}))
    assert len(build_manifest(tmp_path).entries) == 3
    assert f".{ending}" in IMAGE_EXTENSIONS


@pytest.mark.row("R.18")
def test_two_files_of_one_name_are_refused(tmp_path):
    root = mvtec(tmp_path)
    for name in ("\u00e4.png", "a\u0308.png"):  # one of them would have been taken for the other
        write_image(root / "train/good" / name)
    if len({path.name for path in (root / "train/good").iterdir() if not path.name.isascii()}) < 2:
        pytest.skip("this file system takes them for one")
    with pytest.raises(DataError, match=r"accents stored in two ways.*\n.*\\u0308"):
        build_manifest(root)


def test_names_that_differ_in_case_only_are_named(tmp_path):
    mvtec(tmp_path, kinds={"crack": 2})
    mask = tmp_path / "ground_truth/crack/001_mask.png"
    mask.rename(mask.with_name("001_Mask.png"))
    text = problem(tmp_path)
    assert "test/crack/001.png: no mask in ground_truth/crack; 001_Mask.png differs in upper and lower case" in text
    mask.with_name("001_Mask.png").rename(mask)
    (tmp_path / "ground_truth/crack").rename(tmp_path / "ground_truth/Crack")
    assert "no mask in ground_truth; Crack/ differs in upper and lower case" in problem(tmp_path)
    named = {"normal_dir": "train/good", "abnormal_dir": "test/crack", "mask_dir": "ground_truth/crack"}
    assert "no such folder. 'ground_truth/Crack' differs in upper and lower case" in problem(tmp_path, **named)


def test_a_mask_of_one_pixel_is_refused(tmp_path):
    mvtec(tmp_path)
    Image.new("L", (1, 1), 255).save(tmp_path / "ground_truth/crack/000_mask.png")
    assert "mask 1 x 1, image 8 x 6, which is too small to say where a defect is" in problem(tmp_path)


def test_kinds_are_named_by_the_folder_that_tells_them_apart(tmp_path):
    for folder, count in (("Free/Imgs", 4), ("Blowhole/Imgs", 2), ("Crack/Imgs", 2)):
        for number in range(count):
            write_image(tmp_path / folder / f"{number}.png")
    manifest = build_manifest(tmp_path, normal_dir="Free/Imgs", abnormal_dir=["Blowhole/Imgs", "Crack/Imgs"])
    assert {e.defect for e in manifest.entries} == {"good", "Blowhole", "Crack"}
    (tmp_path / "Free").rename(tmp_path / "good")
    (tmp_path / "Crack").rename(tmp_path / "bad")
    manifest = build_manifest(tmp_path)
    assert {e.defect for e in manifest.entries} == {"good", "bad"}, "a layout known by itself keeps its folders' names"
