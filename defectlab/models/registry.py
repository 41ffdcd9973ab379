"""Model names, the classes behind them and what they accept. Importing this loads no torch."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from defectlab.errors import OptionError, unknown_name

if TYPE_CHECKING:
    from defectlab.models.base import BaseDetector


@dataclass(frozen=True)
class ModelInfo:
    """One model as users name it: `name` in YAML and on the command line, `class_name` in Python.

    `epochs` is a fixed number, or None where the user chooses (`default_epochs` where nothing is given). `backbone` is
    the one taken where none is named; None: the model has none. `files`: what training takes beside it.
    `relative_maps`: its heat maps are shown relative to the threshold instead of on the range of the validation maps.
    """

    name: str
    class_name: str
    module: str
    epochs: int | None
    summary: str
    backbone: str | None = "resnet18"
    default_epochs: int = 30
    relative_maps: bool = False
    files: str = ""


MODELS = {
    info.name: info
    for info in (
        ModelInfo("padim", "Padim", "defectlab.models.padim", 1, "a Gaussian of features at each position"),
        ModelInfo("patchcore", "Patchcore", "defectlab.models.patchcore", 1, "nearest patch of a coreset of good ones"),
        ModelInfo("cflow", "Cflow", "defectlab.models.cflow", None, "conditional normalising flow over features"),
        ModelInfo(
            "linear_vae",
            "LinearVae",
            "defectlab.models.vae",
            None,
            "fully connected autoencoder of good images",
            None,
            150,
        ),
        ModelInfo(
            "small_conv_vae", "SmallConvVae", "defectlab.models.vae", None, "small convolutional autoencoder", None, 200
        ),
        ModelInfo(
            "big_conv_vae", "BigConvVae", "defectlab.models.vae", None, "larger convolutional autoencoder", None, 100
        ),
        ModelInfo("stfpm", "Stfpm", "defectlab.models.stfpm", None, "a student misses what the teacher sees"),
        ModelInfo("fastflow", "Fastflow", "defectlab.models.fastflow", None, "2D normalising flow over features"),
        ModelInfo(
            "draem",
            "Draem",
            "defectlab.models.draem",
            None,
            "simulated defects, repaired and found",
            backbone=None,
            files="textures (generated ones by default)",
        ),
        ModelInfo(
            "csflow",
            "Csflow",
            "defectlab.models.csflow",
            None,
            "one normalising flow across three scales",
            backbone="efficientnet_b5",
        ),
        ModelInfo(
            "efficient_ad",
            "EfficientAd",
            "defectlab.models.efficient_ad",
            None,
            "student, teacher and autoencoder on patches",
            backbone=None,
            files="a teacher (`weights distil` makes one), general images (generated ones by default)",
            default_epochs=20,
        ),
        ModelInfo(
            "featcae",
            "FeatCae",
            "defectlab.models.featcae",
            None,
            "an autoencoder rebuilds good features only",
            "resnet50",
            default_epochs=20,
            relative_maps=True,
        ),
    )
}

_OTHERS = "defectlab.models.others"
OTHERS = {
    info.name: info
    for info in (
        ModelInfo("cfa", "Cfa", _OTHERS, None, "features drawn to centres of good ones", "wide_resnet50_2"),
        ModelInfo(
            "dfm", "Dfm", _OTHERS, 1, "reconstruction error of features by their principal components", "resnet50"
        ),
        ModelInfo("fre", "Fre", _OTHERS, None, "reconstruction error of features by a small autoencoder", "resnet50"),
        ModelInfo(
            "reverse_distillation",
            "ReverseDistillation",
            _OTHERS,
            None,
            "a decoder that rebuilds the teacher's features",
            "wide_resnet50_2",
        ),
        ModelInfo(
            "supersimplenet",
            "Supersimplenet",
            _OTHERS,
            None,
            "tells features from features with noise",
            "wide_resnet50_2",
        ),
    )
}  # anomalib's own code, built without a download


def model_info(name: str) -> ModelInfo:
    """Return what is known of the model called `name`.

    Raises:
        OptionError: No model has that name; the closest is named.
    """
    known = MODELS | OTHERS
    if name not in known:
        raise OptionError(unknown_name("model", str(name), known))
    return known[name]


def model_class(name: str) -> "type[BaseDetector]":
    """Return the class of the model called `name`.

    Raises:
        OptionError: No model has that name; the closest is named.
    """
    info = model_info(name)
    if name in OTHERS:
        from defectlab.models.others import other_class

        return other_class(name)
    return getattr(import_module(info.module), info.class_name)
