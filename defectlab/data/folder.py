"""`Folder`, the datamodule that serves a manifest's images and masks as batches."""

import inspect
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule
from anomalib.data import Folder as AnomalibFolder
from anomalib.data.utils import TestSplitMode, ValSplitMode
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import Compose

from defectlab.data.datasets import ImageNames, ManifestDataset
from defectlab.data.manifest.manifest import Entry, Manifest, build_manifest
from defectlab.data.manifest.options import DataOptions, options_help, options_signature
from defectlab.data.manifest.region_options import read_region
from defectlab.data.transforms.augmentations import PassSampler, build_augmentations
from defectlab.data.transforms.tiling import tiling_option
from defectlab.utils import paths
from defectlab.utils.seeds import generator
from defectlab.utils.validation import with_signature
from defectlab_runtime.errors import OptionError
from defectlab_runtime.region import Region

logger = logging.getLogger(__name__)

MAX_DECODED_BYTES = 2**30  # of decoded and resized images kept in memory, for trainings of many epochs
TRANSFORMS = ("train_augmentations", "val_augmentations", "test_augmentations", "augmentations")


def _signature() -> inspect.Signature:
    """Return the signature of `Folder`: anomalib's arguments in order, then the options that anomalib lacks."""
    changed = {"name": None, "normal_dir": None, "normal_split_ratio": None, "test_split_ratio": None, "seed": 42}
    theirs = inspect.signature(AnomalibFolder.__init__).parameters.values()
    return options_signature([p.replace(default=changed.get(p.name, p.default)) for p in theirs])


class Folder(AnomalibDataModule):
    """Folders of good and bad images as a datamodule, with anomalib's arguments over a seeded manifest.

    Images are read and checked on first use (`manifest`), before any training: see `build_manifest` for the layouts,
    splits and rules. `normal_dir` may be left out where `root` has a known layout. `normal_split_ratio` is the share of
    good images moved to the test where there is no `normal_test_dir` (anomalib documents it and reads
    `test_split_ratio`; here both mean that share). `train_augmentations`, `val_augmentations`, `test_augmentations` and
    `augmentations` (for all three) are torchvision transforms; `augment` names changes of training images instead,
    sampled anew each time by the seed. With `passes` an epoch sees each image so many times, and models that fit once,
    PaDiM and PatchCore, fit on all of these views. `valid_area_mask`, `crop_area` and `tiling` go into the checkpoint
    of the model that is trained.

    Raises:
        OptionError: An option that does not exist or cannot work.
        DataError: On first use: everything that is wrong with the images, in one message.
    """

    __doc__ = f"{__doc__}\n    Options:\n{options_help()}\n"

    @with_signature(_signature())
    def __init__(self, **given: Any) -> None:
        transforms = {name: given.pop(name) for name in TRANSFORMS}
        good_ratio, test_ratio = given.pop("normal_split_ratio"), given["test_split_ratio"]
        if given["root"] is None and given["normal_dir"] is None:
            raise OptionError("Folder needs root (a folder in a known layout), or normal_dir, or both.")
        if good_ratio is not None and test_ratio not in (None, good_ratio):
            raise OptionError(
                f"Folder: normal_split_ratio={good_ratio} and test_split_ratio={test_ratio} both name "
                "the share of good images moved to the test; give one."
            )
        ratios = (test_ratio, good_ratio, DataOptions.test_split_ratio)
        given["test_split_ratio"] = next(ratio for ratio in ratios if ratio is not None)
        if given["root"] is not None:
            given["root"] = paths.resolve(given["root"])
        if given["seed"] is None:
            logger.info("Folder: seed=None would split differently on every run; using 42")
        settings = DataOptions(**given).checked()
        assert settings.seed is not None, "checked options have a seed"
        if settings.augment is not None:
            if transforms["train_augmentations"] is not None or transforms["augmentations"] is not None:
                raise OptionError("Folder: give augment (names) or train_augmentations (a transform), not both.")
            transforms["train_augmentations"] = build_augmentations(settings.augment)
        if settings.passes > 1 and transforms["train_augmentations"] is None and transforms["augmentations"] is None:
            raise OptionError(
                f"Folder: passes={settings.passes} over images that nothing changes would see the same: augment."
            )
        super().__init__(
            train_batch_size=settings.train_batch_size,
            eval_batch_size=settings.eval_batch_size,
            num_workers=settings.num_workers,
            test_split_mode=TestSplitMode(settings.test_split_mode),
            test_split_ratio=settings.test_split_ratio,
            val_split_mode=ValSplitMode(settings.val_split_mode),
            val_split_ratio=settings.val_split_ratio,
            seed=settings.seed,
            **transforms,
        )
        self.settings = settings
        self._resumed: tuple[torch.Tensor, int] | None = None  # order of batches and passes done, of a checkpoint
        self.seed: int = settings.seed
        self.test_split_ratio = settings.test_split_ratio  # anomalib turns 0 into 0.5
        self.val_split_ratio = settings.val_split_ratio
        self.root = None if settings.root is None else Path(settings.root)
        self.passes = settings.passes
        self.tiling = tiling_option(settings.tiling)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of all images with split, label, mask and hash, built and checked on first access."""
        manifest = build_manifest(**vars(self.settings))
        self._is_setup = True
        return manifest

    @cached_property
    def region(self) -> Region | None:
        """The region of every image that models see; None for the whole image."""
        if self.settings.valid_area_mask is None and self.settings.crop_area is None:
            return None
        return read_region(self.root or self.manifest.root, self.settings)

    @property
    def training_samples(self) -> int:
        """Number of images in one training epoch, with each image counted once for each pass."""
        return len(self.training_entries) * self.passes

    @property
    def training_entries(self) -> tuple[Entry, ...]:
        """The images that a training sees."""
        return self.manifest.split("train")

    @property
    def name(self) -> str:
        """The dataset's name, from the options or else from the manifest."""
        return self.settings.name or self.manifest.name

    @property
    def options(self) -> dict[str, Any]:
        """The arguments as plain data, for records."""
        augmentations = {
            f"{split}_augmentations": repr(augmentation)
            for split in ("train", "val", "test")
            if (augmentation := getattr(self, f"{split}_augmentations"))
            and not (split == "train" and self.settings.augment)
        }
        loading = {name: getattr(self, name) for name in ("train_batch_size", "eval_batch_size", "num_workers")}
        return self.settings.to_record() | loading | augmentations  # a search for the batch size changes it

    def setup(self, stage: str | None = None) -> None:
        """Create the train, validation and test datasets from the manifest once; later calls reuse them."""
        del stage
        if not hasattr(self, "train_data"):
            for split, attribute in (("train", "train"), ("validation", "val"), ("test", "test")):
                entries = self.training_entries if split == "train" else self.manifest.split(split)
                dataset = ManifestDataset(self.manifest, entries, attribute, None, self.settings.mask_reduction)
                setattr(self, f"{attribute}_data", dataset)
        self._update_augmentations()

    def _setup(self, _stage: str | None = None) -> None:
        raise AssertionError("setup() makes the datasets itself")

    def _update_augmentations(self) -> None:
        """Set the datasets' augmentations and the model's resizing, so that images of many sizes fit in one batch."""
        module = getattr(self.trainer, "lightning_module", None)
        preprocessing = getattr(module, "preprocessing", None)
        if preprocessing is None:
            super()._update_augmentations()
            return
        for split in ("train", "val", "test"):
            own = getattr(self, f"{split}_augmentations")
            parts = [] if own is None else own.transforms if isinstance(own, Compose) else [own]
            transforms = [*preprocessing.region_crop(), *parts, preprocessing.sized(self.settings.mask_reduction)]
            dataset = getattr(self, f"{split}_data")
            dataset.augmentations = Compose(transforms)
            dataset.bit_depth = preprocessing.bit_depth
            dataset.augmentation_seed = None if own is None else self.seed
            # Workers end with the epoch and what they keep with them. Persistent ones would draw fewer seeds, and so
            # make the order of batches depend on the number of workers.
            repeats = split != "test" and own is None and self.num_workers == 0
            dataset.cache_decoded(
                MAX_DECODED_BYTES // 2 if repeats and getattr(self.trainer, "max_epochs", 1) != 1 else 0
            )

    def resume_batches(self, state: torch.Tensor, passes: int) -> None:
        """Let the next training begin with the order of batches in a state that a checkpoint holds."""
        self._resumed = (state, passes)

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches in an order set by the seed, with names only for a model that needs no pixels."""
        module = getattr(self.trainer, "lightning_module", None)
        names = module is not None and getattr(module, "trains_on_names", lambda _: False)(self)
        random, passes_done = generator(self.seed, "batches"), 0
        if self._resumed is not None:
            state, passes_done = self._resumed
            random.set_state(state)
            self._resumed = None
        if self.train_augmentations is not None and not names:
            sampler = PassSampler(len(self.train_data), self.passes, random)
            sampler.done = passes_done
            return DataLoader(
                self.train_data,
                sampler=sampler,
                batch_size=self.train_batch_size,
                num_workers=self.num_workers,
                collate_fn=self.external_collate_fn or self.train_data.collate_fn,
                generator=random,
            )
        return DataLoader(
            ImageNames(self.train_data) if names else self.train_data,
            shuffle=True,
            batch_size=self.train_batch_size,
            num_workers=0 if names else self.num_workers,
            collate_fn=self.external_collate_fn or self.train_data.collate_fn,
            generator=random,
        )
