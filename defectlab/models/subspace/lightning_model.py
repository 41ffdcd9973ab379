"""SubspaceAD: distance of patches to the principal subspace of good ones (Lendering et al., 2026, arXiv:2602.23013)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from anomalib import LearningType
from anomalib.models.components import MemoryBankMixin
from torch import nn

from defectlab.kernels.subspace import PatchSums
from defectlab.models.checkpoint import CHECKPOINT_KEY
from defectlab.models.checks import check_layers, check_map_size
from defectlab.models.memory_bank import MemoryBankDetector, rotations_option
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.models.subspace.torch_model import SubspaceModel
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import OptionError

SUMS = "sums"  # of the good patches, in a checkpoint's record


class Subspace(MemoryBankMixin, MemoryBankDetector):
    """A PCA of good patches' features; what it leaves of a patch is the patch's anomaly. Nothing is trained.

    A patch's score is its squared distance to the subspace through the good patches' mean; the map is these scores,
    upsampled and smoothed. The fit is exact and comes from sums in float64: memory does not grow with the images.

    The authors' code takes DINOv2 ViT-G/14 with registers at 672 x 672, the mean of its blocks 22 to 28
    (`configs/few_shot_subspace.yaml`), squared distances, and the two defaults below.

    Args:
        backbone: From `load_backbone`, a torch module, or a name whose weights are at hand.
        layers: In any order; the first one's size is the patch grid. Those joined by `+` are averaged.
        pre_trained: For a name: True looks for its weights locally. Ignored for a module.
        explained_variance: Share of the good patches' variance that the subspace holds, in (0, 1]: the fewest
            directions that do.
        n_components: So many directions instead.
        rotations: In how many orientations each training image counts, 360 / `rotations` degrees apart, of which the
            first is its own; for few images, and for parts that come in any orientation.
        top_share: An image's score is the mean of this share of its map's highest values, in [0, 1]; 0 is the highest.

    Raises:
        OptionError: An option that cannot work.
        WeightsError: A layer whose weights are missing from the file.
    """

    model_name: ClassVar[str] = "subspace"
    model: SubspaceModel

    @takes_shared_arguments
    def __init__(
        self,
        backbone: str | nn.Module = "resnet18",
        layers: Sequence[str] = ("layer2", "layer3"),
        pre_trained: bool = True,
        explained_variance: float = 0.99,
        n_components: int | None = None,
        top_share: float = 0.01,
        rotations: int = 1,
        shared: SharedArguments = DEFAULTS,
    ) -> None:
        layers = check_layers("Subspace", layers)
        check_range("Subspace", "explained_variance", explained_variance, low=0, high=1, open_low=True)
        check_range("Subspace", "top_share", top_share, low=0, high=1)
        explained_variance, top_share = float(explained_variance), float(top_share)  # 1 and 1.0 are one experiment
        network = self.resolve_backbone(backbone, pre_trained, shared.seed)
        model = SubspaceModel(network, layers, explained_variance, n_components, top_share)
        if n_components is not None:
            channels = sum(model.feature_extractor.out_dims)
            check_integer("Subspace", "n_components", n_components, low=1)
            if n_components >= channels:
                raise OptionError(
                    f"Subspace: n_components must be 1 to {channels - 1}, fewer than the channels of "
                    f"{', '.join(layers)}, so that something can lie outside the subspace; got {n_components}."
                )
        self.set_up(
            super().__init__,
            options={
                "layers": layers,
                "explained_variance": explained_variance,
                **({} if n_components is None else {"n_components": n_components}),
                "top_share": top_share,
                **rotations_option("Subspace", rotations),
            },
            backbone=network,
            shared=shared,
        )
        check_map_size("Subspace", self.preprocessing.input_size)
        self.model = model
        self._sums: PatchSums | None = None

    @property
    def learning_type(self) -> LearningType:
        """Learning type of the model: it is fitted to good images only."""
        return LearningType.ONE_CLASS

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments for Lightning's Trainer: one pass over the images."""
        return {"max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1}

    @staticmethod
    def configure_optimizers() -> None:
        """Return no optimiser: nothing is trained."""

    def adding_problem(self) -> str | None:
        """Return why no images can be added: a checkpoint that was made without the sums."""
        return "has no sums in its checkpoint: train it again on all images" if self.model.sums is None else None

    def on_train_start(self) -> None:
        """Discard an earlier fit."""
        super().on_train_start()
        self._sums = None

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Add the patches of one training batch, in each orientation, to the sums."""
        del args, kwargs
        with torch.no_grad():
            for images in self.orientations(batch.image):
                sums = PatchSums.of(self.model.rows(self.model.embed(self.model.features(images))))
                self._sums = sums if self._sums is None else self._sums + sums
        return torch.tensor(0.0, requires_grad=True, device=self.device)

    def fit(self) -> None:
        """Fit the subspace to the sums of all training patches, those of an earlier fit too if images are added."""
        assert self._sums is not None
        self.model.fit(self.model.sums + self._sums if self.adds and self.model.sums is not None else self._sums)
        self._sums = None
        self.notes = {**self.notes, "subspace": self.model.summary}

    def fit_embedding(self, embedding: torch.Tensor) -> None:
        """Fit the subspace to the embeddings (N, C, h, w) of good images."""
        self.model.fit(PatchSums.of(self.model.rows(embedding)))

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Score one validation batch."""
        del args, kwargs
        return batch.update(**self.model(batch.image)._asdict())

    def test_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Score one test batch, as in validation."""
        return self.validation_step(batch, *args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the sums to the record: images can be added to them later (see `PatchSums`)."""
        super().on_save_checkpoint(checkpoint)
        if self.model.sums is not None:
            checkpoint[CHECKPOINT_KEY][SUMS] = dict(vars(self.model.sums))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the sums; None if the checkpoint has none."""
        super().on_load_checkpoint(checkpoint)
        sums = checkpoint.get(CHECKPOINT_KEY, {}).get(SUMS)
        self.model.sums = None if sums is None else PatchSums(**sums)


__all__ = ["Subspace", "SubspaceModel"]
