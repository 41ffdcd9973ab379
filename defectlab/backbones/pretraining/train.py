"""Train the project's own backbone from nothing, on generated sheets and a few free photographs.

Dense exemplar classification: at every position of layer2 and layer3 the network names the sheet, or the cell of a
photograph, that an augmented crop shows there; patches of other crops and defects are put in, and named as well. After
exemplar networks (Dosovitskiy et al., 2014, arXiv:1406.6909), one-image pre-training (Asano et al., 2020,
arXiv:1904.13132), CutMix (Yun et al., 2019, arXiv:1905.04899) and CutPaste (Li et al., 2021, arXiv:2104.04015).
No downloaded data, no weights from elsewhere.
"""

import copy
import json
import logging
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defectlab.backbones.pretraining.config import Recipe
from defectlab.backbones.pretraining.crops import Crops, draw_crops
from defectlab.backbones.pretraining.images import NO_LABEL, PretrainingImages, make_pretraining_images
from defectlab.backbones.pretraining.synthetic_defects import DEFECTS
from defectlab.utils.errors import OptionError
from defectlab.utils.files import replacing
from defectlab.utils.progress import progress_bar
from defectlab.utils.seeds import generator
from defectlab.utils.tensor_archive import add_digest, check_archive

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.jsonl"


class Trainee(nn.Module):
    """ResNet-18 to layer3 under torchvision's names, with linear classifiers of sheets and of defects on both grids."""

    conv1: nn.Module
    bn1: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    defect_weights: Tensor

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        from torchvision.models import resnet18

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(generator(seed, "backbone/initial weights").initial_seed())
            network = resnet18(weights=None)
            for name in ("conv1", "bn1", "layer1", "layer2", "layer3"):
                setattr(self, name, getattr(network, name))
        # most positions show no defect
        self.register_buffer("defect_weights", torch.tensor([0.3] + [1.0] * (len(DEFECTS) - 1)), persistent=False)
        # Features after a ReLU share a large mean: without the normalisation the classifiers learn that first.
        self.fine_head = nn.Sequential(nn.BatchNorm2d(128, affine=False), nn.Conv2d(128, classes, 1))
        self.coarse_head = nn.Sequential(nn.BatchNorm2d(256, affine=False), nn.Conv2d(256, classes, 1))
        self.pooled_head = nn.Sequential(nn.BatchNorm1d(256, affine=False), nn.Linear(256, classes))
        self.fine_defect_head = nn.Sequential(nn.BatchNorm2d(128, affine=False), nn.Conv2d(128, len(DEFECTS), 1))
        self.coarse_defect_head = nn.Sequential(nn.BatchNorm2d(256, affine=False), nn.Conv2d(256, len(DEFECTS), 1))
        for name, tensor in self.named_parameters():
            if "_head." in name:
                nn.init.zeros_(tensor)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 3, S, S) to layer2 (B, 128, S/8, S/8) and layer3 (B, 256, S/16, S/16)."""
        stem = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        fine = self.layer2(self.layer1(stem))
        return fine, self.layer3(fine)

    def loss(self, crops: Crops, recipe: Recipe) -> Tensor:
        """Return the weighted cross-entropies of sheets (both grids and the whole crop) and defects (both grids)."""
        fine, coarse = self(crops.images)

        def named(logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, ignore_index=NO_LABEL, label_smoothing=recipe.smoothing)

        def spoiled(logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, ignore_index=NO_LABEL, weight=self.defect_weights)

        whole = _spread_cross_entropy(self.pooled_head(coarse.mean((2, 3))), crops.coarse)
        sheets = named(self.coarse_head(coarse), crops.coarse) + recipe.fine_weight * named(
            self.fine_head(fine), crops.fine
        )
        defects = spoiled(self.fine_defect_head(fine), crops.fine_defects) + spoiled(
            self.coarse_defect_head(coarse), crops.coarse_defects
        )
        return sheets + recipe.pooled_weight * whole + recipe.defect_weight * defects

    def backbone_state(self) -> dict[str, Tensor]:
        """Return the tensors of the backbone alone."""
        return {key: value for key, value in self.state_dict().items() if "_head." not in key}


def _spread_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of (B, K) against the shares of the labels (B, h, w) that occur in each crop."""
    flat = labels.flatten(1)
    known = flat != NO_LABEL
    picked = F.log_softmax(logits, 1).gather(1, flat.clamp(min=0))
    return -(picked * known).sum() / known.sum().clamp(min=1)


def pretrain(recipe: Recipe, folder: Path, *, every: int = 100, stop_at: int | None = None) -> dict[str, Tensor]:
    """Train in `folder` and return the backbone's tensors; a checkpoint there is continued.

    `stop_at` ends after that step, for tests of resuming. Weights of the same recipe are equal on the same machine.

    Raises:
        OptionError: The checkpoint in `folder` was made with another recipe.

    """
    folder.mkdir(parents=True, exist_ok=True)
    with progress_bar("Generated images", None) as progress:
        sheets = make_pretraining_images(recipe.per_kind, recipe.cell_sheets, seed=recipe.seed, progress=progress)
    trainee = Trainee(sheets.classes, recipe.seed).to(memory_format=torch.channels_last)
    optimiser = _optimiser(trainee, recipe)
    first = _restore(folder / CHECKPOINT, recipe, trainee, optimiser)
    last = recipe.steps if stop_at is None else stop_at
    logger.info("%d sheets, %d classes; steps %d to %d", len(sheets.images), sheets.classes, first, last)
    started, recent = time.monotonic(), 0.0
    with (
        _one_thread_each(),
        ThreadPoolExecutor(recipe.shards) as pool,
        progress_bar("Training", recipe.steps) as progress,
    ):
        replicas = [copy.deepcopy(trainee) for _ in range(recipe.shards)]
        for step in range(first, last):
            recent += _step(trainee, replicas, optimiser, sheets, recipe, step, pool)
            progress(step + 1, recipe.steps)
            if (step + 1) % every == 0 or step + 1 == last:
                count = (step % every) + 1 if step - first >= every else (step - first) % every + 1
                _note(folder, step + 1, recent / count, time.monotonic() - started)
                _save(folder / CHECKPOINT, recipe, trainee, optimiser, step + 1)
                recent = 0.0
    if last == recipe.steps:
        _settle_statistics(trainee, sheets, recipe)
    return trainee.backbone_state()


@torch.no_grad()
def _settle_statistics(trainee: Trainee, sheets: PretrainingImages, recipe: Recipe) -> None:
    """Replace the running batch-norm statistics, a noisy average of the last steps, by those of many crops."""
    norms = [module for module in trainee.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    with _one_thread_each():
        for batch in range(recipe.settling):
            draws = generator(recipe.seed, f"backbone/statistics/{batch}")
            count, size = recipe.settling_batch, recipe.settling_size
            trainee(draw_crops(sheets, count, size, colour=recipe.colour, draws=draws).images)


def _optimiser(trainee: Trainee, recipe: Recipe) -> torch.optim.Optimizer:
    decayed = [p for p in trainee.parameters() if p.ndim > 1]
    kept = [p for p in trainee.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate: a linear start, a plateau, half a cosine down to zero over the large crops.

    >>> rate_at(600, Recipe()) == Recipe().rate
    True
    """
    start = min(1.0, (step + 1) / recipe.warm_up)
    down = max(0, step - recipe.small_steps) / max(1, recipe.large_steps)
    return recipe.rate * start * 0.5 * (1 + math.cos(math.pi * down))


def _step(
    trainee: Trainee,
    replicas: list[Trainee],
    optimiser: torch.optim.Optimizer,
    sheets: PretrainingImages,
    recipe: Recipe,
    step: int,
    pool: ThreadPoolExecutor,
) -> float:
    """Make one step on crops that depend on the step's number alone; return the loss."""
    count, size = recipe.shape(step)

    def work(shard: int) -> float:
        replica = replicas[shard]
        replica.load_state_dict(trainee.state_dict())
        replica.zero_grad(set_to_none=True)
        draws = generator(recipe.seed, f"backbone/crops/{step}/{shard}")
        crops = draw_crops(sheets, count, size, colour=recipe.colour, draws=draws)
        loss = replica.loss(crops, recipe)
        loss.backward()
        return float(loss.detach())

    losses = list(pool.map(work, range(recipe.shards)))
    for own, *parts in zip(trainee.parameters(), *(r.parameters() for r in replicas), strict=True):
        own.grad = torch.stack([part.grad for part in parts]).mean(0)
    for name, buffer in trainee.named_buffers():
        parts = [replica.get_buffer(name) for replica in replicas]
        buffer.copy_(torch.stack(parts).mean(0) if buffer.is_floating_point() else parts[0])
    for group in optimiser.param_groups:
        group["lr"] = rate_at(step, recipe)
    nn.utils.clip_grad_norm_(trainee.parameters(), 5.0)
    optimiser.step()
    return sum(losses) / len(losses)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Give each shard one thread: sums are then added in one order on every machine, and threads never wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _note(folder: Path, step: int, loss: float, seconds: float) -> None:
    row = {"step": step, "loss": round(loss, 4), "seconds": round(seconds, 1)}
    logger.info("step %d: loss %.4f, %.0f s", step, loss, seconds)
    with (folder / CURVE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _save(path: Path, recipe: Recipe, trainee: Trainee, optimiser: torch.optim.Optimizer, step: int) -> None:
    state: dict[str, Any] = {"network": trainee.state_dict(), "optimiser": optimiser.state_dict()}
    with replacing(path) as partial:
        torch.save({"recipe": asdict(recipe), "step": step, **state}, partial)
        add_digest(partial)


def _restore(path: Path, recipe: Recipe, trainee: Trainee, optimiser: torch.optim.Optimizer) -> int:
    if not path.is_file():
        return 0
    check_archive(path)
    saved = torch.load(path, weights_only=True)
    step = int(saved["step"])
    other = [key for key, value in asdict(recipe).items() if saved["recipe"].get(key) != value]
    # The first phase does not know how long it lasts: it may be lengthened or cut short up to where it has come.
    if step <= min(recipe.small_steps, saved["recipe"]["small_steps"]):
        other = [key for key in other if key not in {"small_steps", "large_steps", "large", "large_batch"}]
    other = [key for key in other if not key.startswith("settling")]
    if other:
        raise OptionError(
            f"{path} was made with other values of {', '.join(other)}. Fix: another folder, or delete it."
        )
    trainee.load_state_dict(saved["network"])
    optimiser.load_state_dict(saved["optimiser"])
    logger.info("Continuing %s at step %d of %d", path, step, recipe.steps)
    return step
