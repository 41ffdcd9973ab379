"""PatchCore: distance to the nearest patch of a coreset of good ones (Roth et al., 2022, arXiv:2106.08265)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from anomalib import PrecisionType
from anomalib.models.image.patchcore.lightning_model import Patchcore as AnomalibPatchcore
from torch import nn

from defectlab.kernels.coreset.cost import coreset_size
from defectlab.kernels.projection import projected_size
from defectlab.kernels.rotation import angles
from defectlab.models.checkpoint import CHECKPOINT_KEY
from defectlab.models.checks import check_layers, check_map_size
from defectlab.models.memory_bank import MemoryBankDetector, rotations_option
from defectlab.models.patchcore.torch_model import SAMPLINGS, SCORES, PatchcoreModel
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import OptionError, unknown_name

NOT_PLAIN = ("bank_sampling", "score_computation", "compress_memory_bank")  # options: recorded where not the usual


@dataclass(frozen=True)
class BankOrigin:
    """Where each row of a memory bank comes from, (M,) each: its image in the manifest, its patch in the image.

    Patches are numbered row by row in a grid of `grid` = (height, width) patches over the model's input. Where images
    were rotated for the fit, it is the rotated image's patch, and `degrees` says by how much; else it is None.
    """

    images: torch.Tensor
    patches: torch.Tensor
    grid: tuple[int, int]
    degrees: torch.Tensor | None = None


class Patchcore(MemoryBankDetector, AnomalibPatchcore):
    """anomalib's PatchCore with a local backbone, a seeded coreset, raw scores and a checkpoint that reloads.

    Args:
        backbone: From `load_backbone`, a torch module, or a name whose weights are at hand.
        layers: In any order; the first one's size is the patch grid.
        pre_trained: For a name: True looks for its weights locally. Ignored for a module.
        coreset_sampling_ratio: Share of all training patches kept, in (0, 1].
        num_neighbors: Bank patches that re-weight the image score (maps always use the nearest one).
        bank_sampling: "coreset"; "amazon": the approximate greedy one of the authors' code (`approximate_greedy`),
            whose every pick looks at all patches; or "random": as many unchosen, to see what the coreset is worth.
        score_computation: How distances become scores. "anomalib": the farthest patch's, re-weighted by the bank
            patches around its nearest one, as in the paper. "amazon" and "own_neighbours": see `patchcore_scores`.
        compress_memory_bank: Keep and compare patches after the sparse random projection that the coreset is picked by:
            a smaller bank and a faster search, distances within a factor of their own (Johnson and Lindenstrauss).
        rotations: In how many orientations each training image enters the bank, 360 / `rotations` degrees apart, of
            which the first is its own; for parts that come in any orientation. AnomalyDINO has 8.
        precision: "float32", or "float16" for backbone and bank (for GPUs).
        seed: Chooses the coreset's first patch and projection.

    Raises:
        OptionError: An option that cannot work.
        WeightsError: A layer whose weights are missing from the file.
    """

    model_name: ClassVar[str] = "patchcore"
    rows_are_patches: ClassVar[bool] = True
    bank_origin: BankOrigin | None = None

    @takes_shared_arguments
    def __init__(
        self,
        backbone: str | nn.Module = "wide_resnet50_2",
        layers: Sequence[str] = ("layer2", "layer3"),
        pre_trained: bool = True,
        coreset_sampling_ratio: float = 0.1,
        num_neighbors: int = 9,
        precision: str | PrecisionType = PrecisionType.FLOAT32,
        shared: SharedArguments = DEFAULTS,
        bank_sampling: str = "coreset",
        score_computation: str = "anomalib",
        compress_memory_bank: bool = False,
        rotations: int = 1,
    ) -> None:
        layers = check_layers("Patchcore", layers)
        check_range("Patchcore", "coreset_sampling_ratio", coreset_sampling_ratio, low=0, high=1, open_low=True)
        check_integer("Patchcore", "num_neighbors", num_neighbors, low=1)
        precision = str(getattr(precision, "value", precision)).lower()
        if precision not in ("float32", "float16"):
            raise OptionError(f"Patchcore: precision must be 'float32' or 'float16', got {precision!r}.")
        choices = {"bank_sampling": (bank_sampling, SAMPLINGS), "score_computation": (score_computation, SCORES)}
        for option, (value, known) in choices.items():
            if value not in known:
                raise OptionError(f"Patchcore: {unknown_name(option, str(value), known)}")
        given = (bank_sampling, score_computation, compress_memory_bank)
        special = dict(zip(NOT_PLAIN, given, strict=True))
        network = self.resolve_backbone(backbone, pre_trained, shared.seed)
        model = PatchcoreModel(network, layers, coreset_sampling_ratio, num_neighbors, shared.seed, *given)
        self.set_up(
            super(AnomalibPatchcore, self).__init__,
            options={
                "layers": layers,
                "coreset_sampling_ratio": coreset_sampling_ratio,
                "num_neighbors": num_neighbors,
                "precision": precision,
                # left out where it is the usual one: runs from before there was a choice stay the same experiment
                **{key: value for key, value in special.items() if value not in ("coreset", "anomalib", False)},
                **rotations_option("Patchcore", rotations),
            },
            backbone=network,
            shared=shared,
        )
        check_map_size("Patchcore", self.preprocessing.input_size)
        self.coreset_sampling_ratio = coreset_sampling_ratio
        self.model = model.half() if precision == "float16" else model

    def on_train_start(self) -> None:
        """Discard an earlier fit and the origin of the earlier memory bank."""
        super().on_train_start()
        self.bank_origin = None

    def fitted_on(self, images: Sequence[int], grid: tuple[int, int]) -> None:
        """Store the origin of each row of the memory bank."""
        per_image = grid[0] * grid[1]
        places = torch.as_tensor(images, dtype=torch.int32)
        picks = self.model.picks
        numbers = picks // per_image
        turned = torch.tensor(angles(self.rotations))[numbers % self.rotations] if self.rotations > 1 else None
        self.bank_origin = BankOrigin(places[numbers], (picks % per_image).to(torch.int32), grid, turned)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the bank's origin to the record: a buffer of its own plain anomalib would refuse to load."""
        super().on_save_checkpoint(checkpoint)
        if self.bank_origin is not None:
            origin = {**vars(self.bank_origin), "grid": list(self.bank_origin.grid)}
            checkpoint[CHECKPOINT_KEY]["bank"] = {key: value for key, value in origin.items() if value is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the origin of the memory bank from a checkpoint; None if the checkpoint has no origin."""
        super().on_load_checkpoint(checkpoint)
        bank = checkpoint.get(CHECKPOINT_KEY, {}).get("bank")
        self.bank_origin = None if bank is None else BankOrigin(**{**bank, "grid": tuple(bank["grid"])})

    def check_training_images(self, count: int) -> None:
        """Check that the coreset ratio keeps at least one patch, and that a compression shortens the patches."""
        height, width = self.patch_grid
        patches = count * self.rotations * height * width
        coreset_size(patches, self.coreset_sampling_ratio)
        channels, projected = sum(self.model.feature_extractor.out_dims), projected_size(patches)
        if self.model.compresses and projected >= channels:
            raise OptionError(
                f"Patchcore: compress_memory_bank would not shorten a patch: its {channels} numbers would become "
                f"{projected}, as many as {patches} patches need. Leave it out."
            )


__all__ = ["BankOrigin", "Patchcore", "PatchcoreModel"]
