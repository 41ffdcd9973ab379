"""PyTorch datasets of a manifest's images and of single image files."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from anomalib import TaskType
from anomalib.data import ImageBatch, ImageItem
from anomalib.data.datasets.base.image import AnomalibDataset
from torch.utils.data import Dataset
from torchvision.transforms.v2 import Transform
from torchvision.transforms.v2 import functional as tvf
from torchvision.tv_tensors import Image, Mask

from defectlab.data.manifest.manifest import Entry, Manifest
from defectlab.data.mask_content import NOT_ZERO, MaskReading
from defectlab.data.mask_files import read_mask
from defectlab.data.transforms.mask_reduction import reduce_mask
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.utils.seeds import seeded
from defectlab_runtime.images import read_image


def to_tensor(image: np.ndarray) -> Image:
    """Convert an (H, W, 3) array, uint8 or float in [0, 1], to a (3, H, W) float image in [0, 1]."""
    own = image if image.flags.writeable else image.copy()  # torch warns of arrays that others may read
    return Image(tvf.to_dtype(tvf.to_image(own), torch.float32, scale=True))


def load_image(path: str | Path, bit_depth: int | None = None) -> Image:
    """Read an image file as (3, H, W) float in [0, 1], identically for training, test and prediction.

    `bit_depth` is that of values in 16-bit files (`read_image`).
    """
    return to_tensor(read_image(path, bit_depth))


class ManifestDataset(AnomalibDataset):
    """Dataset of one split of a manifest, in the manifest's order, with anomalib's items."""

    def __init__(
        self,
        manifest: Manifest,
        entries: Sequence[Entry],
        split: str,
        augmentations: Transform | None,
        mask_reduction: str = "area",
    ) -> None:
        super().__init__(augmentations)
        self.mask_reduction = mask_reduction
        self.bit_depth = manifest.protocol.bit_depth
        # Shared memory: workers that live through many epochs see a change.
        self._without_pixels = torch.zeros(1, dtype=torch.bool).share_memory_()
        self.entries = tuple(entries)
        self._category = ""
        self._decoded: dict[int, tuple[Image, Mask | None]] = {}
        self._free_bytes = 0
        self.augmentation_seed: int | None = None  # None: augmentations are not random
        # set past the property, which would sort by path text instead of keeping the manifest's order
        self._samples = pd.DataFrame(
            {
                "image_path": [str(manifest.absolute(entry)) for entry in entries],
                "label_index": [entry.label for entry in entries],
                "mask_path": [str(manifest.absolute_mask(entry) or "") for entry in entries],
                "mask_reading": [manifest.mask_reading(entry) for entry in entries],
                "all_defect": [manifest.is_all_defect(entry) for entry in entries],
                "split": split,
            }
        )
        self._samples.attrs["task"] = (TaskType.SEGMENTATION if manifest.has_masks else TaskType.CLASSIFICATION).value

    @property
    def without_pixels(self) -> bool:
        """Whether items hold one black pixel instead of the image, for a model with features cached by image path."""
        return bool(self._without_pixels)

    @without_pixels.setter
    def without_pixels(self, value: bool) -> None:
        self._without_pixels.fill_(value)

    def cache_decoded(self, max_bytes: int) -> None:
        """Cache decoded and resized images in memory, up to `max_bytes` in total, after clearing the cache."""
        self._decoded = {}
        self._free_bytes = max_bytes

    def __getitem__(self, index: int) -> ImageItem:
        """Return one image, with a mask if the manifest has masks; `index` may exceed the length (`PassSampler`)."""
        pass_number, index = divmod(index, len(self.entries))
        row = self.samples.iloc[index]
        if self.without_pixels:
            return ImageItem(
                image=Image(torch.zeros(3, 1, 1)),
                gt_label=torch.tensor(int(row.label_index)),
                image_path=row.image_path,
            )
        image, mask = self._decoded.get(index) or self._read(row, f"augment {pass_number} {index}")
        if self._free_bytes and index not in self._decoded:
            size = image.nbytes + (0 if mask is None else mask.nbytes)
            if size <= self._free_bytes:
                self._decoded[index] = image, mask
                self._free_bytes -= size
        return ImageItem(
            image=image,
            gt_mask=mask,
            gt_label=torch.tensor(int(row.label_index)),
            image_path=row.image_path,
            mask_path=row.mask_path or None,
        )

    def _read(self, row: Any, purpose: str) -> tuple[Image, Mask | None]:
        image = load_image(row.image_path, self.bit_depth)
        mask = None
        if self.task == TaskType.SEGMENTATION:
            size = (image.shape[-2], image.shape[-1])
            mask = load_mask(
                row.mask_path,
                size,
                row.mask_reading,
                all_defect=row.all_defect,
                mask_reduction=self.mask_reduction,
            )
        if self.augmentations:
            with nullcontext() if self.augmentation_seed is None else seeded(self.augmentation_seed, purpose):
                image, mask = (self.augmentations(image), None) if mask is None else self.augmentations(image, mask)
        return image, mask


def load_mask(
    path: str | Path | None,
    image_size: tuple[int, int],
    reading: MaskReading = NOT_ZERO,
    *,
    all_defect: bool = False,
    mask_reduction: str = "area",
) -> Mask:
    """Read a mask as (H, W) uint8 with 1 where `reading` marks it; without a path, fill it with `all_defect`.

    A mask that is not of its image's size is brought to it by `mask_reduction` (`reduce_mask`).
    """
    if not path:
        return Mask(torch.full(image_size, int(all_defect), dtype=torch.uint8))
    return Mask(torch.from_numpy(reduce_mask(read_mask(path, reading), image_size, mask_reduction).astype(np.uint8)))


def masks_on_input(
    manifest: Manifest, entries: Iterable[Entry], preprocessing: Preprocessing, mask_reduction: str
) -> Iterator[torch.Tensor]:
    """Yield the mask (H, W) of each entry on the model's input, as batches have it; none for a dataset without."""
    if not manifest.has_masks:
        return
    resize, transform = preprocessing.resize(mask_reduction), preprocessing.transform()
    for entry in entries:
        path, size = manifest.absolute_mask(entry), (entry.height, entry.width)
        reading, whole = manifest.mask_reading(entry), manifest.is_all_defect(entry)
        mask = load_mask(path, size, reading, all_defect=whole, mask_reduction=mask_reduction)
        yield transform(resize(mask)).as_subclass(torch.Tensor)


class ImageNames(Dataset):
    """Dataset of image paths and labels with one black pixel for each image, for a model with cached features."""

    def __init__(self, dataset: AnomalibDataset) -> None:
        self.rows = dataset.samples[["image_path", "label_index"]].to_numpy().tolist()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> ImageItem:
        """Return the path and label of one image, with one black pixel."""
        path, label = self.rows[index]
        return ImageItem(image=Image(torch.zeros(3, 1, 1)), gt_label=torch.tensor(int(label)), image_path=path)


class ImageFiles(Dataset):
    """Dataset of image files without labels, resized for a model, for prediction."""

    def __init__(self, files: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.files = list(files)
        self.resize, self.bit_depth = preprocessing.resize(), preprocessing.bit_depth

    name, category = "predict", ""
    collate_fn = staticmethod(ImageBatch.collate)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> ImageItem:
        """Return one resized image with the path of its file."""
        return ImageItem(
            image=self.resize(load_image(self.files[index], self.bit_depth)), image_path=str(self.files[index])
        )
