"""The engine: anomalib's Lightning loop, with options checked first and every run on record."""

import inspect
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from anomalib.engine import Engine as AnomalibEngine
from anomalib.engine.engine import _TrainerArgumentsCache
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader, Dataset

from defectlab import paths
from defectlab.bookkeeping import check_same_model, environment, start_run
from defectlab.data.folder import Folder, ImageFiles
from defectlab.data.sources import find_images
from defectlab.errors import InputError, OptionError
from defectlab.models.base import BaseDetector
from defectlab.models.checkpoint import read_record
from defectlab.models.registry import MODELS
from defectlab.models.restore import restore
from defectlab.options import check_option_names
from defectlab.quiet import quiet_lightning
from defectlab.recorder import Recorder
from defectlab.results.evaluate import evaluate_run
from defectlab.results.keep import check_keep_maps, drop_maps
from defectlab.results.record import Run
from defectlab.results.show import metrics_table

logger = logging.getLogger(__name__)

DEFAULT_EPOCHS = 30
PREDICT_BATCH = 8
_TRAINER_OPTIONS = [name for name in inspect.signature(Trainer.__init__).parameters if name != "self"]


class Engine(AnomalibEngine):
    """anomalib's Engine: the same calls, one run folder per fitted model, metrics from raw scores.

    Args:
        callbacks: More Lightning callbacks.
        logger: As in anomalib; none by default.
        default_root_dir: Where runs go; None is the project's `results/`.
        name: The run's name; None makes one from the settings, such as `resnet18_layer2-layer3_0.1_5`.
        keep_maps: Raw maps kept on disk once the metrics are computed: all, worst (about thirty) or none.
        kwargs: Lightning's Trainer options.

    Raises:
        OptionError: An option that the Trainer does not have, with the closest it has; zero epochs.
    """

    def __init__(
        self,
        callbacks: list[Callback] | None = None,
        logger: Logger | Iterable[Logger] | bool | None = None,
        default_root_dir: str | Path | None = None,
        name: str | None = None,
        keep_maps: str = "all",
        **kwargs: Any,
    ) -> None:
        check_option_names(kwargs, [*_TRAINER_OPTIONS, "name", "keep_maps"], "Engine")
        epochs = kwargs.get("max_epochs")
        if epochs is not None and (not isinstance(epochs, int) or epochs == 0 or epochs < -1):
            raise OptionError(f"Engine: max_epochs must be a whole number of at least 1, got {epochs!r}.")
        self._results = paths.results_dir() if default_root_dir is None else paths.resolve(default_root_dir)
        self._run_name = name
        self._keep_maps = check_keep_maps(keep_maps)
        self._arguments = {"enable_model_summary": False, **kwargs}
        self._given_callbacks = list(callbacks or [])
        self._given_logger = False if logger is None else logger
        self._recorder = Recorder()
        super().__init__(callbacks=callbacks, logger=logger, default_root_dir=self._results, **self._arguments)

    def fit(
        self,
        model: BaseDetector,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: Folder | None = None,
        ckpt_path: str | Path | None = None,
    ) -> None:
        """Train a model on the datamodule's training images and choose thresholds on its validation images.

        A model that was fitted before fits the new data alone. Writes the run folder (`running`, then `fitted`).

        Raises:
            InputError: Anything that cannot work, before training starts.
        """
        datamodule = self._checked(model, datamodule, train_dataloaders, val_dataloaders)
        checkpoint = self._resolve_checkpoint(ckpt_path)
        epochs = self._epochs(model)
        run = self._start_run(model, datamodule, epochs)
        self._new_trainer(model, run, max_epochs=epochs)
        with run.recording_failure():
            with quiet_lightning():
                super().fit(model, datamodule=datamodule, ckpt_path=checkpoint)
            if not datamodule.manifest.split("validation"):
                logger.warning("No validation images: no thresholds, so no labels and no F1 scores")
                nothing = {
                    "value": None,
                    "rule": None,
                    "source": None,
                    "reason": "no validation images",
                    "oracle": False,
                }
                run.update(thresholds={"image": nothing, "pixel": nothing})
            run.advance(
                "fitted",
                timings={stage: round(value, 3) for stage, value in self._recorder.seconds.items()},
                history=dict(self._recorder.history),
                environment=environment(str(self.trainer.strategy.root_device)),
            )
        self._moved(model, run)
        logger.info("Fitted %s in %.1f s: %s", model.name, self._recorder.seconds["fit"], run.checkpoint)

    def test(
        self,
        model: BaseDetector | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: Folder | None = None,
    ) -> list[dict[str, float | None]]:
        """Score the test images, compute the metrics at the run's own thresholds and finish the record.

        Works in a new kernel too: with `ckpt_path` in a run folder that run is finished. `ckpt_path` may be "best" or
        "last". A metric that cannot be computed is None; run.json says why.

        Raises:
            InputError: Model, checkpoint and datamodule do not belong together.
        """
        checkpoint = self._resolve_checkpoint(ckpt_path)
        model = self._model(model, checkpoint)
        datamodule = self._checked(model, datamodule, dataloaders)
        run, validated = self._run_to_test(model, datamodule, checkpoint)
        if run is not self._recorder.run or self._trainer is None or self._trainer.lightning_module is not model:
            self._new_trainer(model, run)
        with run.recording_failure():
            if not validated and datamodule.manifest.split("validation"):
                logger.info("Choosing thresholds on the validation images first: this checkpoint has none on record")
                with quiet_lightning():
                    self.trainer.validate(model, datamodule=datamodule, ckpt_path=checkpoint, verbose=False)
            if datamodule.manifest.split("test"):
                with quiet_lightning():
                    super().test(model, datamodule=datamodule, ckpt_path=checkpoint, verbose=False)
            else:
                logger.warning("No test images: the metrics are not available")
            timings = run.record.get("timings", {}) | {"test": round(self._recorder.seconds["test"], 3)}
            run.update(maps={"kept": "all"})
            results = evaluate_run(run)
            run.advance("finished", timings=timings, maps=drop_maps(run, self._keep_maps), **results)
        self._moved(model, run)
        if verbose:
            metrics_table(run)
        return [dict(run.record["metrics"])]

    def train(
        self,
        model: BaseDetector,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        test_dataloaders: Any = None,
        datamodule: Folder | None = None,
        ckpt_path: str | Path | None = None,
    ) -> list[dict[str, float | None]]:
        """Fit, then test."""
        datamodule = self._checked(model, datamodule, train_dataloaders, val_dataloaders, test_dataloaders)
        self.fit(model=model, datamodule=datamodule, ckpt_path=ckpt_path)
        return self.test(model=model, datamodule=datamodule)

    def predict(
        self,
        model: BaseDetector | None = None,
        dataloaders: Any = None,
        datamodule: Folder | None = None,
        dataset: Dataset | None = None,
        return_predictions: bool | None = None,
        ckpt_path: str | Path | None = None,
        data_path: str | Path | None = None,
    ) -> Any:
        """Score images: the datamodule's test images, a dataset, or files under `data_path`.

        Returns:
            Batches with `image_path`, `pred_score` and `anomaly_map` (raw), `pred_label` and `pred_mask` (at the
            run's thresholds).
        """
        checkpoint = self._resolve_checkpoint(ckpt_path)
        model = self._model(model, checkpoint)
        if data_path is not None:
            loader = _loader(ImageFiles(find_images(paths.resolve(data_path)), model.preprocessing))
            dataloaders = [*([dataloaders] if isinstance(dataloaders, DataLoader) else dataloaders or []), loader]
        if dataloaders is None and datamodule is None and dataset is None:
            raise InputError(
                "predict needs images: give datamodule=..., data_path=..., dataset=... or dataloaders=...."
            )
        run = Run.of_checkpoint(checkpoint) if checkpoint else self._run_of(model)
        if run is None or run is not self._recorder.run or self.trainer.lightning_module is not model:
            self._new_trainer(model, run)
        data = None if dataloaders else datamodule
        with quiet_lightning():
            return super().predict(model, dataloaders, data, dataset, return_predictions, checkpoint)

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

    def _epochs(self, model: BaseDetector) -> int:
        given, fixed = self._arguments.get("max_epochs"), MODELS[model.model_name].epochs
        if fixed is not None:
            if given not in (None, fixed):
                logger.info("%s fits in %d epoch; max_epochs=%s is not used", model.name, fixed, given)
            return fixed
        if given is None:
            logger.info("%s: max_epochs=%d, since none was given", model.name, DEFAULT_EPOCHS)
            return DEFAULT_EPOCHS
        return given

    def _start_run(self, model: BaseDetector, datamodule: Folder, epochs: int) -> Run:
        return start_run(model, datamodule, self._arguments | {"max_epochs": epochs}, self._run_name, self._results)

    def _new_trainer(self, model: BaseDetector, run: Run | None, **overrides: Any) -> None:
        """Give each fitted model a trainer, callbacks and a folder of its own; plain anomalib keeps the first ones."""
        self._recorder = Recorder()
        self._recorder.run = run
        self._trainer = None
        self._cache = _TrainerArgumentsCache(
            callbacks=[*self._given_callbacks, self._recorder],
            logger=self._given_logger,
            default_root_dir=run.folder if run else self._results,
            **(self._arguments | overrides),
        )
        with quiet_lightning():
            self._setup_trainer(model)

    def _setup_workspace(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's folder was made before; plain anomalib would nest another into it."""

    def _setup_trainer(self, model: BaseDetector) -> None:
        if self._trainer is None:
            super()._setup_trainer(model)

    def _resolve_checkpoint(self, ckpt_path: str | Path | None) -> Path | None:
        if ckpt_path is None:
            return None
        if str(ckpt_path) in ("best", "last"):
            callback = self.checkpoint_callback
            found = callback and (callback.best_model_path if str(ckpt_path) == "best" else _last(callback))
            if not found:
                raise InputError(
                    f"ckpt_path={ckpt_path!r}: this engine has fitted nothing yet; give a checkpoint's path."
                )
            return Path(found)
        path = paths.resolve(ckpt_path)
        if path.is_dir():
            path = Run.open(path).checkpoint
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
        return model

    def _run_of(self, model: BaseDetector) -> Run | None:
        return Run.open(model.run_folder) if model.run_folder and (model.run_folder / "run.json").is_file() else None

    def _run_to_test(self, model: BaseDetector, datamodule: Folder, checkpoint: Path | None) -> tuple[Run, bool]:
        """Return the run that this test completes, and whether its thresholds belong to these weights."""
        run = self._recorder.run if checkpoint is None and model.run_folder else None
        if run is None or run.folder != model.run_folder:
            run = Run.of_checkpoint(checkpoint) if checkpoint else self._run_of(model)
        if run is None or run.record["dataset"]["manifest"] != datamodule.manifest.hash:
            if run is not None:
                logger.info("The images are not those of %s: this test becomes a run of its own", run.folder.name)
            run = self._start_run(model, datamodule, self._epochs(model))
            run.update(checkpoint=paths.relative(checkpoint) if checkpoint else None)
            return run, False
        if checkpoint is None:
            return run, bool(run.record["thresholds"])
        return run, read_record(checkpoint)["epoch"] == run.record.get("validation_epoch")

    def _moved(self, model: BaseDetector, run: Run) -> None:
        """Follow a run that took its earlier one's place."""
        model.run_folder = run.folder
        callback = self.checkpoint_callback
        if callback is not None and callback.best_model_path:
            inside = Path(*Path(callback.best_model_path).parts[-3:])
            callback.best_model_path = str(run.folder / inside)
            if callback.last_model_path:
                callback.last_model_path = str(run.folder / Path(*Path(callback.last_model_path).parts[-3:]))


def _last(callback: ModelCheckpoint) -> str:
    return callback.last_model_path or callback.best_model_path


def _loader(dataset: ImageFiles) -> DataLoader:
    return DataLoader(dataset, batch_size=PREDICT_BATCH, collate_fn=dataset.collate_fn)
