"""Masks among the images: recognised by name and content, refused, paired on request; photographs are left alone."""

from pathlib import Path

import pytest
from helpers.datasets import mvtec, write_image, write_mask
from PIL import Image

from defectlab.cli.main import main
from defectlab.data.image_facts import probe
from defectlab.data.labelled_folder import LabelledFolder
from defectlab.data.manifest.check import check
from defectlab.data.manifest.manifest import build_manifest
from defectlab.data.manifest.mask_recognition import masks_among
from defectlab_runtime.errors import DataError, OptionError

NAMED = {"normal_dir": "free/Imgs", "abnormal_dir": ["hole/Imgs", "crack/Imgs"]}


def as_it_came(root: Path) -> Path:
    """Images and their masks of one stem side by side, those of good images too."""
    for folder, count in (("free/Imgs", 6), ("hole/Imgs", 2), ("crack/Imgs", 2)):
        for number in range(count):
            write_image(root / folder / f"exp{number}.jpg")
            write_mask(root / folder / f"exp{number}.png")
    return root


def names(folder: Path, files: list[Path]) -> dict[str, str | None]:
    found = masks_among(folder, folder, files, probe)
    return {m.path.relative_to(folder).as_posix(): m.image and m.image.relative_to(folder).as_posix() for m in found}


def test_masks_of_one_stem_are_refused_with_the_options_and_never_trained_on(tmp_path):
    with pytest.raises(DataError) as caught:
        build_manifest(as_it_came(tmp_path), **NAMED)
    text = str(caught.value)
    assert "Masks among the images, which would be taken for photographs (10)" in text
    assert "free/Imgs/exp0.png: called as exp0.jpg" in text
    (line,) = (line.strip() for line in text.splitlines() if line.strip().startswith("Folder("))
    options = eval(line.replace("Folder(", "dict("))
    manifest = build_manifest(**options)
    assert all(entry.path.endswith(".jpg") for entry in manifest.entries)
    masked = {entry.path: entry.mask for entry in manifest.entries if entry.label == 1}
    assert len(masked) == 4
    assert all(mask == path.replace(".jpg", ".png") for path, mask in masked.items())
    assert all(entry.mask is None for entry in manifest.entries if entry.label == 0)


def test_the_command_prints_a_command_that_works(tmp_path, capsys):
    folders = ["--normal_dir", "free/Imgs", "--abnormal_dir", '["hole/Imgs", "crack/Imgs"]', "--near", "false"]
    assert main(["data", "check", str(as_it_came(tmp_path)), *folders]) == 1
    assert "--data.masks_beside_images true" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path), *folders, "--masks_beside_images", "true"]) == 0
    out = capsys.readouterr().out
    assert "10 pictures beside the images are masks (masks_beside_images): 4 of anomalous images, 6 of good ones" in out
    assert "Masks: 4 for 4 anomalous images" in out


def test_false_takes_them_for_photographs(tmp_path):
    manifest = build_manifest(as_it_came(tmp_path), **NAMED, masks_beside_images=False, on_duplicate="warn")
    assert len(manifest.entries) == 20


def test_suffixed_masks_in_a_layout_known_by_itself(tmp_path):
    for number in range(6):
        write_image(tmp_path / f"good/{number}.png")
    for number in range(3):
        write_image(tmp_path / f"bad/{number}.png")
        write_mask(tmp_path / f"bad/{number}_MASK.png")
    with pytest.raises(DataError, match=r"bad/0_MASK\.png: named as the mask of 0\.png"):
        build_manifest(tmp_path)
    manifest = build_manifest(tmp_path, masks_beside_images=True)
    assert [e.mask for e in manifest.entries if e.label == 1] == [f"bad/{number}_MASK.png" for number in range(3)]
    (tmp_path / "bad/1_MASK.png").unlink()
    with pytest.raises(DataError, match=r"bad/1\.png: no mask beside it"):
        build_manifest(tmp_path, masks_beside_images=True)
    assert len(build_manifest(tmp_path, masks_beside_images=True, missing_masks="leave_out").without_mask) == 1
    assert not build_manifest(tmp_path, masks_beside_images=True, task="classification").has_masks


def test_names_in_folders_of_images_and_masks(tmp_path):
    files = [write_image(tmp_path / name) for name in ("images/a.png", "b.png", "c_img.png", "d.png")]
    files += [write_mask(tmp_path / name) for name in ("masks/a.png", "masks/b_mask.png", "c_mask.png", "GT/z.png")]
    assert names(tmp_path, files) == {
        "masks/a.png": "images/a.png", "masks/b_mask.png": "b.png", "c_mask.png": "c_img.png", "GT/z.png": None
    }  # fmt: skip


def test_one_photograph_in_two_formats_is_no_mask(tmp_path):
    with Image.open(write_image(tmp_path / "a.png")) as image:
        image.save(tmp_path / "a.jpg")
    assert names(tmp_path, [tmp_path / "a.jpg", tmp_path / "a.png"]) == {}


def test_soft_edges_and_jpeg_noise_do_not_hide_a_mask_of_one_stem(tmp_path):
    soft = Image.new("L", (40, 40))
    soft.paste(255, (10, 10, 20, 20))
    soft.paste(90, (10, 9, 20, 10))
    soft.save(tmp_path / "a.png")
    write_image(tmp_path / "a.jpg", size=(40, 40))
    assert names(tmp_path, [tmp_path / "a.jpg", tmp_path / "a.png"]) == {"a.png": "a.jpg"}


def test_two_valued_pictures_among_photographs_are_refused_by_content(tmp_path):
    mvtec(tmp_path)
    write_mask(tmp_path / "train/good/m1.png")
    with pytest.raises(DataError, match=r"train/good/m1\.png: nothing but black and one grey value"):
        build_manifest(tmp_path)
    assert "train/good/m1.png" not in {e.path for e in build_manifest(tmp_path, masks_beside_images=True).entries}


def test_a_dataset_of_two_valued_pictures_is_one_of_photographs(tmp_path):
    for number in range(5):
        picture = Image.new("1", (8, 8))
        picture.putpixel((number, 2), 1)
        (tmp_path / "good").mkdir(exist_ok=True)
        picture.save(tmp_path / f"good/{number}.png")
    assert len(build_manifest(tmp_path).entries) == 5


def test_a_folder_of_masks_given_as_images(tmp_path):
    mvtec(tmp_path)
    with pytest.raises(DataError, match="in the folder of masks ground_truth/crack"):
        build_manifest(tmp_path, normal_dir="train/good", abnormal_dir="ground_truth/crack")


def test_the_image_folder_given_as_mask_folder(tmp_path):
    mvtec(tmp_path, masks=False, kinds={"crack": 3})
    named = {"normal_dir": "train/good", "abnormal_dir": "test/crack"}
    with pytest.raises(DataError, match=r"test/crack/000\.png: no mask in test/crack"):
        build_manifest(tmp_path, **named, mask_dir="test/crack")
    (tmp_path / "copies").mkdir()
    for file in (tmp_path / "test/crack").iterdir():
        (tmp_path / "copies" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"Masks that are the image itself.*\n.*copies/000\.png"):
        build_manifest(tmp_path, **named, mask_dir="copies")


def test_test_folders_alone_know_masks_beside_images_too(tmp_path):
    for folder in ("good", "bad"):
        write_image(tmp_path / folder / "0.jpg")
    write_mask(tmp_path / "bad/0.png")
    with pytest.raises(DataError, match="Masks among the images"):
        _ = LabelledFolder(tmp_path).manifest
    assert [e.mask for e in LabelledFolder(tmp_path, masks_beside_images=True).manifest.entries] == ["bad/0.png", None]


def test_the_option_is_checked_and_warns_where_nothing_is_found(tmp_path):
    report = check(mvtec(tmp_path), near=False, masks_beside_images=True)
    assert report.ok
    assert "no mask among the images" in report.text
    with pytest.raises(OptionError, match="true or false"):
        build_manifest(tmp_path, masks_beside_images="yes")


def test_grey_values_of_files(tmp_path):
    files = {
        "photograph.png": 0, "mask.png": 2, "mask.jpg": 0, "blank.png": 1, "palette.png": 2, "red.png": 0, "deep.png": 0
    }  # fmt: skip
    write_image(tmp_path / "photograph.png")
    write_mask(tmp_path / "mask.png")
    write_mask(tmp_path / "mask.jpg")
    Image.new("RGB", (4, 4), (3, 5, 7)).save(tmp_path / "blank.png")
    with Image.open(tmp_path / "mask.png") as mask:
        mask.convert("P").save(tmp_path / "palette.png")
    red = Image.new("RGB", (4, 4))
    red.putpixel((0, 0), (255, 0, 0))
    red.save(tmp_path / "red.png")
    Image.new("I;16", (4, 4)).save(tmp_path / "deep.png")
    assert {name: probe(tmp_path / name).grey_values for name in files} == files
