"""CFlow: conditional normalising flows over backbone features (Gudovskiy et al., 2021, arXiv:2107.12571)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from anomalib.models.image.cflow.lightning_model import Cflow as AnomalibCflow
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import nn

from defectlab.data.datasets import ManifestDataset
from defectlab.models.cflow.torch_model import CflowModel
from defectlab.models.checks import check_layers
from defectlab.models.feature_scaling import recorded
from defectlab.models.frozen_features import FrozenBackboneDetector, features_repeat
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.seeds import generator
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import OptionError


class Cflow(FrozenBackboneDetector, AnomalibCflow):
    """anomalib's CFlow with a local backbone, seeded flows, scores free of the batch, a checkpoint that reloads.

    Args:
        backbone: From `load_backbone`, a torch module, or a name whose weights are at hand.
        layers: Each gets a flow of its own.
        pre_trained: For a name: True looks for its weights locally. Ignored for a module.
        fiber_batch_size: Positions per optimiser step in training.
        decoder: "freia-cflow", the only one.
        condition_vector: Length of the position encoding, a multiple of 4.
        coupling_blocks: Length of each flow.
        clamp_alpha: Limit of the affine couplings.
        permute_soft: Random rotations instead of permutations between blocks.
        lr: Adam's learning rate.
        scale_features: Standardise each channel of the features by the good training images (`FeatureScaling`).
        seed: Initialises the flows and orders the fibers.

    Raises:
        OptionError: An option that cannot work.
        WeightsError: A layer whose weights are missing from the file.
    """

    model_name: ClassVar[str] = "cflow"

    @takes_shared_arguments
    def __init__(
        self,
        backbone: str | nn.Module = "wide_resnet50_2",
        layers: Sequence[str] = ("layer2", "layer3", "layer4"),
        pre_trained: bool = True,
        fiber_batch_size: int = 64,
        decoder: str = "freia-cflow",
        condition_vector: int = 128,
        coupling_blocks: int = 8,
        clamp_alpha: float = 1.9,
        permute_soft: bool = False,
        lr: float = 1e-4,
        scale_features: bool = False,
        shared: SharedArguments = DEFAULTS,
    ) -> None:
        layers = check_layers("Cflow", layers)
        for name, value in (("fiber_batch_size", fiber_batch_size), ("coupling_blocks", coupling_blocks)):
            check_integer("Cflow", name, value, low=1)
        check_range("Cflow", "lr", lr, low=0, open_low=True)
        check_range("Cflow", "clamp_alpha", clamp_alpha, low=0, open_low=True)
        check_integer("Cflow", "condition_vector", condition_vector, low=4)
        if decoder != "freia-cflow":
            raise OptionError(f"Cflow: decoder must be 'freia-cflow', got {decoder!r}.")
        if condition_vector % 4:
            raise OptionError(f"Cflow: condition_vector must be a multiple of 4, got {condition_vector!r}.")
        network = self.resolve_backbone(backbone, pre_trained, shared.seed)
        options = {
            "fiber_batch_size": fiber_batch_size,
            "decoder": decoder,
            "condition_vector": condition_vector,
            "coupling_blocks": coupling_blocks,
            "clamp_alpha": clamp_alpha,
            "permute_soft": permute_soft,
        }
        model = CflowModel(network, layers, **options, seed=shared.seed, scale_features=scale_features)  # type: ignore[arg-type]
        self.set_up(
            super(AnomalibCflow, self).__init__,
            options={"layers": layers, **options, "lr": lr, **recorded(scale_features)},
            backbone=network,
            shared=shared,
        )
        self.model = model
        self.automatic_optimization = False
        self.learning_rate = lr

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return anomalib's Adam over the decoders, each as one tensor, in its fused form: one pass instead of ten."""
        return torch.optim.Adam(self.model.tie(), lr=self.learning_rate, fused=True)

    def trains_on_names(self, datamodule: Any) -> bool:
        """Whether training needs no pixels, because features are in a cache and images are not augmented."""
        return self._cached is not None and features_repeat(datamodule)

    def on_train_start(self) -> None:
        """Store embeddings from the first epoch on, where they are the same in each and no cache has the features."""
        super().on_train_start()
        several = self.trainer.max_epochs != 1 and self.preprocessing.tiling is None  # an image's tiles share its path
        if several and self._cached is None and features_repeat(self._datamodule):
            self.open_store("train")
        self._leave_out_pixels()

    def on_train_epoch_end(self) -> None:
        """Stop reading images once all embeddings are stored."""
        self._leave_out_pixels()

    def on_train_end(self) -> None:
        """Drop the store, and give the flows' tensors their gradients again."""
        super().on_train_end()
        self._leave_out_pixels()
        self.model.untie()

    def _leave_out_pixels(self) -> None:
        """Tell the training's dataset whether the next epoch needs pixels."""
        dataset = getattr(self._datamodule, "train_data", None)
        if isinstance(dataset, ManifestDataset):
            dataset.without_pixels = self._store is not None and self._store.complete

    def on_train_epoch_start(self) -> None:
        """Order the fibers of each epoch by a stream of its own, so that a resumed training draws the same."""
        self._fiber_order = generator(self.seed, f"cflow fibers of epoch {self.current_epoch}")

    def training_step(self, batch: Any, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Step the optimiser on every fiber batch of one batch of images; logs the summed loss as anomalib does."""
        del args, kwargs
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)  # one optimiser, so no list
        embedding = self.embedding(batch)
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        optimizer.zero_grad()
        for losses in self.model.fit(embedding, self._fiber_order):
            self.manual_backward(losses.mean())
            optimizer.step()
            optimizer.zero_grad()
            total += losses.detach().sum()
        self.log("train_loss", total.item(), on_epoch=True, prog_bar=True, logger=True, batch_size=len(embedding[0]))
        return {"loss": total}

    def validation_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Score one batch, from the cache's features where it has them."""
        del args, kwargs
        features = self.cached_features(batch)
        size = self.preprocessing.input_size
        predictions = self.model(batch.image) if features is None else self.model.scored(features, size)
        return batch.update(**predictions._asdict())

    def test_step(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Score one test batch, as in validation."""
        return self.validation_step(batch, *args, **kwargs)


__all__ = ["Cflow"]
