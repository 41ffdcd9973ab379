"""Backbone features on disk, computed once for all configurations that ask for them.

`FeatureStore` keeps arrays by what they were made of; `extract` fills it with the features of a dataset's images.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from defectlab.backbones.feature_cache.store import FeatureStore

if TYPE_CHECKING:
    from defectlab.backbones.feature_cache.extraction import Features, extract

__all__ = ["FeatureStore", "Features", "extract"]


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use: `defectlab cache list` does not."""
    if name not in ("Features", "extract"):
        raise AttributeError(f"module 'defectlab.backbones.feature_cache' has no attribute {name!r}")
    return getattr(import_module("defectlab.backbones.feature_cache.extraction"), name)
