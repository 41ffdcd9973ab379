"""Backbones by name, from local weights. Names load on first use: listing and verifying weights need no torch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from defectlab.backbones.backbone import Backbone, weights_sha256
    from defectlab.backbones.extractor import FeatureExtractor
    from defectlab.backbones.loading import load_backbone
    from defectlab.backbones.recognition import as_backbone
    from defectlab.backbones.registry import REGISTRY, BackboneSpec, build, get_spec, list_backbones
    from defectlab.backbones.weights import WeightsInfo, WeightsStatus, find_weights, list_weights, verify
    from defectlab.backbones.weights_download import get
    from defectlab.backbones.weights_import import import_file

_HOMES = {
    "backbone": ("Backbone", "weights_sha256"),
    "weights_download": ("get",),
    "extractor": ("FeatureExtractor",),
    "weights_import": ("import_file",),
    "loading": ("load_backbone",),
    "recognition": ("as_backbone",),
    "registry": ("REGISTRY", "BackboneSpec", "build", "get_spec", "list_backbones"),
    "weights": ("WeightsInfo", "WeightsStatus", "find_weights", "list_weights", "verify"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "REGISTRY",
    "Backbone",
    "BackboneSpec",
    "FeatureExtractor",
    "WeightsInfo",
    "WeightsStatus",
    "as_backbone",
    "build",
    "find_weights",
    "get",
    "get_spec",
    "import_file",
    "list_backbones",
    "list_weights",
    "load_backbone",
    "verify",
    "weights_sha256",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
