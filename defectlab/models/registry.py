"""Model names, the classes of the models and the options that the classes accept. Importing this loads no torch."""

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from defectlab.models.model_info import EXPORTS, ModelInfo
from defectlab_runtime.errors import OptionError, unknown_name

if TYPE_CHECKING:
    from defectlab.models.base import BaseDetector

_VAE, _ANOMALIB = "vae.lightning_model", "anomalib_models"


def _by_name(*models: ModelInfo, **facts: Any) -> dict[str, ModelInfo]:
    return {model.name: replace(model, **facts) for model in models}


MODELS = _by_name(
    ModelInfo(
        "padim",
        "Padim",
        "padim.lightning_model",
        "a Gaussian of features at each position",
        epochs=1,
        adds_images=True,
    ),
    ModelInfo(
        "patchcore",
        "Patchcore",
        "patchcore.lightning_model",
        "nearest patch of a coreset of good ones",
        epochs=1,
        adds_images=True,
    ),
    ModelInfo(
        "subspace",
        "Subspace",
        "subspace.lightning_model",
        "distance to a PCA of good patches, for few images",
        epochs=1,
        adds_images=True,
    ),
    ModelInfo("cflow", "Cflow", "cflow.lightning_model", "conditional normalising flow over features"),
    ModelInfo("linear_vae", "LinearVae", _VAE, "fully connected autoencoder of good images", None, default_epochs=150),
    ModelInfo("small_conv_vae", "SmallConvVae", _VAE, "small convolutional autoencoder", None, default_epochs=200),
    ModelInfo("big_conv_vae", "BigConvVae", _VAE, "larger convolutional autoencoder", None, default_epochs=100),
    ModelInfo("stfpm", "Stfpm", "stfpm", "a student misses what the teacher sees"),
    ModelInfo("fastflow", "Fastflow", "fastflow", "2D normalising flow over features"),
    ModelInfo(
        "draem",
        "Draem",
        "draem",
        "simulated defects, repaired and found",
        backbone=None,
        files="textures (generated ones by default)",
    ),
    ModelInfo("csflow", "Csflow", "csflow", "one normalising flow across three scales", "efficientnet_b5"),
    ModelInfo(
        "efficient_ad",
        "EfficientAd",
        "efficient_ad.lightning_model",
        "student, teacher and autoencoder on patches",
        backbone=None,
        default_epochs=20,
        files="a teacher (`weights distil` makes one), general images (generated ones by default)",
    ),
    ModelInfo(
        "featcae",
        "FeatCae",
        "featcae",
        "an autoencoder rebuilds good features only",
        backbone="resnet50",
        default_epochs=20,
        relative_maps=True,
    ),
    exports=EXPORTS,
)

# anomalib's own code, built without a download
ANOMALIB_MODELS = _by_name(
    ModelInfo("cfa", "Cfa", _ANOMALIB, "features drawn to centres of good ones", "wide_resnet50_2"),
    ModelInfo("dfm", "Dfm", _ANOMALIB, "reconstruction error of features by their principal components", "resnet50", 1),
    ModelInfo("dfkde", "Dfkde", _ANOMALIB, "density of features of whole images, no maps", epochs=1, maps=False),
    ModelInfo("ganomaly", "Ganomaly", _ANOMALIB, "adversarial autoencoder of good images, no maps", None, maps=False),
    ModelInfo("fre", "Fre", _ANOMALIB, "reconstruction error of features by a small autoencoder", "resnet50"),
    ModelInfo(
        "reverse_distillation",
        "ReverseDistillation",
        _ANOMALIB,
        "a decoder that rebuilds the teacher's features",
        backbone="wide_resnet50_2",
    ),
    ModelInfo(
        "supersimplenet",
        "Supersimplenet",
        _ANOMALIB,
        "tells features from features with noise",
        backbone="wide_resnet50_2",
    ),
    ModelInfo(
        "mh_patchcore",
        "MHPatchcore",
        _ANOMALIB,
        "PatchCore by Mahalanobis distance over principal components",
        backbone="wide_resnet50_2",
        epochs=1,
    ),
    ModelInfo("patchflow", "Patchflow", _ANOMALIB, "normalising flow over patches", "tf_efficientnet_b5"),
    ModelInfo(
        "uninet",
        "UniNet",
        _ANOMALIB,
        "two teachers and a student, contrasted; ResNet-50 shapes only",
        backbone="wide_resnet50_2",
        backbone_options=("teacher_backbone", "student_backbone"),
    ),
    ModelInfo(
        "anomaly_dino",
        "AnomalyDINO",
        _ANOMALIB,
        "nearest patch of all good ones by cosine distance, for few images",
        backbone="vit_small_patch14_dinov2",
        epochs=1,
        backbone_options=("encoder_name",),
    ),
    ModelInfo(
        "dinomaly",
        "Dinomaly",
        _ANOMALIB,
        "a decoder that rebuilds a transformer's tokens loosely",
        backbone="vit_base_patch14_reg4_dinov2",
        backbone_options=("encoder_name",),
    ),
    ModelInfo(
        "foundad",
        "FoundAD",
        _ANOMALIB,
        "projects tokens onto those of good images, for few of them",
        backbone="vit_base_patch14_dinov2",
        backbone_options=("encoder_name",),
    ),
    ModelInfo("general_ad", "GeneralAD", _ANOMALIB, "tells tokens from distorted ones", "vit_large_patch14_dinov2"),
    ModelInfo(
        "inp_former",
        "InpFormer",
        _ANOMALIB,
        "rebuilds tokens from prototypes of the image itself",
        backbone="vit_base_patch14_reg4_dinov2",
        backbone_options=("encoder_name",),
    ),
    ModelInfo(
        "l2bt",
        "L2BT",
        _ANOMALIB,
        "two students that map a block's tokens to another's and back",
        backbone="vit_base_patch14_reg4_dinov2",
        backbone_options=(),
    ),
    ModelInfo(
        "rad", "Rad", _ANOMALIB, "nearest tokens of the most similar good images", "vit_base_patch16_dinov3", epochs=1
    ),
    ModelInfo(
        "super_add",
        "SuperADD",
        _ANOMALIB,
        "nearest tokens of several blocks over overlapping parts",
        backbone="vit_huge_plus_patch16_dinov3",
        epochs=1,
    ),
    ModelInfo("uflow", "Uflow", _ANOMALIB, "a U-shaped normalising flow over features; ResNets only", "resnet18"),
    ModelInfo(
        "glass",
        "Glass",
        _ANOMALIB,
        "tells features from synthesised ones near and far",
        backbone="wide_resnet50_2",
        files="textures (Perlin noise alone by default)",
    ),
    no_export="anomalib's own models are not exported yet",
)

# models of anomalib 2.7.0 that DefectLab does not run -> the reason
UNAVAILABLE = {
    "anomalyvfm": "downloads its weights from a hub while it is built",
    "cfm": "takes point clouds beside images",
    "dsr": "needs a pretrained quantised autoencoder that only a download gives",
    "vlm_ad": "asks a language model that runs elsewhere",
    "winclip": "needs CLIP's weights, which only a download gives",
}


def model_info(name: str) -> ModelInfo:
    """Return the `ModelInfo` of the model called `name`.

    Raises:
        OptionError: No model has that name; the closest is named.
    """
    known = MODELS | ANOMALIB_MODELS
    if name in UNAVAILABLE:
        raise OptionError(f"Model {name} of anomalib cannot be run here: it {UNAVAILABLE[name]}.")
    if name not in known:
        raise OptionError(unknown_name("model", str(name), known))
    return known[name]


def model_class(name: str) -> "type[BaseDetector]":
    """Return the class of the model called `name`.

    Raises:
        OptionError: No model has that name; the closest is named.
    """
    info = model_info(name)
    module = import_module(f"defectlab.models.{info.module}")
    return module.anomalib_class(info) if name in ANOMALIB_MODELS else getattr(module, info.class_name)
