"""Model names, the classes behind them and what they accept. Importing this loads no torch."""

from importlib import import_module
from typing import TYPE_CHECKING

from defectlab.models.model_info import ModelInfo
from defectlab.utils.errors import OptionError, unknown_name

if TYPE_CHECKING:
    from defectlab.models.base import BaseDetector


MODELS = {
    info.name: info
    for info in (
        ModelInfo(
            "padim", "Padim", "defectlab.models.padim.lightning_model", 1, "a Gaussian of features at each position"
        ),
        ModelInfo(
            "patchcore",
            "Patchcore",
            "defectlab.models.patchcore.lightning_model",
            1,
            "nearest patch of a coreset of good ones",
        ),
        ModelInfo("cflow", "Cflow", "defectlab.models.cflow", None, "conditional normalising flow over features"),
        ModelInfo(
            "linear_vae",
            "LinearVae",
            "defectlab.models.vae.lightning_model",
            None,
            "fully connected autoencoder of good images",
            None,
            150,
        ),
        ModelInfo(
            "small_conv_vae",
            "SmallConvVae",
            "defectlab.models.vae.lightning_model",
            None,
            "small convolutional autoencoder",
            None,
            200,
        ),
        ModelInfo(
            "big_conv_vae",
            "BigConvVae",
            "defectlab.models.vae.lightning_model",
            None,
            "larger convolutional autoencoder",
            None,
            100,
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
            "defectlab.models.efficient_ad.lightning_model",
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

_OTHERS = "defectlab.models.anomalib_models"
OTHERS = {
    info.name: info
    for info in (
        ModelInfo("cfa", "Cfa", _OTHERS, None, "features drawn to centres of good ones", "wide_resnet50_2"),
        ModelInfo(
            "dfm", "Dfm", _OTHERS, 1, "reconstruction error of features by their principal components", "resnet50"
        ),
        ModelInfo("dfkde", "Dfkde", _OTHERS, 1, "density of features of whole images, no maps", "resnet18", maps=False),
        ModelInfo(
            "ganomaly",
            "Ganomaly",
            _OTHERS,
            None,
            "adversarial autoencoder of good images, no maps",
            None,
            maps=False,
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
        ModelInfo(
            "mh_patchcore",
            "MHPatchcore",
            _OTHERS,
            1,
            "PatchCore by Mahalanobis distance over principal components",
            "wide_resnet50_2",
        ),
        ModelInfo("patchflow", "Patchflow", _OTHERS, None, "normalising flow over patches", "tf_efficientnet_b5"),
        ModelInfo(
            "uninet",
            "UniNet",
            _OTHERS,
            None,
            "two teachers and a student, contrasted; ResNet-50 shapes only",
            "wide_resnet50_2",
            backbone_options=("teacher_backbone", "student_backbone"),
        ),
    )
}  # anomalib's own code, built without a download

_VISION = "needs a vision transformer (DINO) from its authors' hub; DefectLab loads convolutional backbones"
# what anomalib 2.7.0 has and DefectLab does not run -> why
UNAVAILABLE = {
    "anomaly_dino": _VISION,
    "anomalyvfm": "downloads its weights from a hub while it is built",
    "cfm": "takes point clouds beside images",
    "dinomaly": _VISION,
    "dsr": "needs a pretrained quantised autoencoder that only a download gives",
    "foundad": _VISION,
    "general_ad": _VISION,
    "glass": "downloads its textures (DTD) while it trains; DRAEM takes yours",
    "inp_former": _VISION,
    "l2bt": _VISION,
    "rad": _VISION,
    "super_add": _VISION,
    "uflow": "needs weights of two CaiT transformers that only their hub has",
    "vlm_ad": "asks a language model that runs elsewhere",
    "winclip": "needs CLIP's weights, which only a download gives",
}


def model_info(name: str) -> ModelInfo:
    """Return what is known of the model called `name`.

    Raises:
        OptionError: No model has that name; the closest is named.
    """
    known = MODELS | OTHERS
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
    if name in OTHERS:
        from defectlab.models.anomalib_models import anomalib_class

        return anomalib_class(OTHERS[name])
    return getattr(import_module(info.module), info.class_name)
