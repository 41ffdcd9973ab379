"""PatchCore: distance to the nearest patch of a coreset of good ones (Roth et al., 2022, arXiv:2106.08265)."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from anomalib import PrecisionType
from anomalib.models.image.patchcore.lightning_model import Patchcore as AnomalibPatchcore
from torch import nn

from defectlab.kernels.coreset.cost import coreset_size
from defectlab.kernels.foreground import border_shares, centre_shares, foreground_masks, holds_object
from defectlab.kernels.projection import projected_size
from defectlab.kernels.rotation import angles
from defectlab.models.checkpoint import CHECKPOINT_KEY
from defectlab.models.checks import check_layers, check_map_size
from defectlab.models.memory_bank import MemoryBankDetector, rotations_option
from defectlab.models.patchcore.torch_model import DISTANCES, SAMPLINGS, SCORES, PatchcoreModel
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.validation import check_integer, check_range
from defectlab_runtime.errors import InputError, OptionError, unknown_name

logger = logging.getLogger(__name__)

MASKED_AT_ONCE = 64  # images
USUAL = {  # options that are recorded only with other values: runs from before there was a choice stay the same ones
    "bank_sampling": "coreset",
    "score_computation": "anomalib",
    "compress_memory_bank": False,
    "distance": "euclidean",
    "neighbourhood": 3,
    "top_share": None,
    "foreground_mask": False,
}
MIN_IMAGES_WITH_OBJECT = 0.95  # share of the training images whose masks must hold the object: of few images, all


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
        distance: "euclidean"; or "cosine", 1 - cos of the angle between two patches, in [0, 2]. The search is exact
            with both. Of cosines the coreset is picked among patches of length 1, where the order of distances is the
            same.
        neighbourhood: Side of the square of patches whose mean each patch is; 1 leaves patches as they are.
        top_share: The image score is the mean of this share of the patches' scores, the largest; in (0, 1], at least
            one patch. It takes the place of the re-weighting: `num_neighbors=1`, or `score_computation="amazon"`.
        foreground_mask: Leave the background out of the bank and of scores, where its distances are 0. The object is
            found by the first principal component of each image's features, which works with the layer `norm` of
            DINOv2 and objects in the middle; where the training images' masks do not hold the object, none are used.
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
        distance: str = "euclidean",
        neighbourhood: int = 3,
        top_share: float | None = None,
        foreground_mask: bool = False,
    ) -> None:
        layers = check_layers("Patchcore", layers)
        check_range("Patchcore", "coreset_sampling_ratio", coreset_sampling_ratio, low=0, high=1, open_low=True)
        check_integer("Patchcore", "num_neighbors", num_neighbors, low=1)
        precision = str(getattr(precision, "value", precision)).lower()
        if precision not in ("float32", "float16"):
            raise OptionError(f"Patchcore: precision must be 'float32' or 'float16', got {precision!r}.")
        own: dict[str, Any] = {
            "bank_sampling": bank_sampling,
            "score_computation": score_computation,
            "compress_memory_bank": compress_memory_bank,
            "distance": distance,
            "neighbourhood": neighbourhood,
            "top_share": top_share,
            "foreground_mask": foreground_mask,
        }
        _check_own(own, num_neighbors)
        network = self.resolve_backbone(backbone, pre_trained, shared.seed)
        model = PatchcoreModel(network, layers, coreset_sampling_ratio, num_neighbors, shared.seed, **own)
        self.set_up(
            super(AnomalibPatchcore, self).__init__,
            options={
                "layers": layers,
                "coreset_sampling_ratio": coreset_sampling_ratio,
                "num_neighbors": num_neighbors,
                "precision": precision,
                **{key: value for key, value in own.items() if value != USUAL[key]},
                **rotations_option("Patchcore", rotations),
            },
            backbone=network,
            shared=shared,
        )
        check_map_size("Patchcore", self.preprocessing.input_size)
        self.coreset_sampling_ratio = coreset_sampling_ratio
        self.model = model.half() if precision == "float16" else model

    def on_train_start(self) -> None:
        """Discard an earlier fit and the origin of the earlier memory bank, unless images are added to it."""
        super().on_train_start()
        if not self.adds:
            self.bank_origin = None
        self.notes = {}

    def fit_embedding(self, embedding: torch.Tensor) -> None:
        """Fit the memory bank, on the foreground alone if masks are asked for and work on the training images.

        If images are added they join the bank, masked if it is.
        """
        if self.adds:
            foreground = None
            if getattr(self.model, "masks_background", False):
                foreground = torch.cat([foreground_masks(part).flatten() for part in embedding.split(MASKED_AT_ONCE)])
                if not int(int(foreground.sum()) * self.coreset_sampling_ratio):
                    raise InputError(
                        f"Patchcore: foreground_mask finds {int(foreground.sum())} foreground patches in the added "
                        f"images, of which coreset_sampling_ratio {self.coreset_sampling_ratio!r} keeps none. Do they "
                        "show the object as the training images do? Add more of them at once, or leave these out."
                    )
            text = self.model.extend(self.model.rows(embedding), foreground)
            self.notes = {"added images": text}
            return
        if "foreground_mask" not in self.options:
            super().fit_embedding(embedding)
            return
        masks = torch.cat([foreground_masks(part) for part in embedding.split(MASKED_AT_ONCE)])
        works, note = _masking_test(masks[:: self.rotations])
        logger.info("Patchcore: %s", note)
        self.notes = {"foreground mask": note}
        self.model.masks_background = torch.tensor(works, device=embedding.device)
        self.model.fit(self.model.rows(embedding), masks.flatten() if works else None)

    def fitted_on(self, images: Sequence[int], grid: tuple[int, int]) -> None:
        """Store the origin of each row of the memory bank."""
        per_image = grid[0] * grid[1]
        places = torch.as_tensor(images, dtype=torch.int32)
        picks = self.model.picks
        numbers = picks // per_image
        turned = torch.tensor(angles(self.rotations))[numbers % self.rotations] if self.rotations > 1 else None
        origin = BankOrigin(places[numbers], (picks % per_image).to(torch.int32), grid, turned)
        self.bank_origin = self._joined(origin) if self.adds else origin

    def _joined(self, added: BankOrigin) -> BankOrigin | None:
        """Return the origin of a bank's rows, by their positions in the present manifest, and of the added rows."""
        earlier = self.bank_origin
        if earlier is None or self._earlier is None:
            return None  # a checkpoint that does not say where its rows come from
        moved = torch.tensor(self._earlier, dtype=torch.int32)[earlier.images.long()]
        degrees = None
        if earlier.degrees is not None and added.degrees is not None:
            degrees = torch.cat([earlier.degrees, added.degrees])
        images, patches = torch.cat([moved, added.images]), torch.cat([earlier.patches, added.patches])
        return BankOrigin(images, patches, added.grid, degrees)

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
        """Check that the coreset ratio keeps at least one patch, and that a compression shortens the patches.

        Raises:
            InputError: Otherwise.
        """
        height, width = self.patch_grid
        patches = count * self.rotations * height * width
        if self.adds and not int(patches * self.coreset_sampling_ratio):
            least = next(n for n in itertools.count(count) if int(n * patches / count * self.coreset_sampling_ratio))
            raise InputError(
                f"Patchcore: coreset_sampling_ratio {self.coreset_sampling_ratio!r}, with which the bank was made, "
                f"keeps none of the {patches} patches of {count} added images: add at least {least} at once."
            )
        coreset_size(patches, self.coreset_sampling_ratio)
        channels, projected = sum(self.model.feature_extractor.out_dims), projected_size(patches)
        if self.model.compresses and projected >= channels:
            raise OptionError(
                f"Patchcore: compress_memory_bank would not shorten a patch: its {channels} numbers would become "
                f"{projected}, as many as {patches} patches need. Leave it out."
            )


def _check_own(own: dict[str, Any], num_neighbors: int) -> None:
    """Check the options that plain anomalib does not have.

    Raises:
        OptionError: A value that does not exist, or a combination in which one option would be ignored.
    """
    known = {"bank_sampling": SAMPLINGS, "score_computation": SCORES, "distance": DISTANCES}
    for option, values in known.items():
        if own[option] not in values:
            raise OptionError(f"Patchcore: {unknown_name(option, str(own[option]), values)}")
    check_integer("Patchcore", "neighbourhood", own["neighbourhood"], low=1)
    if own["neighbourhood"] % 2 == 0:
        raise OptionError(f"Patchcore: neighbourhood must be odd, got {own['neighbourhood']}: a patch is its middle.")
    if own["top_share"] is None:
        return
    check_range("Patchcore", "top_share", own["top_share"], low=0, high=1, open_low=True)
    own["top_share"] = float(own["top_share"])  # 1 and 1.0 are one experiment
    if own["score_computation"] == "own_neighbours" or (own["score_computation"] == "anomalib" and num_neighbors != 1):
        raise OptionError(
            f"Patchcore: with top_share an image's score is a mean of patches' scores, and the {num_neighbors} "
            f"neighbours by which score_computation {own['score_computation']!r} re-weights its farthest patch would "
            "be ignored. Set num_neighbors to 1 and leave score_computation out, or take score_computation 'amazon': "
            "the mean distance to so many neighbours."
        )


def _masking_test(masks: torch.Tensor) -> tuple[bool, str]:
    """Return whether the masks (N, h, w) of the training images hold the object, and a text that says so.

    AnomalyDINO's authors decide this for each category by a look at the first image (their "masking test").
    """
    passed = holds_object(masks)
    inside, outside = float(centre_shares(masks).mean()), float(border_shares(masks).mean())
    works = float(passed.double().mean()) >= MIN_IMAGES_WITH_OBJECT
    facts = (
        f"in {int(passed.sum())} of {len(passed)} training images it holds an object in the middle (on average "
        f"{inside:.0%} of the centre, {outside:.0%} of the border)"
    )
    if works:
        return works, f"the foreground mask is used: {facts}"
    return works, f"no foreground mask is used: {facts}, {MIN_IMAGES_WITH_OBJECT:.0%} are needed"


__all__ = ["BankOrigin", "Patchcore", "PatchcoreModel"]
