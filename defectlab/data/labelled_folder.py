"""Test datasets without training images: a folder `good/` beside folders of defects."""

from functools import cached_property
from pathlib import Path

from defectlab.data.folder import Folder
from defectlab.data.manifest.accounting import account
from defectlab.data.manifest.findings import Findings
from defectlab.data.manifest.folder_names import BAD, GOOD, MASKS, UNKNOWN, plain, sounds_good
from defectlab.data.manifest.layouts import Layout, subfolders
from defectlab.data.manifest.manifest import Manifest, manifest_of
from defectlab.data.manifest.options import DataOptions
from defectlab.data.manifest.protocol import Protocol
from defectlab.data.manifest.scan import scan
from defectlab.data.manifest.splits import count_labels
from defectlab.data.manifest.survey import Survey
from defectlab_runtime.errors import DataError


def has_no_training_images(root: Path) -> bool:
    """Return whether a folder holds `good/` or `bad/` (or a synonym) but no `train/`."""
    names = {plain(child.name) for child in subfolders(root)}
    return "train" not in names and bool(names & {*GOOD, *BAD})


class LabelledFolder(Folder):
    """The images of `root` as a test set: label 0 in the folder `good`, 1 in every other, which is a kind of defect.

    Masks are taken from `ground_truth/<kind>` in `root`, or beside it where `root` is the `test/` of a dataset. There
    is no validation set, so a run tested on these images keeps the thresholds it has. `unknown/` is scored and
    never counted.

    Raises:
        DataError: On first use: no such folders, or what is wrong with their images, in one message.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        eval_batch_size: int = 10,
        num_workers: int = 2,
        extensions: list[str] | None = None,
        masks_beside_images: bool | None = None,
    ) -> None:
        super().__init__(
            root=root,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            extensions=extensions,
            masks_beside_images=masks_beside_images,
            val_split_mode="none",
        )

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of all images, each in the test split, built and checked on first access."""
        assert self.root is not None
        manifest = bare_manifest(self.root, self.settings.extensions, self.settings.masks_beside_images)
        self._is_setup = True
        return manifest


def bare_manifest(root: Path, extensions: list[str] | None = None, masks_beside_images: bool | None = None) -> Manifest:
    """Return the manifest of a folder of test images for which `has_no_training_images` is True.

    Raises:
        DataError: It is none, or its images have problems: all of them at once.
    """
    if not root.is_dir() or not has_no_training_images(root):
        raise DataError(f"{root} must hold good/ or bad/ with test images, and no train/.")
    layout = _layout(root)
    findings = Findings()
    options = DataOptions(extensions=extensions, masks_beside_images=masks_beside_images)
    account(root, layout, options, findings)
    items = scan(root, layout, options, findings)
    findings.log()
    findings.raise_problems(str(root))
    splits = tuple((item, item.role) for item in items)
    counts = count_labels(splits)
    protocol = Protocol(
        test_split_mode="from_dir",
        test_split_ratio=None,
        val_split_mode="none",
        val_split_ratio=None,
        validation_is_test=False,
        test_normal_from="their own folder" if counts["test"]["good"] else "none: there is no folder of good images",
        validation_from="none: there are test images only",
        counts=counts,
    )
    return manifest_of(Survey(_name(root), root, layout, 42, items, splits, protocol, findings))


def _layout(root: Path) -> Layout:
    names = [child.name for child in subfolders(root)]
    good = tuple(name for name in names if plain(name) in GOOD)
    kinds = tuple(name for name in names if plain(name) not in (*GOOD, *MASKS, UNKNOWN))
    if good_names := [name for name in kinds if sounds_good(name)]:
        raise DataError(
            f"{root}: {', '.join(map(repr, good_names))} would be a kind of defect, but sounds like good images. "
            "Rename it to good (or unknown); or give its images by name, Folder(normal_dir=..., normal_test_dir=...)."
        )
    unknown = tuple(name for name in names if plain(name) == UNKNOWN)
    masks = _mask_root(root)
    mask_dirs = None
    if masks is not None and kinds:
        mask_dirs = tuple(str(masks / kind) for kind in kinds) if (masks / kinds[0]).is_dir() else (str(masks),)
    return Layout("tested", (), normal_test_dirs=good, abnormal_dirs=kinds, mask_dirs=mask_dirs, unknown_dirs=unknown)


def _mask_root(root: Path) -> Path | None:
    places = [root, root.parent] if root.name.lower() == "test" else [root]
    return next((child for place in places for child in subfolders(place) if plain(child.name) in MASKS), None)


def _name(root: Path) -> str:
    """Return the dataset's name: the folder's own, or `bottle-test` for the folder `bottle/test`."""
    return f"{root.parent.name}-test" if root.name.lower() == "test" else root.name
