"""Models that fit once, on the embeddings of all training images."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from defectlab.kernels.rotation import angles, rotate
from defectlab.models.base import BaseDetector
from defectlab.utils.validation import check_integer
from defectlab_runtime.errors import InputError

if TYPE_CHECKING:
    from defectlab.backbones.feature_cache.extraction import Features
    from defectlab.data.manifest.manifest import Entry

BATCH_SIZE = 16  # images, of cached features


def rotations_option(owner: str, rotations: int) -> dict[str, int]:
    """Return the option `rotations` of a model as it is recorded: only where images are rotated.

    Runs from before there was this option stay the same experiment.

    Raises:
        OptionError: It is no whole number of at least 1.
    """
    check_integer(owner, "rotations", rotations, low=1, high=360)
    return {} if rotations == 1 else {"rotations": rotations}


class MemoryBankDetector(BaseDetector):
    """A model that fits once on the embeddings of all training images, in the order of the manifest."""

    fits_once: ClassVar[bool] = True
    tiled_by: ClassVar[str | None] = "features"
    _earlier: list[int] | None = None
    rows_are_patches: ClassVar[bool] = False  # then embeddings are kept patch by patch, of which rows are no copy

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Height and width of an image's grid of patches, which the first layer has."""
        shapes = self.model.feature_extractor.feature_shapes(self.preprocessing.map_size)
        _, height, width = shapes[self.model.layers[0]]
        return height, width

    @property
    def rotations(self) -> int:
        """The number of orientations in which each training image is embedded; 1: as it is."""
        return self.options.get("rotations", 1)

    def orientations(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield training images (B, 3, H, W) rotated by each angle, first as they are."""
        return (rotate(images, degrees) if degrees else images for degrees in angles(self.rotations))

    def begin_adding(self, positions: Sequence[int]) -> None:
        """Let the next fit add its images to those of the present fit, instead of replacing it.

        Args:
            positions: In the manifest of the next fit, of each image in the manifest of the present one.

        Raises:
            InputError: The model is not fitted, or lacks what adding needs.
        """
        problem = self.adding_problem() if self.is_fitted else "has not been fitted: train it first"
        if problem:
            raise InputError(f"No images can be added: this {self.name} {problem}.")
        self._earlier = list(positions)

    @property
    def adds(self) -> bool:
        """Whether the next fit adds to the present one; see `begin_adding`."""
        return self._earlier is not None

    def adding_problem(self) -> str | None:
        """Return why no images can be added to the fitted model, with the fix; None: they can."""
        return None

    def on_train_end(self) -> None:
        """Let later fits replace the present one."""
        self._earlier = None

    def on_train_start(self) -> None:
        """Discard an earlier fit, so that a second `fit` uses only the data of the second training."""
        self._is_fitted = torch.tensor([False], device=self.device)
        self._embeddings: list[tuple[list[str], torch.Tensor]] = []

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Store the embeddings (B, C, h, w) of one training batch, in each orientation."""
        del args, kwargs
        with torch.no_grad():
            for images in self.orientations(batch.image):
                self._embeddings.append((list(batch.image_path), self.model.embed(self.model.features(images))))
        return torch.tensor(0.0, requires_grad=True, device=self.device)

    def fit(self) -> None:
        """Fit on the stored embeddings, sorted as in the manifest, so that the order of batches does not matter.

        An image that was seen several times, rotated or each time augmented anew, counts as often: pass by pass, and
        in each pass orientation by orientation.
        """
        data = self._datamodule
        manifest = getattr(data, "manifest", None)
        paths = [path for batch_paths, _ in self._embeddings for path in batch_paths]
        keys: list[Any] = paths if manifest is None else [manifest.index(path) for path in paths]
        order = sorted(range(len(paths)), key=keys.__getitem__)  # stable: the passes of an image stay in their order
        places = torch.empty(len(paths), dtype=torch.long)
        places[order] = torch.arange(len(paths))
        _, first = self._embeddings[0]
        # A batch is copied to its places and dropped: on the CPU, where untouched memory costs nothing, the embeddings
        # exist once; on a GPU twice for a moment.
        layout = torch.channels_last if self.rows_are_patches else torch.contiguous_format
        shape = (len(paths), *first.shape[1:])
        stacked = torch.empty(shape, dtype=first.dtype, device=first.device, memory_format=layout)
        del first
        for batch_places in places.split([len(batch_paths) for batch_paths, _ in self._embeddings]):
            stacked[batch_places] = self._embeddings.pop(0)[1]
        self.fit_embedding(stacked)
        if manifest is not None and getattr(data, "train_augmentations", None) is None:
            self.fitted_on(sorted(keys), (stacked.shape[-2], stacked.shape[-1]))

    def fit_embedding(self, embedding: torch.Tensor) -> None:
        """Fit the torch model on the embeddings (N, C, h, w) of all images, in each orientation."""
        fit = self.model.extend if self.adds else self.model.fit
        fit(self.model.rows(embedding))

    def fitted_on(self, images: Sequence[int], grid: tuple[int, int]) -> None:
        """Receive the fitted images' positions in the manifest, and height and width of the patch grid.

        An image is listed once for each orientation in which it was embedded, in their order.
        """


def embed(model: Any, features: "Features", entries: "Sequence[Entry]", device: torch.device) -> torch.Tensor:
    """Return a torch model's embeddings (n, C, h, w) of images from their features, in the order of `entries`."""
    result = torch.empty(0)
    for begin in range(0, len(entries), BATCH_SIZE):
        chunk = features.of(entries[begin : begin + BATCH_SIZE], model.layers)
        with torch.no_grad():
            part = model.embed({layer: values.to(device) for layer, values in chunk.items()})
        if not begin:
            result = torch.empty((len(entries), *part.shape[1:]), dtype=part.dtype, device=device)
        result[begin : begin + len(part)] = part
    return result
