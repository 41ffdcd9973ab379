"""DefectLab: train, compare and apply visual anomaly detectors on photographs of your own parts.

The names below are the public door; each is imported on first use, because torch and anomalib take seconds to load
and `defectlab --help` needs neither.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from defectlab.logs import ignore_import_warnings
from defectlab.telemetry import switch_off_telemetry

__version__ = "0.1.0"

switch_off_telemetry()  # before anything imports anomalib

_DOOR = {
    "Engine": "defectlab.engine",
    "Folder": "defectlab.data.folder",
    "Padim": "defectlab.models.padim",
    "Patchcore": "defectlab.models.patchcore",
    "Cflow": "defectlab.models.cflow",
    "BigConvVae": "defectlab.models.vae",
    "LinearVae": "defectlab.models.vae",
    "SmallConvVae": "defectlab.models.vae",
    "Csflow": "defectlab.models.csflow",
    "Draem": "defectlab.models.draem",
    "EfficientAd": "defectlab.models.efficient_ad",
    "Stfpm": "defectlab.models.stfpm",
    "distil_teacher": "defectlab.models.distil",
    "Fastflow": "defectlab.models.fastflow",
    "FeatCae": "defectlab.models.featcae",
    "Detector": "defectlab.predict",
    "Prediction": "defectlab.predict",
    "Experiment": "defectlab.experiment",
    "run": "defectlab.experiment",
    "run_many": "defectlab.many",
    "Run": "defectlab.results.record",
    "Preprocessing": "defectlab.preprocessing",
    "load_backbone": "defectlab.backbones",
    "model_class": "defectlab.models.registry",
    "nearest_good_patches": "defectlab.explain",
    "predict_to_folder": "defectlab.scoring",
    "report_predictions": "defectlab.prediction_report",
    "save_panel": "defectlab.pictures",
    "sweep": "defectlab.sweeps.run",
    "write_report": "defectlab.report",
    "make_sample": "defectlab.data.samples",
    "build_manifest": "defectlab.data.manifest",
    "InputError": "defectlab.errors",
}

__all__ = [
    "BigConvVae",
    "Cflow",
    "Csflow",
    "Detector",
    "Draem",
    "EfficientAd",
    "Engine",
    "Experiment",
    "Fastflow",
    "FeatCae",
    "Folder",
    "InputError",
    "LinearVae",
    "Padim",
    "Patchcore",
    "Prediction",
    "Preprocessing",
    "Run",
    "SmallConvVae",
    "Stfpm",
    "__version__",
    "build_manifest",
    "distil_teacher",
    "load_backbone",
    "make_sample",
    "model_class",
    "nearest_good_patches",
    "predict_to_folder",
    "report_predictions",
    "run",
    "run_many",
    "save_panel",
    "sweep",
    "write_report",
]

if TYPE_CHECKING:
    from defectlab.backbones import load_backbone
    from defectlab.data.folder import Folder
    from defectlab.data.manifest import build_manifest
    from defectlab.data.samples import make_sample
    from defectlab.engine import Engine
    from defectlab.errors import InputError
    from defectlab.experiment import Experiment, run
    from defectlab.explain import nearest_good_patches
    from defectlab.many import run_many
    from defectlab.models.cflow import Cflow
    from defectlab.models.csflow import Csflow
    from defectlab.models.distil import distil_teacher
    from defectlab.models.draem import Draem
    from defectlab.models.efficient_ad import EfficientAd
    from defectlab.models.fastflow import Fastflow
    from defectlab.models.featcae import FeatCae
    from defectlab.models.padim import Padim
    from defectlab.models.patchcore import Patchcore
    from defectlab.models.registry import model_class
    from defectlab.models.stfpm import Stfpm
    from defectlab.models.vae import BigConvVae, LinearVae, SmallConvVae
    from defectlab.pictures import save_panel
    from defectlab.predict import Detector, Prediction
    from defectlab.prediction_report import report_predictions
    from defectlab.preprocessing import Preprocessing
    from defectlab.report import write_report
    from defectlab.results.record import Run
    from defectlab.scoring import predict_to_folder
    from defectlab.sweeps.run import sweep


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'defectlab' has no attribute {name!r}")
    with warnings.catch_warnings():
        ignore_import_warnings()
        return getattr(import_module(_DOOR[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
