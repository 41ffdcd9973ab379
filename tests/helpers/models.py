"""Small models for tests: a real ResNet-18 architecture with seeded random weights, on 64 px images."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from defectlab import (
    BigConvVae,
    Cflow,
    Csflow,
    Draem,
    EfficientAd,
    Engine,
    Fastflow,
    FeatCae,
    Folder,
    LinearVae,
    Padim,
    Patchcore,
    SmallConvVae,
    Stfpm,
    Subspace,
    load_backbone,
)
from defectlab.models.registry import model_info
from defectlab.results.run.run import Run


@dataclass(frozen=True)
class SmallModel:
    """A model at a size that trains in seconds, and what the contract of tests/models/test_contract.py needs to know.

    `once`: one epoch does, so that tests may train it again and again. `networks`: how often the backbone's
    architecture is in its checkpoint. `goes_on`: a second fit goes on from the first, as in anomalib. `draws`:
    something of it depends on the seed.
    """

    cls: type
    options: dict[str, Any]
    epochs: int = 1
    train_batch_size: int = 3
    image_size: int = 64
    odd_size: tuple[int, int] = (75, 90)
    networks: int = 1
    once: bool = False
    goes_on: bool = False
    draws: bool = True
    long: bool = False


LAYERS = {"layers": ["layer1", "layer2"]}
SMALL = {
    "padim": SmallModel(Padim, {"layers": ["layer1", "layer2"], "n_features": 20}, once=True),
    "patchcore": SmallModel(
        Patchcore, {"layers": ["layer2", "layer3"], "coreset_sampling_ratio": 0.2, "num_neighbors": 3}, once=True
    ),
    "subspace": SmallModel(Subspace, {"layers": ["layer1", "layer2"]}, once=True, draws=False),
    "cflow": SmallModel(
        Cflow, {"layers": ["layer2", "layer3"], "coupling_blocks": 2, "fiber_batch_size": 32}, once=True, goes_on=True
    ),
    "stfpm": SmallModel(Stfpm, LAYERS, epochs=4, networks=2),
    "fastflow": SmallModel(Fastflow, {**LAYERS, "flow_steps": 2, "hidden_ratio": 0.2, "lr": 1e-2}, epochs=4),
    "linear_vae": SmallModel(LinearVae, {"latent_dim": 4, "hidden": [16, 8], "lr": 1e-2}, networks=0),
    "small_conv_vae": SmallModel(SmallConvVae, {"latent_dim": 4, "lr": 3e-3}, networks=0),
    "big_conv_vae": SmallModel(BigConvVae, {"latent_dim": 4, "lr": 1e-3}, networks=0),
    "draem": SmallModel(
        Draem,
        {"reconstructive_width": 8, "discriminative_width": 8, "beta": (0.5, 1.0), "lr": 1e-3},
        epochs=12,
        train_batch_size=2,  # it sees few simulated defects in a small training: more steps
        networks=0,
    ),
    "csflow": SmallModel(
        Csflow, {"layers": ["layer3"], "n_coupling_blocks": 2, "cross_conv_hidden_channels": 16, "lr": 1e-3}, epochs=6
    ),
    "efficient_ad": SmallModel(
        EfficientAd,
        {"model_size": "tiny", "teacher_out_channels": 8, "teacher": "random", "lr": 1e-3},
        epochs=2,
        train_batch_size=1,
        image_size=256,  # the least that it takes
        odd_size=(263, 290),
        networks=0,
        long=True,
    ),
    "featcae": SmallModel(FeatCae, {**LAYERS, "latent_dim": 8, "border": 1, "lr": 1e-2}, epochs=4),
}


@lru_cache(maxsize=2)
def backbone(seed: int = 42):
    return load_backbone("resnet18", weights="random", seed=seed)


def small(name: str, **options: Any):
    """A model at 64 px; options given here win."""
    one = SMALL[name]
    size = {} if "pre_processor" in options else {"image_size": one.image_size}
    own = one.options if model_info(name).backbone is None else {"backbone": backbone(), **one.options}
    return one.cls(**{**size, **own, **options})


def data(root: Path, **options: Any) -> Folder:
    return Folder(root=root, **{"num_workers": 0, "train_batch_size": 3, "eval_batch_size": 4} | options)


def trained(model: Any, parts: Path, results: Path) -> Run:
    """The finished run of a model on small parts."""
    Engine(default_root_dir=results, enable_progress_bar=False).train(model=model, datamodule=data(parts))
    return Run.open(model.run_folder)


def fitted(name: str, parts: Path, data_options: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Run]:
    """A model trained and tested on small parts, and its finished run; `options` are the model's."""
    model = small(name, **options)
    Engine(max_epochs=1, enable_progress_bar=False).train(model=model, datamodule=data(parts, **data_options or {}))
    return model, Run.open(model.run_folder)


def trained_vae(root: Path, **options: Any) -> Run:
    """The finished run of an autoencoder of three epochs; `options` are the engine's."""
    model = SmallConvVae(latent_dim=8, lr=3e-3)
    images = data(root, train_batch_size=5, eval_batch_size=5)
    Engine(max_epochs=3, enable_progress_bar=False, **options).train(model=model, datamodule=images)
    return Run.open(model.run_folder)


def plain_rows(model: Any, root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, C, H, W) as the model takes them: the training ones in the manifest's order, and the test images."""
    images = data(root)
    images.setup()
    resize, transform = model.preprocessing.resize(), model.preprocessing.transform()
    stacks = []
    for dataset in (images.train_data, images.test_data):
        batch = torch.stack([resize(dataset[index].image) for index in range(len(dataset))])
        with torch.no_grad():
            stacks.append(transform(batch))
    return stacks[0], stacks[1]
