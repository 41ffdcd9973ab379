"""The datamodule: a manifest's images and masks as batches."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from anomalib import TaskType
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import TestSplitMode, ValSplitMode
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose, Transform

from defectlab.data.datasets import ImageFiles, ImageNames, ManifestDataset, load_image, load_mask, to_tensor
from defectlab.data.manifest.groups import compiled
from defectlab.data.manifest.manifest import Manifest, build_manifest
from defectlab.data.manifest.region_options import check_crop_area, read_area
from defectlab.data.transforms.augmentations import Augment, Passes, build_augmentations, checked_augment
from defectlab.data.transforms.region import Area
from defectlab.data.transforms.tiling import Tiling
from defectlab.utils import paths
from defectlab.utils.errors import OptionError, unknown_name
from defectlab.utils.seeds import generator
from defectlab.utils.validation import check_whole, checked_options

logger = logging.getLogger(__name__)

Directory = str | Path | Sequence[str | Path]

KEPT_BYTES = 2**30  # of decoded and resized images, for trainings of many epochs


class Folder(AnomalibDataModule):
    """Folders of good and bad images as a datamodule, with anomalib's arguments over a seeded manifest.

    Everything is read and checked on first use (`manifest`), before any training: see `build_manifest` for the layouts,
    splits and rules. `normal_dir` may be left out where `root` has a known layout. `normal_split_ratio` is the share of
    good images moved to the test where there is no `normal_test_dir` (anomalib documents it and reads
    `test_split_ratio`; here both mean that share). `on_duplicate="warn"` lets equal files in training and test pass.
    `unknown_dir`, `mask_suffix`, `missing_masks`, `task`, `valid_area_mask` and `crop_area` are `build_manifest`'s; the
    last two go with the model that is trained, into its checkpoint.
    `augment` changes training images by name (`data.transforms.augmentations`), anew each time by the seed; with
    `passes` an epoch sees each so many times, and models that fit once, PaDiM and PatchCore, fit on all of these views.
    `tiling` (see `Tiling`) lets the model look at large images tile by tile; it goes into the checkpoint too.
    `group` names the part that each image shows, by a regular expression on its path; `n_val_good` good training images
    validate too (`build_manifest`).

    Raises:
        OptionError: An option that does not exist or cannot work.
        DataError: On first use: everything that is wrong with the images, in one message.
    """

    @checked_options
    def __init__(
        self,
        name: str | None = None,
        normal_dir: Directory | None = None,
        root: str | Path | None = None,
        abnormal_dir: Directory | None = None,
        normal_test_dir: Directory | None = None,
        mask_dir: Directory | None = None,
        normal_split_ratio: float | None = None,
        extensions: Sequence[str] | None = None,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int = 8,
        train_augmentations: Transform | None = None,
        val_augmentations: Transform | None = None,
        test_augmentations: Transform | None = None,
        augmentations: Transform | None = None,
        test_split_mode: TestSplitMode | str = TestSplitMode.FROM_DIR,
        test_split_ratio: float | None = None,
        val_split_mode: ValSplitMode | str = ValSplitMode.FROM_TEST,
        val_split_ratio: float = 0.5,
        seed: int | None = 42,
        normal_val_dir: Directory | None = None,
        abnormal_val_dir: Directory | None = None,
        val_mask_dir: Directory | None = None,
        on_duplicate: str = "error",
        group: str | None = None,
        n_val_good: int | None = None,
        unknown_dir: Directory | None = None,
        mask_suffix: str | None = None,
        missing_masks: str = "error",
        task: TaskType | str | None = None,
        valid_area_mask: str | Path | None = None,
        crop_area: Sequence[int] | None = None,
        augment: Augment | None = None,
        passes: int = 1,
        tiling: Mapping[str, Any] | Tiling | None = None,
    ) -> None:
        if root is None and normal_dir is None:
            raise OptionError("Folder needs root (a folder in a known layout), or normal_dir, or both.")
        for option, value, low in (
            ("train_batch_size", train_batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            check_whole("Folder", option, value, low=low)
        if normal_split_ratio is not None and test_split_ratio not in (None, normal_split_ratio):
            raise OptionError(
                f"Folder: normal_split_ratio={normal_split_ratio} and test_split_ratio={test_split_ratio} both name "
                "the share of good images moved to the test; give one."
            )
        if seed is None:
            seed = 42
            logger.info("Folder: seed=None would split differently on every run; using 42")
        ratio = next((value for value in (test_split_ratio, normal_split_ratio) if value is not None), 0.2)
        test_mode = _mode("test_split_mode", test_split_mode, TestSplitMode)
        val_mode = _mode("val_split_mode", val_split_mode, ValSplitMode)
        if group is not None:
            compiled(group)
        if n_val_good is not None:
            check_whole("Folder", "n_val_good", n_val_good, low=0)
        self.augment = None if augment is None else checked_augment(augment)
        if self.augment is not None:
            if train_augmentations is not None or augmentations is not None:
                raise OptionError("Folder: give augment (names) or train_augmentations (a transform), not both.")
            train_augmentations = build_augmentations(self.augment)
        self.tiling = Tiling.of(tiling)
        check_whole("Folder", "passes", passes, low=1)
        if passes > 1 and train_augmentations is None and augmentations is None:
            raise OptionError(f"Folder: passes={passes} over images that nothing changes would see the same: augment.")
        self.passes = passes
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_augmentations=val_augmentations,
            test_augmentations=test_augmentations,
            augmentations=augmentations,
            test_split_mode=test_mode,
            test_split_ratio=ratio,
            val_split_mode=val_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        self.seed: int = seed
        self.test_split_ratio, self.val_split_ratio = ratio, val_split_ratio  # anomalib turns 0 into 0.5
        self._name = name
        self.root = None if root is None else paths.resolve(root)
        self.directories = {
            "normal_dir": normal_dir,
            "normal_test_dir": normal_test_dir,
            "abnormal_dir": abnormal_dir,
            "mask_dir": mask_dir,
            "normal_val_dir": normal_val_dir,
            "abnormal_val_dir": abnormal_val_dir,
            "val_mask_dir": val_mask_dir,
            "unknown_dir": unknown_dir,
        }
        self.extensions = tuple(extensions) if extensions else None
        self.on_duplicate = on_duplicate
        self.group = group
        self.n_val_good = n_val_good
        self.mask_suffix = mask_suffix
        self.missing_masks = missing_masks
        self.wanted_task = None if task is None else str(getattr(task, "value", task))
        self.valid_area_mask = None if valid_area_mask is None else str(valid_area_mask)
        box = check_crop_area(crop_area)
        self.crop_area = None if box is None else list(box)

    @cached_property
    def manifest(self) -> Manifest:
        """Every image with its split, label, mask and hash; built and checked once."""
        manifest = build_manifest(
            self.root,
            name=self._name,
            extensions=self.extensions,
            test_split_mode=self.test_split_mode,
            test_split_ratio=self.test_split_ratio,
            val_split_mode=self.val_split_mode,
            val_split_ratio=self.val_split_ratio,
            seed=self.seed,
            on_duplicate=self.on_duplicate,
            group=self.group,
            n_val_good=self.n_val_good,
            mask_suffix=self.mask_suffix,
            missing_masks=self.missing_masks,
            task=self.wanted_task,
            valid_area_mask=self.valid_area_mask,
            crop_area=self.crop_area,
            **self.directories,
        )
        self._is_setup = True
        return manifest

    @cached_property
    def area(self) -> Area | None:
        """What part of every image is looked at; None is all of it."""
        if self.valid_area_mask is None and self.crop_area is None:
            return None
        return read_area(self.root or self.manifest.root, self.valid_area_mask, self.crop_area)

    @property
    def training_views(self) -> int:
        """How many images one epoch of training sees: each as often as there are passes."""
        return len(self.manifest.split("train")) * self.passes

    @property
    def name(self) -> str:
        """The dataset's name: given, or the root's own."""
        return self._name or self.manifest.name

    @property
    def options(self) -> dict[str, Any]:
        """The arguments as plain data, for records."""
        directories = {key: _plain(value) for key, value in self.directories.items() if value is not None}
        given: dict[str, Any] = {"on_duplicate": self.on_duplicate} if self.on_duplicate != "error" else {}
        given |= {"group": self.group} if self.group is not None else {}
        given |= {"n_val_good": self.n_val_good} if self.n_val_good is not None else {}
        given |= {"mask_suffix": self.mask_suffix} if self.mask_suffix is not None else {}
        given |= {"missing_masks": self.missing_masks} if self.missing_masks != "error" else {}
        given |= {"task": self.wanted_task} if self.wanted_task is not None else {}
        given |= {"valid_area_mask": self.valid_area_mask} if self.valid_area_mask is not None else {}
        given |= {"crop_area": self.crop_area} if self.crop_area is not None else {}
        augmentations = {
            f"{split}_augmentations": repr(augmentation)
            for split in ("train", "val", "test")
            if (augmentation := getattr(self, f"{split}_augmentations")) and not (split == "train" and self.augment)
        }
        given |= {"augment": self.augment} if self.augment is not None else {}
        given |= {"passes": self.passes} if self.passes > 1 else {}
        given |= {"tiling": self.tiling.to_dict()} if self.tiling is not None else {}
        return {
            "root": None if self.root is None else str(self.root),
            **({"name": self._name} if self._name else {}),
            **directories,
            **({"extensions": list(self.extensions)} if self.extensions else {}),
            "train_batch_size": self.train_batch_size,
            "eval_batch_size": self.eval_batch_size,
            "num_workers": self.num_workers,
            "test_split_mode": self.test_split_mode.value,
            "test_split_ratio": self.test_split_ratio,
            "val_split_mode": self.val_split_mode.value,
            "val_split_ratio": self.val_split_ratio,
            "seed": self.seed,
            **given,
            **augmentations,
        }

    def setup(self, stage: str | None = None) -> None:
        """Make the three datasets from the manifest; the same ones however often and by whomever it is called."""
        del stage
        if not hasattr(self, "train_data"):
            for split, attribute in (("train", "train"), ("validation", "val"), ("test", "test")):
                entries = self.manifest.split(split)
                setattr(self, f"{attribute}_data", ManifestDataset(self.manifest, entries, attribute, None))
        self._update_augmentations()

    def _setup(self, _stage: str | None = None) -> None:
        raise AssertionError("setup() makes the datasets itself")

    def _update_augmentations(self) -> None:
        """Resize as the fitted model asks for, so that images of many sizes make one batch."""
        module = getattr(self.trainer, "lightning_module", None)
        preprocessing = getattr(module, "preprocessing", None)
        if preprocessing is None:
            super()._update_augmentations()
            return
        for split in ("train", "val", "test"):
            own = getattr(self, f"{split}_augmentations")
            parts = [] if own is None else own.transforms if isinstance(own, Compose) else [own]
            transforms = [*preprocessing.area_cut(), *parts, preprocessing.sized()]
            dataset = getattr(self, f"{split}_data")
            dataset.augmentations = Compose(transforms)
            dataset.draws_by = None if own is None else self.seed
            # Workers end with the epoch and what they keep with them. Persistent ones would draw fewer seeds, and so
            # make the order of batches depend on the number of workers.
            again = split != "test" and own is None and self.num_workers == 0
            dataset.keep_decoded(KEPT_BYTES // 2 if again and getattr(self.trainer, "max_epochs", 1) != 1 else 0)

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches; the order is the seed's alone. A model that needs no pixels gets names only."""
        module = getattr(self.trainer, "lightning_module", None)
        names = module is not None and getattr(module, "trains_on_names", lambda _: False)(self)
        if self.train_augmentations is not None and not names:
            draws = generator(self.seed, "batches")
            return DataLoader(
                self.train_data,
                sampler=Passes(len(self.train_data), self.passes, draws),
                batch_size=self.train_batch_size,
                num_workers=self.num_workers,
                collate_fn=self.external_collate_fn or self.train_data.collate_fn,
                generator=draws,
            )
        return DataLoader(
            ImageNames(self.train_data) if names else self.train_data,
            shuffle=True,
            batch_size=self.train_batch_size,
            num_workers=0 if names else self.num_workers,
            collate_fn=self.external_collate_fn or self.train_data.collate_fn,
            generator=generator(self.seed, "batches"),
        )


def _mode(option: str, value: Any, modes: type[TestSplitMode] | type[ValSplitMode]) -> Any:
    allowed = [mode.value for mode in modes]
    if getattr(value, "value", value) not in allowed:
        raise OptionError(f"Folder: {unknown_name(option, str(value), allowed)}")
    return modes(value)


def _plain(value: Directory) -> Any:
    return str(value) if isinstance(value, str | Path) else [str(item) for item in value]


__all__ = ["Folder", "ImageFiles", "ImageNames", "ManifestDataset", "load_image", "load_mask", "to_tensor"]
