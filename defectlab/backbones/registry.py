"""Registry of backbones: architecture, layers and preprocessing by name. Imports torch only to build one."""

import fnmatch
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from defectlab_runtime.errors import OptionError, did_you_mean, unknown_name
from defectlab_runtime.imagenet import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

DEFAULT = "efficientnet_lite0"
REMOVED = "defectlab_resnet18"  # a name in records and workbooks of before


@dataclass(frozen=True)
class BackboneSpec:
    """Specification of a backbone: all data needed to rebuild it and to preprocess its input.

    `layers` are the main layers in network order (other graph nodes work too); `mean` and `std` hold one value per RGB
    channel for images in [0, 1]; `input_size` is (height, width) of the weights' own training or test images.
    `precision` is that of the layers' products: the weights stay float32, and so do the features given out.
    """

    name: str
    library: str  # 'torchvision', 'timm', or 'unknown' for a module of other code
    architecture: str
    layers: tuple[str, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    input_size: tuple[int, int] = (224, 224)
    interpolation: str = "bilinear"
    precision: str = "float32"

    def to_dict(self) -> dict[str, Any]:
        """Convert the specification to plain data for JSON, YAML or a checkpoint's hyperparameters."""
        data = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if self.precision == "float32":  # left out where it is the usual one: records from before have no such key
            del data["precision"]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "BackboneSpec":
        """Rebuild a specification from the plain data that `to_dict` returns.

        >>> BackboneSpec.from_dict(REGISTRY["resnet18"].to_dict()) == REGISTRY["resnet18"]
        True
        """
        known = [field.name for field in fields(cls)]
        unknown = [key for key in data if key not in known]
        if unknown:
            raise OptionError(unknown_name("key of a backbone specification", unknown[0], known))
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**values)


_RESNET_LAYERS = ("layer1", "layer2", "layer3", "layer4")
PRECISIONS = ("float32", "bfloat16", "float16")


def _resnet(name: str) -> BackboneSpec:
    return BackboneSpec(name, "torchvision", name, _RESNET_LAYERS)


def _numbered(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}.{i}" for i in range(count))


def _lite(number: int, side: int) -> BackboneSpec:
    # Google's EfficientNet-Lite, as timm builds it for weights converted from TensorFlow: padding, batch-norm epsilon.
    half = (0.5, 0.5, 0.5)
    return BackboneSpec(
        f"efficientnet_lite{number}",
        "timm",
        f"tf_efficientnet_lite{number}",
        _numbered("blocks", 7),
        mean=half,
        std=half,
        input_size=(side, side),
        interpolation="bicubic",
    )


def _efficientnet(name: str, library: str, layers: tuple[str, ...], side: int) -> BackboneSpec:
    return BackboneSpec(name, library, name, layers, input_size=(side, side), interpolation="bicubic")


REGISTRY: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _lite(0, 224),
        _lite(2, 260),
        _resnet("resnet18"),
        _resnet("resnet50"),
        _resnet("wide_resnet50_2"),
        _efficientnet("efficientnet_b5", "torchvision", _numbered("features", 9), 456),
        _efficientnet("efficientnet_b7", "torchvision", _numbered("features", 9), 600),
        _efficientnet("tf_efficientnet_b7", "timm", _numbered("blocks", 7), 600),
        BackboneSpec("cspdarknet53", "timm", "cspdarknet53", _numbered("stages", 5), input_size=(256, 256)),
    )
}

# Layers with the strides of a ResNet's (4, 8, 16, 32), the last of each stride, by architecture.
_SAME_STRIDES = {
    **dict.fromkeys(("efficientnet_b5", "efficientnet_b7"), ("features.2", "features.3", "features.5", "features.7")),
    **dict.fromkeys(
        ("tf_efficientnet_lite0", "tf_efficientnet_lite2", "tf_efficientnet_b7"),
        ("blocks.1", "blocks.2", "blocks.4", "blocks.6"),
    ),
    "cspdarknet53": ("stages.1", "stages.2", "stages.3", "stages.4"),
}

# timm has no weights for its own efficientnet_b7: files with its keys were made for tf_efficientnet_b7, whose
# batch-norm epsilon and padding differ without any error.
_SECOND_ARCHITECTURE = {"efficientnet_b7": "tf_efficientnet_b7"}
# Registered names that are also those of other networks of timm, with the name that means these.
SHARED_NAMES = {"efficientnet_lite0": "efficientnet_lite0.ra_in1k"}


def accepted_names(name: str) -> tuple[str, ...]:
    """Return the manifest names whose files backbone `name` takes, the preferred one first; needs no torch.

    >>> accepted_names("efficientnet_b7")
    ('efficientnet_b7', 'tf_efficientnet_b7')
    """
    second = _SECOND_ARCHITECTURE.get(name)
    return (name, *([second] if second else []))


def get_spec(name: str) -> BackboneSpec:
    """Return the specification of a registered backbone or of any timm model, with or without a tag.

    Raises:
        OptionError: With the closest known name, or with what takes the place of one that is gone.

    """
    if name in REGISTRY:
        return REGISTRY[name]
    if name == REMOVED:
        raise OptionError(
            f"'{REMOVED}', trained on drawn images, is no longer part of DefectLab: take '{DEFAULT}', whose ImageNet "
            f"weights come along, with layers {', '.join(usual_layers(REGISTRY[DEFAULT], ('layer2', 'layer3')))}. "
            f"Checkpoints made with it load as before. With a file of its weights: load_backbone('resnet18', "
            f"weights='{REMOVED}.safetensors')."
        )
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = [*REGISTRY, *timm.list_models()]
        raise OptionError(
            f"Unknown backbone '{name}'.{did_you_mean(name, known)} Available: {', '.join(REGISTRY)}, and every timm "
            "model by its name (list_backbones('*resnet*') lists them)."
        )
    if tag and name not in (tagged := timm.list_models(f"{architecture}.*", pretrained=True)):
        raise OptionError(unknown_name("backbone", name, tagged or [architecture]))
    return _timm_spec(name, architecture)


def _timm_spec(name: str, architecture: str) -> BackboneSpec:
    import timm

    network = build(BackboneSpec(name, "timm", architecture, ()), device="meta")
    info = getattr(network, "feature_info", None) or []
    layers = tuple(str(entry["module"]) for entry in info if entry.get("module"))
    spec = BackboneSpec(name, "timm", architecture, layers)
    if architecture in REGISTRY and REGISTRY[architecture].library == "timm":
        spec = replace(spec, layers=REGISTRY[architecture].layers)
    cfg = timm.get_pretrained_cfg(name)
    return spec if cfg is None else with_timm_cfg(spec, cfg.to_dict())


def with_timm_cfg(spec: BackboneSpec, cfg: dict[str, Any]) -> BackboneSpec:
    """Return `spec` with mean, std, input size and interpolation of a timm `pretrained_cfg`."""
    size = cfg.get("input_size") or (3, *spec.input_size)
    return replace(
        spec,
        mean=tuple(cfg.get("mean") or spec.mean),
        std=tuple(cfg.get("std") or spec.std),
        input_size=(int(size[1]), int(size[2])),
        interpolation=cfg.get("interpolation") or spec.interpolation,
    )


def usual_layers(spec: BackboneSpec, layers: Sequence[str]) -> tuple[str, ...]:
    """Return a ResNet's `layers` as this registered backbone's layers of the same strides; others as they are.

    >>> usual_layers(REGISTRY["efficientnet_lite0"], ["layer2", "layer3"])
    ('blocks.2', 'blocks.4')
    """
    same = dict(zip(_RESNET_LAYERS, _SAME_STRIDES.get(spec.architecture, _RESNET_LAYERS), strict=True))
    return tuple(same.get(layer, layer) for layer in layers)


def warn_of_shared_name(spec: BackboneSpec, file: str) -> None:
    """Say, of a file that no record knows, what it is built as where timm has another network of this name."""
    if spec.name in SHARED_NAMES:
        logger.warning(
            "%s: built as %s. timm's own %s has the same tensors but other padding, batch-norm epsilon, mean and "
            "std: for weights of that one name it with its tag, '%s'",
            file,
            spec.architecture,
            spec.name,
            SHARED_NAMES[spec.name],
        )


def variants(name: str) -> tuple[BackboneSpec, ...]:
    """Return the specifications a weights file for `name` may fit, the preferred one first."""
    spec = get_spec(name)
    second = _SECOND_ARCHITECTURE.get(name)
    return (spec, *([replace(REGISTRY[second], name=name)] if second else []))


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the names that match a shell pattern: registered ones first, then timm's.

    >>> list_backbones("*cspdarknet53")[:2]
    ['cspdarknet53']
    """
    import timm

    registered = fnmatch.filter(REGISTRY, pattern)
    return [*registered, *(name for name in timm.list_models(pattern) if name not in registered)]


def build(spec: BackboneSpec, *, device: str = "cpu", seed: int = 42) -> "nn.Module":
    """Build the untrained architecture in eval mode, without any download and without changing the random state.

    `device="meta"` builds shapes without memory or initialisation, for comparisons.

    Raises:
        OptionError: For the specification of a module of unknown code.

    """
    import torch

    if spec.library not in {"torchvision", "timm"}:
        raise OptionError(
            f"Backbone '{spec.name}' comes from code that DefectLab does not know and cannot be rebuilt by name. "
            "Pass the module itself: backbone=module."
        )
    # Not torch.manual_seed: it would also seed the accelerators, which fork_rng(devices=[]) does not restore.
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.default_generator.manual_seed(seed)
        if spec.library == "torchvision":
            from torchvision.models import get_model

            network: nn.Module = get_model(spec.architecture, weights=None)
        else:
            import timm

            network = timm.create_model(spec.architecture, pretrained=False)
    return network.eval()


def head_prefixes(network: "nn.Module") -> tuple[str, ...]:
    """Return the key prefixes of the classifier, such as ``("fc.",)``: the part that no feature depends on."""
    cfg = getattr(network, "pretrained_cfg", None)
    if isinstance(cfg, dict) and cfg.get("classifier"):
        heads = cfg["classifier"]
        return tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    named = [name for name, _ in network.named_children() if name in {"fc", "classifier", "heads", "head"}]
    return tuple(f"{name}." for name in named)
