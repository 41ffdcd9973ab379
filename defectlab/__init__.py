"""DefectLab: train, compare and apply visual anomaly detectors on photographs of your own parts.

The names below are the public door; each is imported on first use, because torch and anomalib take seconds to load
and `defectlab --help` needs neither.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from defectlab.utils.logs import ignore_import_warnings
from defectlab.utils.telemetry import switch_off_telemetry
from defectlab.utils.version import __version__

if TYPE_CHECKING:
    from defectlab.backbones.loading import load_backbone
    from defectlab.data.folder import Folder
    from defectlab.data.manifest.manifest import build_manifest
    from defectlab.data.samples import make_sample
    from defectlab.data.transforms.preprocessing import Preprocessing
    from defectlab.engine.engine import Engine
    from defectlab.experiment import Experiment, run
    from defectlab.export.export import export_run
    from defectlab.inference.detector import Detector
    from defectlab.inference.nearest_patches import nearest_good_patches
    from defectlab.inference.prediction_files import predict_to_folder
    from defectlab.inference.prediction_report import report_predictions
    from defectlab.models.cflow.lightning_model import Cflow
    from defectlab.models.csflow import Csflow
    from defectlab.models.draem import Draem
    from defectlab.models.efficient_ad.distillation import distil_teacher
    from defectlab.models.efficient_ad.lightning_model import EfficientAd
    from defectlab.models.fastflow import Fastflow
    from defectlab.models.featcae import FeatCae
    from defectlab.models.padim.lightning_model import Padim
    from defectlab.models.patchcore.lightning_model import Patchcore
    from defectlab.models.registry import model_class
    from defectlab.models.stfpm import Stfpm
    from defectlab.models.subspace.lightning_model import Subspace
    from defectlab.models.vae.lightning_model import BigConvVae, LinearVae, SmallConvVae
    from defectlab.results.run.run import Run
    from defectlab.sweeps.run_many import run_many
    from defectlab.sweeps.sweep import sweep
    from defectlab.visualization.report import write_report
    from defectlab.visualization.run_panel import save_panel
    from defectlab_runtime.errors import InputError
    from defectlab_runtime.prediction import Prediction

switch_off_telemetry()  # before anything imports anomalib

_DOOR = {
    "Engine": "defectlab.engine.engine",
    "Folder": "defectlab.data.folder",
    "Padim": "defectlab.models.padim.lightning_model",
    "Patchcore": "defectlab.models.patchcore.lightning_model",
    "Subspace": "defectlab.models.subspace.lightning_model",
    "Cflow": "defectlab.models.cflow.lightning_model",
    "BigConvVae": "defectlab.models.vae.lightning_model",
    "LinearVae": "defectlab.models.vae.lightning_model",
    "SmallConvVae": "defectlab.models.vae.lightning_model",
    "Csflow": "defectlab.models.csflow",
    "Draem": "defectlab.models.draem",
    "EfficientAd": "defectlab.models.efficient_ad.lightning_model",
    "Stfpm": "defectlab.models.stfpm",
    "distil_teacher": "defectlab.models.efficient_ad.distillation",
    "Fastflow": "defectlab.models.fastflow",
    "FeatCae": "defectlab.models.featcae",
    "Detector": "defectlab.inference.detector",
    "Prediction": "defectlab_runtime.prediction",
    "Experiment": "defectlab.experiment",
    "run": "defectlab.experiment",
    "run_many": "defectlab.sweeps.run_many",
    "Run": "defectlab.results.run.run",
    "Preprocessing": "defectlab.data.transforms.preprocessing",
    "load_backbone": "defectlab.backbones.loading",
    "model_class": "defectlab.models.registry",
    "export_run": "defectlab.export.export",
    "nearest_good_patches": "defectlab.inference.nearest_patches",
    "predict_to_folder": "defectlab.inference.prediction_files",
    "report_predictions": "defectlab.inference.prediction_report",
    "save_panel": "defectlab.visualization.run_panel",
    "sweep": "defectlab.sweeps.sweep",
    "write_report": "defectlab.visualization.report",
    "make_sample": "defectlab.data.samples",
    "build_manifest": "defectlab.data.manifest.manifest",
    "InputError": "defectlab_runtime.errors",
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
    "Subspace",
    "__version__",
    "build_manifest",
    "distil_teacher",
    "export_run",
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


def __getattr__(name: str) -> Any:
    if name not in _DOOR:
        raise AttributeError(f"module 'defectlab' has no attribute {name!r}")
    with warnings.catch_warnings():
        ignore_import_warnings()
        return getattr(import_module(_DOOR[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
