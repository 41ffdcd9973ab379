"""Masks of good images are found where folders of masks have them."""

from defectlab.data.manifest.good_masks import masks_of_good
from defectlab.data.manifest.layouts import Layout
from defectlab_runtime.image_files import list_images
from tests.helpers.datasets import write_image, write_mask


def found(root, layout: Layout) -> dict[str, str]:
    good = [(folder, list_images(root / folder)) for folder in layout.normal_dirs]
    used = [root / "masks/b.png"]
    pairs = masks_of_good(root, layout, good, used, None)
    return {path.relative_to(root).as_posix(): mask.relative_to(root).as_posix() for path, mask in pairs.items()}


def test_in_a_folder_of_the_same_name_or_in_one_for_all(tmp_path):
    for name in ("good/a.png", "good/b.png", "other/a.png", "bad/b.png"):
        write_image(tmp_path / name)
    for name in ("masks/a_mask.png", "masks/b.png", "truth/bad/a.png", "truth/good/b_mask.png"):
        write_mask(tmp_path / name)
    flat = Layout("flat", normal_dirs=("good", "other"), abnormal_dirs=("bad",), mask_dirs=("masks",))
    assert found(tmp_path, flat) == {"good/a.png": "masks/a_mask.png"}, "a mask is of one image"
    kinds = Layout("mvtec", normal_dirs=("good",), abnormal_dirs=("bad",), mask_dirs=("truth/bad",))
    assert found(tmp_path, kinds) == {"good/b.png": "truth/good/b_mask.png"}
