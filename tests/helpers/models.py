"""Small models for tests: a real ResNet-18 architecture with seeded random weights, on 64 px images."""

from functools import lru_cache
from pathlib import Path
from typing import Any

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
    load_backbone,
)
from defectlab.models.registry import model_info
from defectlab.results.run.run import Run

SMALL: dict[str, tuple[type, dict[str, Any]]] = {
    "padim": (Padim, {"layers": ["layer1", "layer2"], "n_features": 20}),
    "patchcore": (Patchcore, {"layers": ["layer2", "layer3"], "coreset_sampling_ratio": 0.2, "num_neighbors": 3}),
    "cflow": (Cflow, {"layers": ["layer2", "layer3"], "coupling_blocks": 2, "fiber_batch_size": 32}),
}
NAMES = list(SMALL)
LAYERS = {"layers": ["layer1", "layer2"]}
# the contract of tests/models/test_contract.py trains these too, for so many epochs
MORE: dict[str, tuple[type, dict[str, Any]]] = {
    "stfpm": (Stfpm, LAYERS),
    "fastflow": (Fastflow, {**LAYERS, "flow_steps": 2, "hidden_ratio": 0.2, "lr": 1e-2}),
    "linear_vae": (LinearVae, {"latent_dim": 4, "hidden": [16, 8], "lr": 1e-2}),
    "small_conv_vae": (SmallConvVae, {"latent_dim": 4, "lr": 3e-3}),
    "big_conv_vae": (BigConvVae, {"latent_dim": 4, "lr": 1e-3}),
    "draem": (Draem, {"reconstructive_width": 8, "discriminative_width": 8, "beta": (0.5, 1.0), "lr": 1e-3}),
    "csflow": (Csflow, {"layers": ["layer3"], "n_coupling_blocks": 2, "cross_conv_hidden_channels": 16, "lr": 1e-3}),
    "efficient_ad": (EfficientAd, {"model_size": "tiny", "teacher_out_channels": 8, "teacher": "random", "lr": 1e-3}),
    "featcae": (FeatCae, {**LAYERS, "latent_dim": 8, "border": 1, "lr": 1e-2}),
}
EPOCHS = {"stfpm": 4, "fastflow": 4, "draem": 12, "csflow": 6, "efficient_ad": 2, "featcae": 4}


@lru_cache(maxsize=2)
def backbone(seed: int = 42):
    return load_backbone("resnet18", weights="random", seed=seed)


def small(name: str, **options: Any):
    """A model at 64 px; options given here win."""
    cls, own = (SMALL | MORE)[name]
    size = {} if "pre_processor" in options else {"image_size": 256 if name == "efficient_ad" else 64}
    own = own if model_info(name).backbone is None else {"backbone": backbone(), **own}
    return cls(**{**size, **own, **options})


def data(root: Path, **options: Any) -> Folder:
    return Folder(root=root, **{"num_workers": 0, "train_batch_size": 3, "eval_batch_size": 4} | options)


def trained(model: Any, parts: Path, results: Path) -> Run:
    """The finished run of a model on small parts."""
    Engine(default_root_dir=results, enable_progress_bar=False).train(model=model, datamodule=data(parts))
    return Run.open(model.run_folder)
