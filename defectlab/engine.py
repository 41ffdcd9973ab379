"""The engine: anomalib's Lightning loop, with options checked first and every run on record."""

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
from torch.utils.data import DataLoader, Dataset

from defectlab import paths
from defectlab.batch_size import find_batch_size, gives_batch_size_back
from defectlab.bookkeeping import check_same_model, describe_run, environment, run_to_test, start_run, weights_run
from defectlab.checkpoints import check_resumable, drop_checkpoint, weights_only_checkpoints
from defectlab.data.folder import Folder, ImageFiles
from defectlab.data.sources import find_images
from defectlab.errors import InputError
from defectlab.fields_of_view import check_follows, follow_checkpoint, follow_data
from defectlab.files import replacing
from defectlab.finishing import complete_thresholds, finish_run
from defectlab.loggers import Spec, make_loggers
from defectlab.loggers.mirror import Mirror
from defectlab.logs import show_log
from defectlab.memory import free_memory, is_out_of_memory
from defectlab.models.base import BaseDetector
from defectlab.models.registry import MODELS, model_info
from defectlab.models.restore import restore
from defectlab.monitoring import BestEpoch, Keeping
from defectlab.options import check_flag
from defectlab.progress import watched
from defectlab.quiet import quiet_lightning
from defectlab.recorder import Recorder, set_decisions
from defectlab.results.grid import PixelSize, check_pixel_size
from defectlab.results.identity import experiment_id
from defectlab.results.keep import check_keep_maps
from defectlab.results.record import CHECKPOINT, Run, find_runs
from defectlab.results.run_log import logged
from defectlab.results.show import summary
from defectlab.results.workbook import update_workbook
from defectlab.seeds import seeded
from defectlab.stage_bars import StageBars
from defectlab.tile_picture import save_tile_picture
from defectlab.trainer_options import check_trainer_options

logger = logging.getLogger(__name__)

PREDICT_BATCH = 8


class Engine(AnomalibEngine):
    """anomalib's Engine: the same calls, one run folder per fitted model, metrics from raw scores.

    Args:
        callbacks: More Lightning callbacks; one with `on_run_finished(run)` hears of each tested run on record.
        logger: As in anomalib; none by default.
        loggers: Trackers that get a copy of each run, such as ["csv", {"name": "mlflow"}]: see `defectlab.loggers`.
        default_root_dir: Where runs go; None is the project's `results/`.
        name: The run's name; None makes one from the settings, such as `resnet18_layer2-layer3_0.1_5`.
        keep_maps: Raw maps kept on disk once the metrics are computed: all, worst (about thirty) or none.
        pixel_size: Grid of the pixel metrics: input (the model's own), original (each mask's own, the maps brought to
            it) or [height, width].
        aupimo: Whether the test computes pixel_AUPIMO too, through anomalib; it takes long and much memory.
        monitor: A metric of the validation images that says which epoch is best: image_AUROC, image_F1Max, pixel_AUROC,
            pixel_F1Max, pixel_AUPR, pixel_AUPRO or val_good_loss (see `Keeping`, for the next three too).
        patience: So many validations without a better one end the training, as does a score of 1.
        keep: Weights of the best epoch (where something is monitored) or of the last.
        keep_checkpoint: all, weights (without the optimiser's state) or none (removed once the run is tested).
        find_batch_size: Whether `fit` first tries which training batch memory holds (`find_batch_size`).
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
        pixel_size: PixelSize = "input",
        aupimo: bool = False,
        loggers: Sequence[Spec] = (),
        monitor: str | None = None,
        patience: int | None = None,
        keep: str | None = None,
        keep_checkpoint: str | None = None,
        find_batch_size: bool = False,
        **kwargs: Any,
    ) -> None:
        check_trainer_options(kwargs)
        self._keeping = Keeping(monitor, patience, keep, keep_checkpoint)
        self._keeping.check()
        check_flag("Engine", "find_batch_size", find_batch_size)
        self._find_batch_size = find_batch_size
        self._best: BestEpoch | None = None
        callbacks = [*(callbacks or []), *make_loggers(loggers)]
        self._results = paths.results_dir() if default_root_dir is None else paths.resolve(default_root_dir)
        self._run_name = name
        self._keep_maps = check_keep_maps(keep_maps)
        self._evaluation: dict[str, Any] = {"pixel_size": check_pixel_size(pixel_size), "aupimo": aupimo}
        devices = 1 if kwargs.get("devices", "auto") == "auto" else kwargs["devices"]
        defaults = {"enable_model_summary": False, "enable_progress_bar": watched()}
        self._arguments = {**defaults, **kwargs, "devices": devices}
        show_log()
        self._given_callbacks = list(callbacks)
        self._given_logger = False if logger is None else logger
        self._recorder = Recorder()
        self._checkpoints: dict[str, Path] = {}
        super().__init__(callbacks=callbacks, logger=logger, default_root_dir=self._results, **self._arguments)

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

    @gives_batch_size_back
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
        follow_data(model, datamodule)
        model.check_training(datamodule)
        keeping = self._keeping_of(model, datamodule)
        if checkpoint is not None:
            check_resumable(checkpoint)
        if self._find_batch_size:
            datamodule.train_batch_size = find_batch_size(model, datamodule, device=self.device.type)
        options = self._options(model) | keeping.facts()
        run = start_run(model, datamodule, options, self._run_name, self._results, **self._evaluation)
        model.run_folder = None
        if model.preprocessing.tiling is not None:
            manifest = datamodule.manifest
            first = manifest.absolute(manifest.split("train")[0])
            save_tile_picture(first, model.preprocessing, run.folder / "tiles.png")
        self._new_trainer(model, run, keeping, max_epochs=options["max_epochs"])
        with self._on_record(run), seeded(model.seed, "training"):
            super().fit(model, datamodule=datamodule, ckpt_path=checkpoint)
            self._keep_weights(model, run, datamodule, keeping)
            before = run.folder
            run.advance(
                "fitted",
                timings={stage: round(value, 3) for stage, value in self._recorder.seconds.items()},
                history=self._recorder.finite_history(),
                environment=environment(str(self.trainer.strategy.root_device)),
            )
            self._follow(before, run.folder)
        model.run_folder = run.folder
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

        Works in a new kernel too: with a run's checkpoint as `ckpt_path` that run is finished. "best" and "last" are
        those of this engine's last fit. Images or weights that are not the run's make a run of their own. A metric that
        cannot be computed is None; run.json says why.

        Raises:
            InputError: Model, checkpoint and datamodule do not belong together.
        """
        checkpoint = self._resolve_checkpoint(ckpt_path)
        model = self._model(model, checkpoint)
        datamodule = self._checked(model, datamodule, dataloaders)
        check_follows(model, datamodule)
        source = weights_run(model, checkpoint)
        run = run_to_test(model, datamodule, checkpoint, source, self._run_name, self._results, **self._evaluation)
        self._new_trainer(model, run)
        with self._on_record(run):
            if not run.record["thresholds"]:
                self._choose_thresholds(model, run, datamodule, checkpoint, source)
            if datamodule.manifest.split("test"):
                self._score_test(model, run, datamodule, checkpoint)
            else:
                logger.warning("No test images: the metrics are not available")
            before = run.folder
            self.complete(model, run, datamodule, {"test": self._recorder.seconds["test"]})
            self._follow(before, run.folder)
        if source is not None and source.folder == before:
            source = run
        if self._keeping.checkpoint == "none" and checkpoint is None:
            drop_checkpoint(run)
        model.run_folder = source.folder if source else None
        self._publish(run, verbose)
        self.announce(run)
        return [dict(run.record["metrics"])]

    def _score_test(self, model: BaseDetector, run: Run, datamodule: Folder, checkpoint: Path | None) -> None:
        """Score the test images; out of memory, again with half the batch."""
        while True:
            try:
                super().test(model, datamodule=datamodule, ckpt_path=checkpoint, verbose=False)
            except (RuntimeError, MemoryError) as error:
                size = datamodule.eval_batch_size
                if not is_out_of_memory(error) or size == 1:
                    raise
                datamodule.eval_batch_size = size // 2
                logger.warning("Out of memory with %d images a batch: testing again with %d", size, size // 2)
            else:
                return
            free_memory()
            self._new_trainer(model, run)

    def _publish(self, run: Run, verbose: bool) -> None:
        """Add the run to the workbook and print what it came to; the run is finished and on record whatever happens."""
        try:
            outcome = update_workbook(run)
            if verbose:
                summary(run, outcome.rows)
        except Exception:  # a workbook can hold anything a person put there
            logger.exception(
                "The run is finished and on record, but %s could not take its row. Mend the workbook or move it away, "
                "then run `defectlab compare`.",
                paths.workbook(),
            )

    def announce(self, run: Run, *, elsewhere: bool = False) -> None:
        """Tell the callbacks that a run is tested and on record, as `test` does: trackers take their copies.

        With `elsewhere` it was trained where they could not follow: they take its curves from the record too.
        """
        for callback in self._given_callbacks:
            if elsewhere and isinstance(callback, Mirror):
                callback.copy_curves(run)
            if hasattr(callback, "on_run_finished"):
                callback.on_run_finished(run)

    def leave_to_others(self) -> None:
        """Copy nothing to trackers from now on: another process does it (`announce`)."""
        self._given_callbacks = [one for one in self._given_callbacks if not isinstance(one, Mirror)]

    def begin(self, model: BaseDetector, datamodule: Folder) -> Run:
        """Begin the record of `model` on `datamodule`, as `fit` does; for scores that are computed elsewhere."""
        datamodule = self._checked(model, datamodule)
        follow_data(model, datamodule)
        options = self._options(model) | self._keeping_of(model, datamodule).facts()
        return start_run(model, datamodule, options, self._run_name, self._results, **self._evaluation)

    def complete(
        self, model: BaseDetector, run: Run, datamodule: Folder, timings: dict[str, float], **fields: Any
    ) -> None:
        """Finish a run whose raw scores are on record, as `test` does; `fields` go into its record too."""
        complete_thresholds(run)
        options: dict[str, Any] = {"keep_maps": self._keep_maps, "aupimo": self._evaluation["aupimo"]}
        finish_run(run, model, datamodule.manifest, timings, **options, **fields)

    def write_checkpoint(self, model: BaseDetector, run: Run) -> Path:
        """Write the checkpoint of a model that was fitted elsewhere to what `run` has on record, thresholds included.

        It loads as the one that `fit` writes; `test` and `predict` continue from it.
        """
        set_decisions(model, run)
        self._new_trainer(model, run)
        self.trainer.strategy.connect(model)  # what fit, test and predict do first; saving refuses to go without
        with replacing(run.checkpoint) as partial:
            self.trainer.save_checkpoint(partial, weights_only=False)
        run.update(checkpoint=CHECKPOINT)
        model.run_folder = run.folder
        for callback in self._given_callbacks:
            if isinstance(callback, Mirror):
                callback.take_checkpoint(run)
        return run.checkpoint

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

    def validate(
        self,
        model: BaseDetector | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: Folder | None = None,
    ) -> Any:
        """Run the validation loop for a user's own callbacks and metrics; records keep what `fit` found."""
        checkpoint = self._resolve_checkpoint(ckpt_path)
        model = self._model(model, checkpoint)
        datamodule = self._checked(model, datamodule, dataloaders)
        check_follows(model, datamodule)
        source = weights_run(model, checkpoint)
        self._new_trainer(model, None)
        with quiet_lightning():
            results = super().validate(model, None, checkpoint, verbose, datamodule)
        model.run_folder = source.folder if source else None
        return results

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
        loaders = [dataloaders] if isinstance(dataloaders, DataLoader) else list(dataloaders or [])
        if data_path is not None:
            files = ImageFiles(find_images(data_path), model.preprocessing)
            loaders.append(DataLoader(files, batch_size=PREDICT_BATCH, collate_fn=files.collate_fn))
        if not loaders and datamodule is None and dataset is None:
            raise InputError(
                "predict needs images: give datamodule=..., data_path=..., dataset=... or dataloaders=...."
            )
        if isinstance(datamodule, Folder):
            check_follows(model, datamodule)
        source = weights_run(model, checkpoint)
        self._new_trainer(model, source)
        with quiet_lightning():
            batches = super().predict(
                model, loaders or None, None if loaders else datamodule, dataset, return_predictions, checkpoint
            )
        model.run_folder = source.folder if source else None
        return batches

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

    def finished_run(self, model: BaseDetector, datamodule: Folder) -> Run | None:
        """Return the finished run of what `train` would do now: same settings, seed, images, split and backbone."""
        follow_data(model, datamodule)
        model.check_training(datamodule)
        wanted = self.run_id(model, datamodule)
        same = (run for run in find_runs(self._results) if run.record["run_id"] == wanted)
        exact = (run for run in same if run.features_dtype == "float32")
        return next((run for run in exact if run.status == "finished"), None)

    def run_id(self, model: BaseDetector, datamodule: Folder) -> str:
        """Return the id of what `train` would do now: equal for equal settings, seed, images, split and backbone."""
        follow_data(model, datamodule)
        options = self._options(model) | self._keeping_of(model, datamodule).facts()
        _, facts = describe_run(model, datamodule, options, self._run_name, **self._evaluation)
        return experiment_id(facts)

    def _keeping_of(self, model: BaseDetector, datamodule: Folder) -> Keeping:
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
        self, model: BaseDetector, run: Run | None, keeping: Keeping | None = None, **overrides: Any
    ) -> None:
        """Give each call a trainer and callbacks of its own; plain anomalib keeps those of its first model."""
        self._recorder = Recorder()
        self._recorder.run = run
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

    def _keep_weights(self, model: BaseDetector, run: Run, datamodule: Folder, keeping: Keeping) -> None:
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
            follow_checkpoint(model, checkpoint)
        elif isinstance(model, BaseDetector) and not model.is_fitted:
            raise InputError(f"This {model.name} has not been fitted: call fit first, or give ckpt_path=....")
        return model

    def _choose_thresholds(
        self, model: BaseDetector, run: Run, datamodule: Folder, checkpoint: Path | None, source: Run | None
    ) -> None:
        """Choose on the validation images; where there are none, take over those that belong to the weights."""
        if datamodule.manifest.split("validation"):
            logger.info("Choosing thresholds on the validation images first: there are none on record")
            self.trainer.validate(model, datamodule=datamodule, ckpt_path=checkpoint, verbose=False)
        if not run.record["thresholds"] and source is not None and source.record["thresholds"]:
            logger.info("No validation images: using the thresholds of %s", source.folder.name)
            taken = {
                level: {**chosen, "source": f"run {source.record['run_id']}"}
                for level, chosen in source.record["thresholds"].items()
            }
            run.update(thresholds=taken)
        complete_thresholds(run)
