"""What folders' names say."""

import pytest

from defectlab.data.manifest.folder_names import GOOD, kind_names, plain, sounds_good


@pytest.mark.parametrize(
    "name",
    [
        *("normals", "Good_light", "goods", "OK ", "ok-2", "passed", "io", "i.O.", "gut", "Gutteile", "bueno"),
        *("хорошие", "годные", "良品", "正常品", "合格", "defect_free", "no defects", "MT_Free", "без дефектов", *GOOD),
    ],
)
def test_names_that_sound_good(name):
    assert sounds_good(name)


@pytest.mark.parametrize(
    "name",
    [
        *("crack", "not_good", "no_good", "abnormal", "nok", "NG", "n.i.O.", "не годен", "негодные", "不良", "不良品"),
        *("broken_large", "passivation", "okra", "iodine", "gutter", "bonding", "free_edge", "123", "", "good"[:0]),
    ],
)
def test_names_that_do_not(name):
    assert not sounds_good(name)


def test_case_spaces_and_unicode_form_do_not_count():
    assert plain("OK ") == plain(" ok") == "ok"
    assert plain("e\u0301") == plain("\u00c9")


@pytest.mark.parametrize(
    ("folders", "kinds"),
    [
        (["bad/images"], ["images"]),
        (["scratch/test"], ["test"]),
        (["scratch/test", "hole/Imgs", "/data/bad"], ["test", "Imgs", "bad"]),
        (["scratch/test", "hole/Test", "bad"], ["scratch", "hole", "bad"]),
        (["a/bad", "b/bad", "b/bad/images"], ["a", "b", "images"]),
        (["test/images", "val/images"], ["images", "images"]),
    ],
)
def test_a_kind_is_renamed_only_where_folders_share_its_name(folders, kinds):
    assert list(kind_names(folders).values()) == kinds
