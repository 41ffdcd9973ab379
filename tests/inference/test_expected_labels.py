"""Labels of predicted images by their folders' names."""

from pathlib import Path

from defectlab.inference.expected_labels import expectations


def labels(*folders: str) -> list[tuple[int, str]]:
    return [(one.label, one.kind) for one in expectations([Path("/data", folder, "a.png") for folder in folders])]


def test_names_of_good_and_bad_and_unknown_ones():
    assert labels("OK ", "NG", "crack", "unknown") == [(0, "good"), (1, "NG"), (1, "crack"), (-1, "unknown")]
    assert labels("crack", "hole") == [(-1, "unknown")] * 2, "no folder says what is good or bad"


def test_a_folder_that_only_sounds_good_is_no_defect(caplog):
    assert labels("good", "normals", "crack") == [(0, "good"), (-1, "unknown"), (1, "crack")]
    assert "normals" in caplog.text
