"""Model and images that a call of the engine is given: checked, and completed by those of a checkpoint."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from defectlab.data.folder import Folder
from defectlab.engine.checkpoint_checks import check_same_model
from defectlab.engine.input_region import apply_checkpoint_region
from defectlab.models.base import BaseDetector
from defectlab.models.loading import restore
from defectlab.models.registry import MODELS
from defectlab_runtime.errors import InputError


def require_folder(model: BaseDetector, datamodule: Folder | None, *loaders: Any) -> Folder:
    """Return the datamodule of a call, which may be given in the place of the first of its `loaders`.

    Raises:
        InputError: The model is not one of DefectLab's, or there are loaders instead of a `Folder`.
    """
    if not isinstance(model, BaseDetector):
        names = ", ".join(f"defectlab.{info.class_name}" for info in MODELS.values())
        raise InputError(f"The engine runs DefectLab's models ({names}), got {type(model).__name__}.")
    if isinstance(loaders[0] if loaders else None, Folder) and datamodule is None:
        datamodule, loaders = loaders[0], ()
    if any(loader is not None for loader in loaders) or not isinstance(datamodule, Folder):
        raise InputError(
            "The engine needs datamodule=defectlab.Folder(...): its manifest is what makes a run repeatable. "
            "Folder(root=...) knows MVTec AD's layout by itself."
        )
    return datamodule


def require_fitted(model: BaseDetector | None, checkpoint: Path | None, last: LightningModule | None) -> BaseDetector:
    """Return the model of a call that trains nothing: the one given, else that of the checkpoint, else the `last` one.

    A given model takes the input region of the checkpoint that it will load.

    Raises:
        InputError: There is none, the checkpoint is not of this model, or the model has no weights to score with.
    """
    if model is None and checkpoint is not None:
        return restore(checkpoint)
    if model is None:
        if last is None:
            raise InputError("There is no model: give model=..., or ckpt_path=... of a DefectLab checkpoint.")
        assert isinstance(last, BaseDetector)
        return last
    if checkpoint is not None:
        check_same_model(model, checkpoint)
        apply_checkpoint_region(model, checkpoint)
    elif isinstance(model, BaseDetector) and not model.is_fitted:
        raise InputError(f"This {model.name} has not been fitted: call fit first, or give ckpt_path=....")
    return model
