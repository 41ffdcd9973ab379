"""The class `Engine`: anomalib's Lightning loop with checked options; every training and test writes a run's record."""

import logging
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from anomalib.engine import Engine as AnomalibEngine
from anomalib.engine.engine import _TrainerArgumentsCache
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader, Dataset

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.data.datasets import ImageFiles
from defectlab.data.folder import Folder
from defectlab.data.image_sources import find_readable_images
from defectlab.engine.added_folder import AddedFolder
from defectlab.engine.added_images import Images, prepare_addition
from defectlab.engine.arguments import require_fitted, require_folder
from defectlab.engine.batch_size import found_batch_size
from defectlab.engine.best_epoch import BestEpoch
from defectlab.engine.checkpoint_checks import check_resumable, run_of_weights
from defectlab.engine.checkpoint_policy import CheckpointPolicy
from defectlab.engine.checkpoints import drop_checkpoint, weights_only_checkpoints, with_digests
from defectlab.engine.input_region import apply_region, check_region, check_values
from defectlab.engine.k_shots import fit_few
from defectlab.engine.progress_bars import StageBars
from defectlab.engine.random_states import RandomStates
from defectlab.engine.recorder import Recorder, set_thresholds
from defectlab.engine.run_start import RunOptions, describe_run, environment, run_to_test, start_run
from defectlab.engine.run_writer import RunWriter
from defectlab.engine.trackers import TrackerSpec, make_trackers
from defectlab.engine.trackers.tracker import RunTracker
from defectlab.engine.trainer_options import check_trainer_options, epochs_of, training_device
from defectlab.evaluation.pixel.pixel_size import PixelSize, check_pixel_size
from defectlab.models.base import BaseDetector
from defectlab.models.loading import restore
from defectlab.models.memory_bank import MemoryBankDetector
from defectlab.results.evaluate import AUPIMO
from defectlab.results.map_retention import check_keep_maps
from defectlab.results.pixel_grid import pixel_size_of
from defectlab.results.run.identity import experiment_id
from defectlab.results.run.location import CHECKPOINT
from defectlab.results.run.log import logged
from defectlab.results.run.ownership import claim_of, release
from defectlab.results.run.run import Run, find_runs
from defectlab.utils import paths
from defectlab.utils.files import replacing
from defectlab.utils.logs import quiet_lightning, show_log
from defectlab.utils.memory import free_memory, is_out_of_memory
from defectlab.utils.progress import is_interactive
from defectlab.utils.seeds import seeded
from defectlab.utils.validation import check_flag
from defectlab.visualization.dataset import save_tile_picture
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

PREDICT_BATCH = 8


class Engine(AnomalibEngine):
    """anomalib's Engine: the same calls, one run folder per fitted model, metrics from raw scores.

    Args:
        callbacks: More Lightning callbacks; one with `on_run_finished(run)` hears of each tested run on record.
        logger: As in anomalib; none by default.
        loggers: Trackers that get a copy of each run, such as ["csv", {"name": "mlflow"}]: see `engine.trackers`.
        default_root_dir: Where runs go; None is the project's `results/`.
        name: The run's name; None makes one from the settings, such as `resnet18_layer2-layer3_0.1_5`.
        keep_maps: Raw maps kept on disk once the metrics are computed: all, worst (about thirty) or none.
        pixel_size: Grid of the pixel metrics: input (the model's own), original (each mask's own, the maps brought to
            it) or [height, width].
        aupimo: Whether the test computes pixel_AUPIMO too, through anomalib; it takes long and much memory.
        monitor: A metric of the validation images that says which epoch is best: image_AUROC, image_F1Max, pixel_AUROC,
            pixel_F1Max, pixel_AUPR, pixel_AUPRO or val_good_loss (see `CheckpointPolicy`, for the next three too).
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
        self._policy = CheckpointPolicy(monitor, patience, keep, keep_checkpoint)
        check_flag("Engine", "find_batch_size", find_batch_size)
        self._find_batch_size = find_batch_size
        self._trackers: list[RunTracker] = []
        self._callbacks: list[Callback] = []
        for callback in [*(callbacks or []), *make_trackers(loggers)]:
            self.add_callback(callback)
        results = paths.results_dir() if default_root_dir is None else paths.resolve(default_root_dir)
        self._options = RunOptions(results, name, check_keep_maps(keep_maps), check_pixel_size(pixel_size), aupimo)
        devices = 1 if kwargs.get("devices", "auto") == "auto" else kwargs["devices"]
        defaults = {"enable_model_summary": False, "enable_progress_bar": is_interactive()}
        self._trainer_arguments = {**defaults, **kwargs, "devices": devices}
        show_log()
        self._logger = False if logger is None else logger
        self.feature_store: FeatureStore | None = None  # of a sweep; None: the project's cache
        self._recorder = Recorder()
        self._best_epoch: BestEpoch | None = None
        self._fitted: Run | None = None  # the run of the last fit, with the best checkpoint relative to its folder
        self._best_checkpoint = Path(CHECKPOINT)
        super().__init__(callbacks=self._callbacks, logger=logger, default_root_dir=results, **self._trainer_arguments)

    @property
    def best_model_path(self) -> str | None:
        """Path of the checkpoint of the last fit, the best one if a callback monitors a metric; None before a fit."""
        return None if self._fitted is None else str(self._fitted.folder / self._best_checkpoint)

    @property
    def results_folder(self) -> Path:
        """Folder in which the run folders are created."""
        return self._options.results

    @property
    def device(self) -> torch.device:
        """Device on which a model trains, selected by `accelerator` and `devices` among those of this machine."""
        return training_device(self._trainer_arguments)

    def add_callback(self, callback: Callback | RunTracker) -> None:
        """Add a Lightning callback or a tracker to those of this engine, for later trainings."""
        if isinstance(callback, RunTracker):
            self._trackers.append(callback)
        else:
            self._callbacks.append(callback)

    def disable_trackers(self) -> None:
        """Stop copying runs to trackers, because another process does it (`writer_of(run).announce()`)."""
        self._trackers = []

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
        datamodule = require_folder(model, datamodule, train_dataloaders, val_dataloaders)
        checkpoint = self._resolve_checkpoint(ckpt_path)
        apply_region(model, datamodule)
        model.check_training(datamodule)
        policy = self._policy.for_training(model, datamodule)
        if checkpoint is not None:
            check_resumable(checkpoint)
        search = found_batch_size(model, datamodule, device=self.device.type) if self._find_batch_size else None
        with search or nullcontext():
            self._fit(model, datamodule, checkpoint, policy)

    def _fit(self, model: BaseDetector, datamodule: Folder, checkpoint: Path | None, policy: CheckpointPolicy) -> None:
        """Begin a run's record, train the model, and record the result or the error."""
        trainer_options = self._trainer_options(model, policy)
        run = start_run(model, datamodule, trainer_options, self._options)
        model.run_folder = None
        if model.preprocessing.tiling is not None:
            first = datamodule.manifest.absolute(datamodule.manifest.split("train")[0])
            save_tile_picture(first, model.preprocessing, run.folder / "tiles.png")
        writer = self.writer_of(run)
        self._new_trainer(model, writer, policy, max_epochs=trainer_options["max_epochs"])
        with self._recording(run), seeded(model.seed, "training"):
            super().fit(model, datamodule=datamodule, ckpt_path=checkpoint)
            notes = {**model.notes, **self._early_end(trainer_options["max_epochs"])}
            self._finish_weights(model, writer, datamodule, weights_only=policy.checkpoint != "all")
            self._recorder.history.warn()
            run.advance(
                "fitted",
                timings={stage: round(value, 3) for stage, value in self._recorder.seconds.items()},
                history=self._recorder.history.record(),
                environment=environment(str(self.trainer.strategy.root_device)),
                **({"notes": notes} if notes else {}),
            )
        self._fitted = run
        weakref.finalize(self, release, run.folder, claim_of(run.folder)).atexit = False  # no engine, no later test
        model.run_folder = run.folder
        logger.info("Fitted %s in %.1f s: %s", model.name, self._recorder.seconds["fit"], run.checkpoint)

    def _early_end(self, max_epochs: int) -> dict[str, str]:
        """Return a note of the epochs that a training had which a limit or patience ended before its last one.

        Raises:
            InputError: It ended before its first step.
        """
        done, steps = self.trainer.current_epoch, self.trainer.global_step
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current.completed
        if not done and not steps:
            raise InputError("The training ended before its first step: give it more time (max_time, max_steps).")
        done -= batches < self.trainer.num_training_batches  # Lightning counts an epoch that was cut short
        if done >= max_epochs or max_epochs < 0:
            return {}
        note = f"ended after {done} of {max_epochs} whole epochs ({steps} steps)"
        logger.warning("The training %s", note)
        return {"epochs": note}

    def _finish_weights(
        self, model: BaseDetector, writer: RunWriter, datamodule: Folder, *, weights_only: bool
    ) -> None:
        """Bring the run's checkpoint, its thresholds and the model in memory to one epoch: the best, or the last."""
        run = writer.run
        epoch = last = self.trainer.current_epoch - 1
        if self._best_epoch is not None:
            epoch = self._best_epoch.restore(model, last)
            run.update(monitor=self._best_epoch.record())
        self._best_checkpoint = self._best_of(run)
        is_stale = bool(datamodule.manifest.split("validation")) and run.record.validation_epoch != epoch
        if is_stale:
            if epoch == last:
                logger.info("The last epoch was not validated: choosing the thresholds for its weights now")
            self._recorder.weights_are_last = epoch == last
            self.trainer.validate(model, datamodule=datamodule, verbose=False)
            run.update(validation_epoch=epoch)
        if is_stale or epoch != last or not run.checkpoint.is_file():
            self.trainer.save_checkpoint(run.checkpoint, weights_only=weights_only)
        writer.complete_thresholds()

    def _best_of(self, run: Run) -> Path:
        """Return the checkpoint that a callback of the user's calls best, else the run's, relative to its folder."""
        callback = self.checkpoint_callback
        if self._best_epoch is not None or callback is None or not callback.best_model_path:
            return Path(CHECKPOINT)
        best = Path(callback.best_model_path)
        return best.relative_to(run.folder) if best.is_relative_to(run.folder) else best

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
        checkpoint, model, datamodule, source = self._resolve(model, ckpt_path, datamodule, dataloaders)
        run = run_to_test(model, datamodule, checkpoint, source, self._options)
        folder = run.folder
        writer = self.writer_of(run)
        self._new_trainer(model, writer)
        run.claim()
        with self._recording(run):
            if not run.record.thresholds.recorded:
                self._choose_thresholds(model, writer, datamodule, checkpoint, source)
            if datamodule.manifest.split("test"):
                self._score_test(model, writer, datamodule, checkpoint)
            else:
                logger.warning("No test images: the metrics are not available")
            writer.finish(model, datamodule.manifest, {"test": self._recorder.seconds["test"]})
        if self._fitted is not None and self._fitted.folder == folder:
            self._fitted = run  # which may have moved to the place of its earlier run
        if self._policy.checkpoint == "none" and checkpoint is None:
            drop_checkpoint(run)
        model.run_folder = source.folder if source else None
        try:
            self.fit_few(model, datamodule, run)
        finally:
            writer.update_workbook(verbose=verbose)
        writer.announce()
        return [dict(run.record.metrics)]

    def fit_few(self, model: BaseDetector, datamodule: Folder, run: Run) -> bool:
        """Make the fits with a few training images that the datamodule's `k_shots` asks for and its run lacks.

        `test` does it by itself, so that this is for a finished run of the same settings. See `engine.k_shots.fit_few`.
        """
        if datamodule.settings.k_shots is None or run.record.dataset.manifest != datamodule.manifest.hash:
            return False
        if "weights_of" in run.record.facts:
            logger.info("k_shots: left out, since this run only tests weights of another")
            return False
        with logged(run), quiet_lightning():
            return fit_few(model, datamodule, run, self.device, self.feature_store)

    def _choose_thresholds(
        self, model: BaseDetector, writer: RunWriter, datamodule: Folder, checkpoint: Path | None, source: Run | None
    ) -> None:
        """Choose thresholds on the validation images; without such images take those that belong to the weights."""
        if datamodule.manifest.split("validation"):
            logger.info("Choosing thresholds on the validation images first: there are none on record")
            self.trainer.validate(model, datamodule=datamodule, ckpt_path=checkpoint, verbose=False)
        if source is not None:
            writer.take_thresholds(source)
        writer.complete_thresholds()

    def _score_test(self, model: BaseDetector, writer: RunWriter, datamodule: Folder, checkpoint: Path | None) -> None:
        """Score the test images; when memory runs out, try again with half the batch size."""
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
            self._new_trainer(model, writer)

    def train(
        self,
        model: BaseDetector,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        test_dataloaders: Any = None,
        datamodule: Folder | None = None,
        ckpt_path: str | Path | None = None,
    ) -> list[dict[str, float | None]]:
        """Train a model, then test it on the test images."""
        datamodule = require_folder(model, datamodule, train_dataloaders, val_dataloaders, test_dataloaders)
        self.fit(model=model, datamodule=datamodule, ckpt_path=ckpt_path)
        return self.test(model=model, datamodule=datamodule)

    def add_images(
        self, ckpt_path: str | Path, images: Images, *, verbose: bool = True
    ) -> list[dict[str, float | None]]:
        """Add good images to a fitted PaDiM, PatchCore or SubspaceAD without training on the earlier ones again.

        The result is a new run, tested on the images of the earlier one, with thresholds and metrics of its own; the
        earlier run stays as it is. PaDiM and SubspaceAD become what a training on all images gives; PatchCore keeps its
        bank and picks as large a share of the new patches (`continue_greedy`).

        Args:
            ckpt_path: Run folder, or the checkpoint in it.
            images: Good images: a file, a folder, a glob, or several of these.
            verbose: Whether the metrics are printed.

        Raises:
            InputError: See `prepare_addition`; or a checkpoint without what adding needs, or pixels measured otherwise.
        """
        addition = prepare_addition(ckpt_path, images)
        measured = pixel_size_of(addition.parent)
        if measured != self._options.pixel_size:
            raise InputError(
                f"{addition.parent.folder.name} measures pixels at {measured}, and this engine would at "
                f"{self._options.pixel_size}, so that the two runs could not be compared: "
                f"Engine(pixel_size={measured!r})."
            )
        model, datamodule = restore(addition.parent.checkpoint_file()), AddedFolder(addition)
        if not isinstance(model, MemoryBankDetector):
            raise InputError(f"Images cannot be added to {model.name}.")
        model.begin_adding(addition.positions)
        self.fit(model=model, datamodule=datamodule)
        return self.test(model=model, datamodule=datamodule, verbose=verbose)

    def validate(
        self,
        model: BaseDetector | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: Folder | None = None,
    ) -> Any:
        """Run the validation loop for a user's own callbacks and metrics; records are not changed."""
        checkpoint, model, datamodule, source = self._resolve(model, ckpt_path, datamodule, dataloaders)
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

        Files under `data_path` that cannot be read are left out, and named in the log with their reason.

        Returns:
            Batches with `image_path`, `pred_score` and `anomaly_map` (raw), `pred_label` and `pred_mask` (at the
            run's thresholds; neither for a model that serves several categories, see `Detector.predict`).
        """
        checkpoint = self._resolve_checkpoint(ckpt_path)
        model = require_fitted(model, checkpoint, self._last_model)
        loaders = [dataloaders] if isinstance(dataloaders, DataLoader) else list(dataloaders or [])
        if data_path is not None:
            found = find_readable_images(data_path)
            check_values(model, found)
            files = ImageFiles(found, model.preprocessing)
            loaders.append(DataLoader(files, batch_size=PREDICT_BATCH, collate_fn=files.collate_fn))
        if not loaders and datamodule is None and dataset is None:
            raise InputError(
                "predict needs images: give datamodule=..., data_path=..., dataset=... or dataloaders=...."
            )
        if isinstance(datamodule, Folder):
            check_region(model, datamodule)
        source = run_of_weights(model, checkpoint)
        if source is not None and source.record.categories:
            logger.warning(
                "Batches without labels and masks: each of the %d categories has thresholds of its own. "
                "Detector.load(run).predict(images, category=...) decides at them.", len(source.record.categories)
            )  # fmt: skip
        self._new_trainer(model, None if source is None else self.writer_of(source))
        with quiet_lightning():
            batches = super().predict(
                model, loaders or None, None if loaders else datamodule, dataset, return_predictions, checkpoint
            )
        model.run_folder = source.folder if source else None
        return batches

    def export(self, *args: Any, **kwargs: Any) -> Path | None:
        """Refuse: anomalib's export pickles the model without its run's record, thresholds and preprocessing.

        Raises:
            InputError: Always, with what to use instead.
        """
        del args, kwargs
        where = "results/MODEL/DATASET/RUN" if self._fitted is None else paths.relative(self._fitted.folder)
        raise InputError(
            "anomalib's export writes a model without its thresholds, preprocessing and record, and DefectLab has no "
            f"export of its own yet. The run's folder carries all of it: Detector.load({where!r}).predict(images)."
        )

    def writer_of(self, run: Run) -> RunWriter:
        """Return the writer of a run, with this engine's options, callbacks and trackers."""
        return RunWriter(run, self._options, self._trackers, self._callbacks)

    def begin(self, model: BaseDetector, datamodule: Folder) -> RunWriter:
        """Begin the record of `model` on `datamodule` as `fit` does, for scores computed outside the engine."""
        trainer_options = self._planned_options(model, require_folder(model, datamodule))
        return self.writer_of(start_run(model, datamodule, trainer_options, self._options))

    def write_checkpoint(self, model: BaseDetector, run: Run) -> Path:
        """Write the checkpoint of a model that was fitted outside the engine into `run`, with the run's thresholds.

        It loads as the one that `fit` writes; `test` and `predict` continue from it.
        """
        set_thresholds(model, run)
        self._new_trainer(model, self.writer_of(run))
        self.trainer.strategy.connect(model)  # required for saving; fit, test and predict do it first
        with replacing(run.checkpoint) as partial:
            self.trainer.save_checkpoint(partial, weights_only=False)
        run.update(checkpoint=CHECKPOINT)
        model.run_folder = run.folder
        for tracker in self._trackers:
            tracker.add_checkpoint(run)
        return run.checkpoint

    def finished_run(self, model: BaseDetector, datamodule: Folder) -> Run | None:
        """Return a finished run with the settings, seed, images, split and backbone of a `train` now; None if none."""
        apply_region(model, datamodule)
        model.check_training(datamodule)
        wanted = self.run_id(model, datamodule)
        same = (run for run in find_runs(self.results_folder) if run.record.run_id == wanted)
        exact = (run for run in same if run.status == "finished" and run.features_dtype == "float32")
        aupimo = self._options.aupimo  # not a part of the run id, but the run must have it if asked for
        return next((run for run in exact if not aupimo or AUPIMO in run.record.metrics), None)

    def run_id(self, model: BaseDetector, datamodule: Folder) -> str:
        """Return the run id of a `train` now, which is equal for equal settings, seed, images, split and backbone."""
        _, facts = describe_run(model, datamodule, self._planned_options(model, datamodule), self._options)
        return experiment_id(facts)

    def _planned_options(self, model: BaseDetector, datamodule: Folder) -> dict[str, Any]:
        """Return the trainer options that `train` would record now."""
        apply_region(model, datamodule)
        return self._trainer_options(model, self._policy.for_training(model, datamodule))

    def _trainer_options(self, model: BaseDetector, policy: CheckpointPolicy) -> dict[str, Any]:
        epochs = epochs_of(model, self._trainer_arguments.get("max_epochs"))
        finding = {"find_batch_size": True} if self._find_batch_size else {}
        return self._trainer_arguments | finding | {"max_epochs": epochs} | policy.trainer_options()

    @property
    def _last_model(self) -> LightningModule | None:
        """The model of this engine's last call."""
        return None if self._trainer is None else self._trainer.lightning_module

    def _resolve(
        self, model: BaseDetector | None, ckpt_path: str | Path | None, datamodule: Folder | None, dataloaders: Any
    ) -> tuple[Path | None, BaseDetector, Folder, Run | None]:
        """Return checkpoint, model and images, checked to fit together, and the run that produced the weights."""
        checkpoint = self._resolve_checkpoint(ckpt_path)
        model = require_fitted(model, checkpoint, self._last_model)
        datamodule = require_folder(model, datamodule, dataloaders)
        check_region(model, datamodule)
        return checkpoint, model, datamodule, run_of_weights(model, checkpoint)

    def _resolve_checkpoint(self, ckpt_path: str | Path | None) -> Path | None:
        if ckpt_path is None:
            return None
        if str(ckpt_path) in ("best", "last"):
            if self._fitted is None:
                raise InputError(
                    f"ckpt_path={ckpt_path!r}: this engine has fitted nothing yet; give a checkpoint's path."
                )
            return self._fitted.folder / (self._best_checkpoint if str(ckpt_path) == "best" else CHECKPOINT)
        path = paths.resolve(ckpt_path)
        if path.is_dir():
            path = Run.open(path).checkpoint_file()
        if not path.is_file():
            raise InputError(
                f"There is no checkpoint at {path}. Runs and their checkpoints lie under {self.results_folder}."
            )
        return path

    @contextmanager
    def _recording(self, run: Run) -> Iterator[None]:
        """Run Lightning quietly inside the block; record an error as a failure, and Ctrl-C as an interruption."""
        with logged(run), run.recording_failure(), quiet_lightning():
            try:
                yield
            except SystemExit as stop:  # Lightning raises it for Ctrl-C
                raise (self._recorder.exception or stop) from None

    def _new_trainer(
        self, model: BaseDetector, writer: RunWriter | None, policy: CheckpointPolicy | None = None, **overrides: Any
    ) -> None:
        """Create a new trainer and callbacks for a call; plain anomalib keeps those of its first model."""
        self._recorder = Recorder(writer)
        self._trainer = None
        self._best_epoch = BestEpoch(policy, self._recorder) if policy is not None and policy.monitor else None
        own: list[Callback] = [self._recorder, RandomStates()]
        if self._best_epoch is not None:
            own.append(self._best_epoch)
        if policy is not None and policy.checkpoint != "all" and writer is not None:
            own += weights_only_checkpoints(self._callbacks, writer.run)
        self._cache = _TrainerArgumentsCache(
            callbacks=[*self._callbacks, *own, *self._bars()],
            logger=self._logger,
            default_root_dir=writer.run.folder if writer else self.results_folder,
            **(self._trainer_arguments | overrides | {"plugins": with_digests(self._trainer_arguments)}),
        )
        with quiet_lightning():
            self._setup_trainer(model)

    def _bars(self) -> list[Callback]:
        has_own = any(isinstance(callback, ProgressBar) for callback in self._callbacks)
        return [StageBars()] if self._trainer_arguments["enable_progress_bar"] and not has_own else []

    def _setup_workspace(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's folder was made before; plain anomalib would nest another into it."""

    def _setup_trainer(self, model: BaseDetector) -> None:
        if self._trainer is None:
            super()._setup_trainer(model)
