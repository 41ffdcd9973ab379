"""What every call of the engine shares: its options, a trainer of its own, the weights that are kept."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from anomalib.engine import Engine as AnomalibEngine
from anomalib.engine.engine import _TrainerArgumentsCache
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger

from defectlab.data.folder import Folder
from defectlab.engine.best_epoch import BestEpoch, CheckpointPolicy
from defectlab.engine.checkpoints import weights_only_checkpoints
from defectlab.engine.input_region import apply_checkpoint_region
from defectlab.engine.progress_bars import StageBars
from defectlab.engine.recorder import Recorder
from defectlab.engine.run_finish import complete_thresholds
from defectlab.engine.run_start import check_same_model
from defectlab.engine.trackers import TrackerSpec, make_trackers
from defectlab.engine.trackers.tracker import RunTracker
from defectlab.engine.trainer_options import check_trainer_options
from defectlab.models.base import BaseDetector
from defectlab.models.loading import restore
from defectlab.models.registry import MODELS, model_info
from defectlab.results.map_retention import check_keep_maps
from defectlab.results.pixel_grid import PixelSize, check_pixel_size
from defectlab.results.run.log import logged
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.errors import InputError
from defectlab.utils.logs import quiet_lightning, show_log
from defectlab.utils.progress import watched
from defectlab.utils.validation import check_flag

logger = logging.getLogger(__name__)


class EngineTrainers(AnomalibEngine):
    """anomalib's Engine with a trainer for each call, whose run is on record; `Engine` has its options."""

    def __init__(
        self,
        callbacks: Sequence[Callback | RunTracker] | None = None,
        logger: Logger | Iterable[Logger] | bool | None = None,
        default_root_dir: str | Path | None = None,
        name: str | None = None,
        keep_maps: str = "all",
        pixel_size: PixelSize = "input",
        aupimo: bool = False,
        loggers: Sequence[TrackerSpec] = (),
        monitor: str | None = None,
        patience: int | None = None,
        keep: str | None = None,
        keep_checkpoint: str | None = None,
        find_batch_size: bool = False,
        **kwargs: Any,
    ) -> None:
        check_trainer_options(kwargs)
        self._keeping = CheckpointPolicy(monitor, patience, keep, keep_checkpoint)
        self._keeping.check()
        check_flag("Engine", "find_batch_size", find_batch_size)
        self._find_batch_size = find_batch_size
        self._best: BestEpoch | None = None
        given = [*(callbacks or []), *make_trackers(loggers)]
        self._trackers = [one for one in given if isinstance(one, RunTracker)]
        self._given_callbacks = [one for one in given if not isinstance(one, RunTracker)]
        self._results = paths.results_dir() if default_root_dir is None else paths.resolve(default_root_dir)
        self._run_name = name
        self._keep_maps = check_keep_maps(keep_maps)
        self._evaluation: dict[str, Any] = {"pixel_size": check_pixel_size(pixel_size), "aupimo": aupimo}
        devices = 1 if kwargs.get("devices", "auto") == "auto" else kwargs["devices"]
        defaults = {"enable_model_summary": False, "enable_progress_bar": watched()}
        self._arguments = {**defaults, **kwargs, "devices": devices}
        show_log()
        self._given_logger = False if logger is None else logger
        self._recorder = Recorder()
        self._checkpoints: dict[str, Path] = {}
        super().__init__(
            callbacks=self._given_callbacks, logger=logger, default_root_dir=self._results, **self._arguments
        )

    @property
    def best_model_path(self) -> str | None:
        """Checkpoint of the last fit, the best one where a callback monitors something."""
        return str(self._checkpoints["best"]) if self._checkpoints else None

    def add_callback(self, callback: Callback) -> None:
        """Add a Lightning callback to those given; trainings from now on have it."""
        self._given_callbacks.append(callback)

    @property
    def results_folder(self) -> Path:
        """Where runs go."""
        return self._results

    @property
    def device(self) -> torch.device:
        """Where a model trains: what `accelerator` and `devices` ask for, as far as this machine has it."""
        wanted, devices = str(self._arguments.get("accelerator", "auto")), self._arguments["devices"]
        if wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available():
            return torch.device("cuda", devices[0] if isinstance(devices, list) else 0)
        if wanted in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")

    def _checked(self, model: BaseDetector, datamodule: Folder | None, *loaders: Any) -> Folder:
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

    def _keeping_of(self, model: BaseDetector, datamodule: Folder) -> CheckpointPolicy:
        keeping = self._keeping.of(model)
        its_own_wish = keeping.monitor is not None and self._keeping.monitor is None
        if its_own_wish and not any(entry.label == 0 for entry in datamodule.manifest.split("validation")):
            logger.info("No good validation images: %s keeps its last epoch, not its best", model.name)
            return replace(keeping, monitor=None, keep="last")
        keeping.check_images(model, datamodule)
        return keeping

    def _options(self, model: BaseDetector) -> dict[str, Any]:
        found = {"find_batch_size": True} if self._find_batch_size else {}
        return self._arguments | found | {"max_epochs": self._epochs(model)}

    def _epochs(self, model: BaseDetector) -> int:
        given, info = self._arguments.get("max_epochs"), model_info(model.model_name)
        fixed = info.epochs
        if fixed is not None:
            if given not in (None, fixed):
                logger.info("%s fits in %d epoch; max_epochs=%s is not used", model.name, fixed, given)
            return fixed
        if given is None:
            logger.info("%s: max_epochs=%d, since none was given", model.name, info.default_epochs)
            return info.default_epochs
        return given

    @contextmanager
    def _on_record(self, run: Run) -> Iterator[None]:
        """Run Lightning quietly; what goes wrong is kept in the record, Ctrl-C as what it was."""
        with logged(run), run.recording_failure(), quiet_lightning():
            try:
                yield
            except SystemExit as stop:  # what Lightning makes of Ctrl-C
                raise (self._recorder.exception or stop) from None

    def _new_trainer(
        self, model: BaseDetector, run: Run | None, keeping: CheckpointPolicy | None = None, **overrides: Any
    ) -> None:
        """Give each call a trainer and callbacks of its own; plain anomalib keeps those of its first model."""
        self._recorder = Recorder(run, self._trackers)
        self._trainer = None
        self._best = BestEpoch(keeping, self._recorder) if keeping is not None and keeping.monitor else None
        own: list[Callback] = [self._best] if self._best is not None else []
        if keeping is not None and keeping.checkpoint != "all" and run is not None:
            own += weights_only_checkpoints(self._given_callbacks, run)
        self._cache = _TrainerArgumentsCache(
            callbacks=[*self._given_callbacks, self._recorder, *own, *self._bars()],
            logger=self._given_logger,
            default_root_dir=run.folder if run else self._results,
            **(self._arguments | overrides),
        )
        with quiet_lightning():
            self._setup_trainer(model)

    def _bars(self) -> list[Callback]:
        own = any(isinstance(callback, ProgressBar) for callback in self._given_callbacks)
        return [StageBars()] if self._arguments["enable_progress_bar"] and not own else []

    def _setup_workspace(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's folder was made before; plain anomalib would nest another into it."""

    def _setup_trainer(self, model: BaseDetector) -> None:
        if self._trainer is None:
            super()._setup_trainer(model)

    def _keep_weights(self, model: BaseDetector, run: Run, datamodule: Folder, keeping: CheckpointPolicy) -> None:
        """See to it that the run's checkpoint, its thresholds and the model in memory are of one epoch."""
        callback = self.checkpoint_callback
        best = Path(callback.best_model_path) if callback and callback.best_model_path else run.checkpoint
        only_weights = keeping.checkpoint != "all"
        epoch = last = self.trainer.current_epoch - 1
        if self._best is not None:
            epoch = self._best.restore(model, last)
            run.update(monitor=self._best.record())
            best = run.checkpoint
        validates = bool(datamodule.manifest.split("validation")) and bool(run.record["thresholds"])
        if validates and (run.record["validation_epoch"] != last or epoch != last):
            if epoch == last:
                logger.info("The last epoch was not validated: choosing the thresholds for its weights now")
            self._recorder.keeps_epoch_losses = epoch == last
            self.trainer.validate(model, datamodule=datamodule, verbose=False)
            run.update(validation_epoch=epoch)
            self.trainer.save_checkpoint(run.checkpoint, weights_only=only_weights)
        elif not run.checkpoint.is_file():
            self.trainer.save_checkpoint(run.checkpoint, weights_only=only_weights)
        complete_thresholds(run)
        self._checkpoints = {"best": best, "last": run.checkpoint}

    def _follow(self, before: Path, now: Path) -> None:
        """Follow a run that took its earlier one's place."""
        self._checkpoints = {
            name: now / path.relative_to(before) if path.is_relative_to(before) else path
            for name, path in self._checkpoints.items()
        }

    def _resolve_checkpoint(self, ckpt_path: str | Path | None) -> Path | None:
        if ckpt_path is None:
            return None
        if str(ckpt_path) in ("best", "last"):
            if not self._checkpoints:
                raise InputError(
                    f"ckpt_path={ckpt_path!r}: this engine has fitted nothing yet; give a checkpoint's path."
                )
            return self._checkpoints[str(ckpt_path)]
        path = paths.resolve(ckpt_path)
        if path.is_dir():
            path = Run.open(path).checkpoint_file()
        if not path.is_file():
            raise InputError(f"There is no checkpoint at {path}. Runs and their checkpoints lie under {self._results}.")
        return path

    def _model(self, model: BaseDetector | None, checkpoint: Path | None) -> BaseDetector:
        if model is None and checkpoint is not None:
            return restore(checkpoint)
        if model is None:
            if self._trainer is None or self._trainer.lightning_module is None:
                raise InputError("There is no model: give model=..., or ckpt_path=... of a DefectLab checkpoint.")
            fitted = self._trainer.lightning_module
            assert isinstance(fitted, BaseDetector)
            return fitted
        if checkpoint is not None:
            check_same_model(model, checkpoint)
            apply_checkpoint_region(model, checkpoint)
        elif isinstance(model, BaseDetector) and not model.is_fitted:
            raise InputError(f"This {model.name} has not been fitted: call fit first, or give ckpt_path=....")
        return model
