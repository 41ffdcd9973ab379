"""Names of categories, lists and groups of them."""

import pytest
from helpers.datasets import well_set

from defectlab.data.manifest.categories import OBJECTS, categories_in, chosen_categories
from defectlab_runtime.errors import DataError


@pytest.mark.row("4.1", "4.4")
def test_names_lists_and_groups():
    there = ["bottle", "carpet", "mine"]
    groups = {"ours": ["mine", "bottle"]}
    for asked, expected in (
        ("all", there),
        ("mine", ["mine"]),
        ("ours", ["mine", "bottle"]),
        (["ours", "carpet", "mine"], ["mine", "bottle", "carpet"]),
        ("carpet, mine", ["carpet", "mine"]),
    ):
        assert chosen_categories(asked, there, groups) == expected
    with pytest.raises(DataError, match="Did you mean 'bottle'"):
        chosen_categories("botle", there, groups)
    with pytest.raises(DataError, match="cable"):
        chosen_categories("objects", there, groups)
    assert chosen_categories("objects", [*OBJECTS], groups) == [*OBJECTS]


def test_every_layout_with_folders_of_good_images_is_a_category(tmp_path):
    for name in ("a/train/ok", "b/train/Good", "c/OK", "d/train/crack", "e/pictures", "@eaDir/train/good"):
        (tmp_path / name).mkdir(parents=True)
    well_set(tmp_path / "f")
    assert categories_in(tmp_path) == ["a", "b", "c", "f"]
    with pytest.raises(DataError, match="no datasets"):
        categories_in(tmp_path / "e")
