"""Folders with pictures, and the options that their names suggest."""

import pytest
from helpers.datasets import write_image

from defectlab.data.manifest.picture_folders import count_lines, guess_options, picture_folders


def test_pictures_are_counted_where_they_lie(tmp_path):
    for name in ("b.png", "a/1.PNG", "a/2.jpg", "a/deep/1.png", ".trash/1.png", "a/@eaDir/1.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/readme.txt").write_text("")
    assert picture_folders(tmp_path) == {".": 1, "a": 2, "a/deep": 1}
    assert picture_folders(tmp_path, "jpg") == {"a": 1}
    assert count_lines({"a": 2, ".": 1}) == ["a (2 images)", ". (1 image)"]


@pytest.mark.parametrize(
    ("folders", "options"),
    [
        (["gut", "Kratzer", "Riss"], {"normal_dir": ["gut"], "abnormal_dir": ["Kratzer", "Riss"]}),
        (
            ["train", "test/ok", "test/crack", "ground_truth/crack", "test/unknown"],
            {
                "normal_dir": ["train"],
                "normal_test_dir": ["test/ok"],
                "abnormal_dir": ["test/crack"],
                "mask_dir": ["ground_truth"],
                "unknown_dir": ["test/unknown"],
            },
        ),
        (
            ["a/good", "a/bad", "a/bad/gt", "val/normal", "val/bad"],
            {
                "normal_dir": ["a/good"],
                "abnormal_dir": ["a/bad"],
                "mask_dir": ["a/bad/gt"],
                "normal_val_dir": ["val/normal"],
                "abnormal_val_dir": ["val/bad"],
            },
        ),
        (["train/NG", "train/OK"], {"normal_dir": ["train/OK"], "abnormal_dir": ["train/NG"]}),
        (["pictures", "more"], None),
        ([".", "good", "bad"], {"normal_dir": ["good"], "abnormal_dir": ["bad"]}),
        (["."], None),
        (["good", "masks"], {"normal_dir": ["good"]}),
    ],
)
def test_options_that_the_names_suggest(folders, options):
    assert guess_options(folders) == options
