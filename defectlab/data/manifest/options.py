"""The options of a dataset, declared once for `Folder`, the manifest, `data check`, YAML and the command line.

A new option is a field of `DataOptions` and its line in the docstring, which is its help everywhere. No torch here.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from inspect import Parameter, Signature, signature
from typing import Any

from defectlab.data.manifest.groups import compile_pattern
from defectlab.data.manifest.k_shots import check_k_shots
from defectlab.data.transforms.augmentation_options import check_augment
from defectlab.data.transforms.tiling import tiling_option
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import OptionError, unknown_name
from defectlab_runtime.tiling import Tiling

Directories = str | list[str] | None

TEST_MODES = ("none", "from_dir")
VALIDATION_MODES = ("none", "same_as_test", "from_train", "from_test", "from_dir")
ON_DUPLICATE = ("error", "warn")
MISSING_MASKS = ("error", "whole", "leave_out")
MASK_REDUCTIONS = ("area", "nearest")
MASK_ORIENTATIONS = ("upright", "stored")
TASKS = ("segmentation", "classification")
# Recorded at any value. Other options are recorded where they differ from their default, so that a new one leaves the
# identity of the runs before it as it was.
ALWAYS_RECORDED = (
    *("root", "train_batch_size", "eval_batch_size", "num_workers"),
    *("test_split_mode", "test_split_ratio", "val_split_mode", "val_split_ratio", "seed"),
)

_NOT_WITH_CATEGORIES = {
    "group": "its pattern tells the parts of one dataset apart, and categories may name different parts alike; train "
    "on the categories one by one (`--categories`), or leave group out",
    "valid_area_mask": "one picture cannot be the valid area of several categories; cut the images beforehand",
}

SEVERAL_FORMS = ("augment", "extensions")  # `checked` takes more than their annotation says, and brings it to that


@dataclass(frozen=True)
class DataOptions:
    """Options of a dataset on disk, as `Folder` accepts them.

    Attributes:
        root: Folder of the dataset; a known layout needs no directories.
        name: Name of the dataset; default is the root's own.
        normal_dir: Good training images.
        normal_test_dir: Good test images.
        abnormal_dir: Bad images; several folders are several kinds of defect.
        mask_dir: Masks, one folder for each of abnormal_dir, or one for all.
        normal_val_dir: Good validation images, with val_split_mode from_dir.
        abnormal_val_dir: Bad validation images, with val_split_mode from_dir.
        val_mask_dir: Masks of abnormal_val_dir.
        bit_depth: Bits of the values in 16-bit grey files, such as 12; default is 16. Files of 8 bits stay as they are.
        extensions: File endings to take; default is every image.
        train_batch_size: Images per training batch.
        eval_batch_size: Images per batch in validation, test and prediction.
        num_workers: Processes that read images.
        test_split_mode: from_dir or none.
        test_split_ratio: Share of good images tested where there is no normal_test_dir.
        val_split_mode: from_test, from_train, from_dir, same_as_test or none.
        val_split_ratio: Share that validates.
        seed: Of the split; default is the experiment's.
        on_duplicate: error or warn, for equal files in training and test.
        group: Regular expression on the image's path that names the part it shows, where a part has several images; or
            near_duplicates: copies of one photograph, found by likeness, stay together.
        n_val_good: Good training images that validate too; default is 512, at most a fifth of them, where the
            validation folders hold anomalous images only.
        calibration_share: Share of the good validation images that choose nothing (no epoch, no configuration, no other
            threshold), so that the threshold rule conformal can keep its promise on them; default is none.
        unknown_dir: Test images without a label: predicted and shown, never scored.
        mask_suffix: What masks have after their image's stem, such as _mask; default is any of the usual ones.
        masks_beside_images: true: masks lie among the images, called as them with another ending or with mask_suffix,
            and are paired with them; false: every picture is a photograph; default is an error where masks are found.
        missing_masks: error, or for defects without a mask where others have one: whole (all of the image counts as
            defect) or leave_out (of the pixel metrics).
        mask_reduction: How masks come to the grid of the pixel metrics: area (a cell counts as defect from half its
            cover on, and no defect vanishes) or nearest (as anomalib does: thin and small defects may vanish).
        mask_threshold: A mask's pixel counts as defect where a channel is above this, in the file's own numbers;
            default is 0, or half of the largest where masks have soft edges or are JPEG (said when they are checked).
        mask_inverted: true: masks mark what is good.
        mask_orientation: Of masks without EXIF whose image EXIF turns: upright (drawn on the turned image, as viewers
            show it) or stored (on the pixels as they are in the file); default is upright, with a warning.
        task: classification (masks are not used) or segmentation (masks must be there); default is what there is.
        valid_area_mask: Picture of the images' own size, not zero where pixels count; below the root or the project.
        crop_area: Left, top, right, bottom in pixels of what is looked at.
        augment: Changes of training images, by name with a strength, such as `{hflip: 0.5, rotate: 10}`: hflip, vflip,
            quarter_turns, rotate, shift, zoom, brightness, contrast, blur, noise.
        passes: How often an epoch sees each augmented image; models that fit once fit on all of it.
        tiling: `{image_size: [1024, 1024], overlap: 0.25}`: images are brought to this size and cut into tiles of the
            model's own image_size, which overlap by at least this share; `random_tiles` of each image at a step of the
            training, default is all.
        categories: Folders below root, each a dataset in a known layout, for one model on the good images of all:
            names, all, or a group (textures, objects). Each is split, and gets thresholds and metrics, as it would
            alone; default is the root itself as one dataset.
        k_shots: Numbers of good images, such as `[1, 2, 4, 8, 16, all]`, with which the model is fitted and tested
            beside the run itself, to see how many are enough; for models that fit once (patchcore, padim, subspace).
        k_shot_draws: How often each of these numbers of images is drawn, by the seed, from the training images.
    """

    root: str | None = None
    name: str | None = None
    normal_dir: Directories = None
    normal_test_dir: Directories = None
    abnormal_dir: Directories = None
    mask_dir: Directories = None
    normal_val_dir: Directories = None
    abnormal_val_dir: Directories = None
    val_mask_dir: Directories = None
    extensions: list[str] | None = None
    train_batch_size: int = 10
    eval_batch_size: int = 10
    num_workers: int = 2
    test_split_mode: str = "from_dir"
    test_split_ratio: float = 0.2
    val_split_mode: str = "from_test"
    val_split_ratio: float = 0.5
    seed: int | None = None
    on_duplicate: str = "error"
    group: str | None = None
    n_val_good: int | None = None
    calibration_share: float = 0.0
    unknown_dir: Directories = None
    mask_suffix: str | None = None
    masks_beside_images: bool | None = None
    missing_masks: str = "error"
    mask_reduction: str = "area"
    bit_depth: int | None = None
    mask_threshold: float | None = None
    mask_inverted: bool = False
    mask_orientation: str | None = None
    task: str | None = None
    valid_area_mask: str | None = None
    crop_area: list[int] | None = None
    augment: dict[str, float] | None = None
    passes: int = 1
    tiling: dict[str, Any] | None = None
    categories: str | list[str] | None = None
    k_shots: list[int | str] | None = None
    k_shot_draws: int = 10

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))

    def folders(self) -> dict[str, tuple[str, ...]]:
        """Return the folders that are given by name, by option; options without any are left out."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name.endswith("_dir")}
        as_tuples = {option: (dirs,) if isinstance(dirs, str) else tuple(dirs or ()) for option, dirs in given.items()}
        return {option: dirs for option, dirs in as_tuples.items() if dirs}

    def checked(self) -> "DataOptions":
        """Return the same options, validated, each in the one form that records have; no image or folder is read.

        Raises:
            OptionError: A value that could work with no images at all.
        """
        for option in ("train_batch_size", "eval_batch_size", "num_workers", "passes", "k_shot_draws"):
            check_integer("Folder", option, getattr(self, option), low=0 if option == "num_workers" else 1)
        for option in ("root", "name", *(field.name for field in fields(self) if field.name.endswith("_dir"))):
            _check_texts(option, getattr(self, option), several=option.endswith("_dir"))
        for option in ("test_split_ratio", "val_split_ratio", "calibration_share"):
            check_range("Data", option, getattr(self, option), low=0, high=1)
            if getattr(self, option) == 1:
                raise OptionError(f"Data: {option}=1 would leave nothing behind; it must be in [0, 1).")
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise OptionError(f"Data: seed must be a whole number, got {self.seed!r}.")
        if self.n_val_good is not None:
            check_integer("Data", "n_val_good", self.n_val_good, low=0)
        if self.mask_suffix is not None and not isinstance(self.mask_suffix, str):
            raise OptionError(f"Data: mask_suffix must be a text such as _mask, got {self.mask_suffix!r}.")
        if self.masks_beside_images not in (None, True, False):
            raise OptionError(f"Data: masks_beside_images must be true or false, got {self.masks_beside_images!r}.")
        if self.group is not None:
            compile_pattern(self.group)
        _check_choice("on_duplicate", self.on_duplicate, ON_DUPLICATE)
        _check_choice("missing_masks", self.missing_masks, MISSING_MASKS)
        _check_choice("mask_reduction", self.mask_reduction, MASK_REDUCTIONS)
        if self.bit_depth is not None:
            check_integer("Data", "bit_depth", self.bit_depth, low=1, high=16)
        if self.mask_threshold is not None:
            check_range("Data", "mask_threshold", self.mask_threshold, low=0, high=None)
        if self.mask_inverted not in (True, False):
            raise OptionError(f"Data: mask_inverted must be true or false, got {self.mask_inverted!r}.")
        _check_choice("mask_orientation", self.mask_orientation or MASK_ORIENTATIONS[0], MASK_ORIENTATIONS)
        _check_choice("task", self.task or TASKS[0], TASKS)
        if self.categories is not None:
            self._check_categories()
        tiling = tiling_option(self.tiling)
        checked = replace(
            self,
            name=self.name or None,
            extensions=_check_extensions(self.extensions),
            test_split_mode=_check_mode("test_split_mode", self.test_split_mode, TEST_MODES),
            val_split_mode=_check_mode("val_split_mode", self.val_split_mode, VALIDATION_MODES),
            seed=42 if self.seed is None else self.seed,
            crop_area=None if self.crop_area is None else _check_crop_area(self.crop_area),
            augment=None if self.augment is None else check_augment(self.augment),
            tiling=None if tiling is None else tiling.to_dict(),
            k_shots=None if self.k_shots is None else check_k_shots(self.k_shots),
        )
        if (checked.test_split_mode, checked.val_split_mode) == ("none", "same_as_test"):
            raise OptionError("Data: val_split_mode='same_as_test' needs a test set, but test_split_mode is 'none'.")
        if checked.calibration_share and checked.val_split_mode in ("none", "same_as_test"):
            raise OptionError(
                f"Data: calibration_share={checked.calibration_share:g} holds back good validation images, and with "
                f"val_split_mode={checked.val_split_mode!r} there are none that are not tested. Choose from_test, "
                "from_train or from_dir, or leave calibration_share out."
            )
        if checked.k_shots is not None and checked.categories is not None:
            raise OptionError(
                "Data: k_shots draws from the good images of one dataset, and data.categories names several for one "
                "model: leave one of the two out."
            )
        changing = [option for option in ("augment", "tiling") if getattr(checked, option) is not None]
        if checked.k_shots is not None and changing:
            raise OptionError(
                f"Data: k_shots fits on features of whole images as they are, kept once for all draws: leave "
                f"{changing[0]} out, or k_shots."
            )
        return checked

    def _check_categories(self) -> None:
        """Check the form of `categories`, and that no option is given which describes a single dataset."""
        names = self.categories
        parts = names.split(",") if isinstance(names, str) else names
        if not isinstance(parts, list) or not parts or not all(isinstance(p, str) and p.strip() for p in parts):
            raise OptionError(f"Data: categories must be all, a name or a list of names of folders, got {names!r}.")
        if twice := sorted({part for part in parts if parts.count(part) > 1}):
            raise OptionError(f"Data: categories names {', '.join(twice)} twice.")
        if self.root is None:
            raise OptionError("Data: categories are folders below root: give root too.")
        for option, why in _NOT_WITH_CATEGORIES.items():
            if getattr(self, option) is not None:
                raise OptionError(f"Data: {option} and categories do not go together: {why}.")
        if folders := list(self.folders()):
            raise OptionError(
                f"Data: {', '.join(folders)} and categories do not go together: each category has a layout known by "
                "itself (`defectlab data check` shows it)."
            )

    def to_record(self) -> dict[str, Any]:
        """Return plain data for a run's record: options at their default are left out, but for `ALWAYS_RECORDED`."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        return {f.name: value for f, value in values if f.name in ALWAYS_RECORDED or value != f.default}


def options_signature(own: Iterable[Parameter]) -> Signature:
    """Return the signature of own parameters and, by name only, of every data option that is not among them."""
    parameters = {parameter.name: parameter for parameter in own}
    for option in signature(DataOptions).parameters.values():
        parameters.setdefault(option.name, option.replace(kind=Parameter.KEYWORD_ONLY))
    return Signature(list(parameters.values()))


def options_help() -> str:
    """Return the part of the docstring of `DataOptions` that describes its fields, for other docstrings."""
    return (DataOptions.__doc__ or "").partition("Attributes:\n")[2].rstrip()


def _plain(value: Any) -> Any:
    """Return a value as JSON and YAML have it: text for a path, a list for a sequence, the value of an enum member."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Tiling):
        return value.to_dict()
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        return [_plain(item) for item in value]
    return value


def _check_texts(option: str, value: Any, *, several: bool) -> None:
    texts = value if several and isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in texts):
        words = "a text or a list of texts" if several else "a text"
        raise OptionError(f"Data: {option} must be {words}, got {value!r}.")


def _check_choice(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise OptionError(unknown_name(option, str(value), allowed))


def _check_mode(option: str, mode: str | None, allowed: Sequence[str]) -> str:
    """Return the mode; None is "none", as in anomalib."""
    if mode == "synthetic":
        raise OptionError(
            f"Data: {option}='synthetic' is not offered: figures on painted defects say nothing about real ones. "
            "Give abnormal_dir for real ones; with good images only, leave the mode out and 20% of them validate."
        )
    mode = "none" if mode is None else str(mode)
    _check_choice(option, mode, allowed)
    return mode


def _check_extensions(value: Any) -> list[str] | None:
    endings = [value] if isinstance(value, str) else value or []
    if not isinstance(endings, Sequence) or not all(isinstance(ending, str) for ending in endings):
        raise OptionError(f"Data: extensions must be a list of file endings such as [.png], got {value!r}.")
    return list(endings) or None


def _check_crop_area(value: Sequence[int]) -> list[int]:
    numbers = list(value) if isinstance(value, list | tuple) else []
    if len(numbers) != 4 or any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in numbers):
        raise OptionError(f"Data: crop_area must be [left, top, right, bottom] in whole pixels, got {value!r}.")
    left, top, right, bottom = numbers
    if left >= right or top >= bottom:
        raise OptionError(f"Data: crop_area {numbers} has no pixel: left < right and top < bottom must hold.")
    return numbers
