"""Names of categories, lists and groups of them."""

import pytest

from defectlab.data.manifest.categories import OBJECTS, chosen_categories
from defectlab.utils.errors import DataError


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
