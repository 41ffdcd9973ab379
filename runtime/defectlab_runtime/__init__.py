"""DefectLab's runtime: scores images with an exported model. Needs numpy, Pillow and onnxruntime, and no torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from defectlab_runtime.description import Description
    from defectlab_runtime.detector import Detector
    from defectlab_runtime.errors import DataError, DescriptionError, InputError
    from defectlab_runtime.prediction import Prediction

__version__ = "0.1.0"

# name -> module; imported at the first use, since the toolkit imports parts of this package and not the rest
_DOOR = {
    "DataError": "defectlab_runtime.errors",
    "Description": "defectlab_runtime.description",
    "DescriptionError": "defectlab_runtime.errors",
    "Detector": "defectlab_runtime.detector",
    "InputError": "defectlab_runtime.errors",
    "Prediction": "defectlab_runtime.prediction",
}

__all__ = ["DataError", "Description", "DescriptionError", "Detector", "InputError", "Prediction", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_DOOR[name]), name)
