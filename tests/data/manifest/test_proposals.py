"""Options as a user writes them."""

import shlex

from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.proposals import proposed, with_changes


def test_folders_with_spaces_and_lists_come_back_from_a_shell():
    _, line = proposed({"root": "/tmp/a b", "normal_dir": "OK ", "abnormal_dir": ("x'y", "ц"), "mask_dir": ()})
    words = shlex.split(line.partition("  (")[0])
    assert words == [
        "train", "--data.root", "/tmp/a b", "--data.normal_dir", "OK ", "--data.abnormal_dir", '["x\'y", "ц"]'
    ]  # fmt: skip


def test_options_as_given_with_changes():
    options = DataOptions("r", normal_dir="a", mask_dir="m", extensions=["jpg"], num_workers=0).checked()
    python, _ = with_changes(options, mask_dir=None, masks_beside_images=True)
    assert python == "Folder(root='r', normal_dir='a', extensions='jpg', masks_beside_images=True)"
