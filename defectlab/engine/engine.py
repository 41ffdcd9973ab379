"""The engine: anomalib's Lightning loop, with options checked first and every run on record."""

import logging
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from defectlab.data.datasets import ImageFiles
from defectlab.data.folder import Folder
from defectlab.data.image_sources import find_images
from defectlab.engine.batch_size import find_batch_size, restores_batch_size
from defectlab.engine.checkpoints import check_resumable, drop_checkpoint
from defectlab.engine.input_region import apply_region, check_region
from defectlab.engine.recorder import set_decisions
from defectlab.engine.run_finish import complete_thresholds, finish_run
from defectlab.engine.run_start import describe_run, environment, run_to_test, start_run, weights_run
from defectlab.engine.trainer import EngineTrainers
from defectlab.models.base import BaseDetector
from defectlab.results.evaluate import AUPIMO
from defectlab.results.run.identity import experiment_id
from defectlab.results.run.location import CHECKPOINT
from defectlab.results.run.run import Run, find_runs
from defectlab.results.workbook import update_workbook
from defectlab.utils import paths
from defectlab.utils.errors import InputError
from defectlab.utils.files import replacing
from defectlab.utils.logs import quiet_lightning
from defectlab.utils.memory import free_memory, is_out_of_memory
from defectlab.utils.seeds import seeded
from defectlab.visualization.dataset import save_tile_picture
from defectlab.visualization.terminal import summary

logger = logging.getLogger(__name__)

PREDICT_BATCH = 8


class EngineRecords(EngineTrainers):
    """Runs as records: which one a training would be, and what `test` does once images are scored."""

    def announce(self, run: Run, *, elsewhere: bool = False) -> None:
        """Tell the callbacks that a run is tested and on record, as `test` does: trackers take their copies.

        With `elsewhere` it was trained where they could not follow: they take its curves from the record too.
        """
        for callback in self._given_callbacks:
            if hasattr(callback, "on_run_finished"):
                callback.on_run_finished(run)
        for tracker in self._trackers:
            if elsewhere:
                tracker.replay_training(run)
            tracker.copy_test(run)

    def disable_trackers(self) -> None:
        """Copy nothing to trackers from now on: another process does it (`announce`)."""
        self._trackers = []

    def begin(self, model: BaseDetector, datamodule: Folder) -> Run:
        """Begin the record of `model` on `datamodule`, as `fit` does; for scores that are computed elsewhere."""
        datamodule = self._checked(model, datamodule)
        apply_region(model, datamodule)
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
        for tracker in self._trackers:
            tracker.add_checkpoint(run)
        return run.checkpoint

    def finished_run(self, model: BaseDetector, datamodule: Folder) -> Run | None:
        """Return the finished run of what `train` would do now: same settings, seed, images, split and backbone."""
        apply_region(model, datamodule)
        model.check_training(datamodule)
        wanted = self.run_id(model, datamodule)
        same = (run for run in find_runs(self._results) if run.record["run_id"] == wanted)
        exact = (run for run in same if run.status == "finished" and run.features_dtype == "float32")
        wanted_too = self._evaluation["aupimo"]  # no part of the identity, but asked for
        return next((run for run in exact if not wanted_too or AUPIMO in run.record["metrics"]), None)

    def run_id(self, model: BaseDetector, datamodule: Folder) -> str:
        """Return the id of what `train` would do now: equal for equal settings, seed, images, split and backbone."""
        apply_region(model, datamodule)
        options = self._options(model) | self._keeping_of(model, datamodule).facts()
        _, facts = describe_run(model, datamodule, options, self._run_name, **self._evaluation)
        return experiment_id(facts)

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


class Engine(EngineRecords):
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

    @restores_batch_size
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
        apply_region(model, datamodule)
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
        checkpoint, model, datamodule, source = self._at_hand(model, ckpt_path, datamodule, dataloaders)
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

    def _at_hand(
        self, model: BaseDetector | None, ckpt_path: str | Path | None, datamodule: Folder | None, dataloaders: Any
    ) -> tuple[Path | None, BaseDetector, Folder, Run | None]:
        """Return checkpoint, model and images, which must belong together, and the run that the weights are of."""
        checkpoint = self._resolve_checkpoint(ckpt_path)
        model = self._model(model, checkpoint)
        datamodule = self._checked(model, datamodule, dataloaders)
        check_region(model, datamodule)
        return checkpoint, model, datamodule, weights_run(model, checkpoint)

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
        checkpoint, model, datamodule, source = self._at_hand(model, ckpt_path, datamodule, dataloaders)
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
            check_region(model, datamodule)
        source = weights_run(model, checkpoint)
        self._new_trainer(model, source)
        with quiet_lightning():
            batches = super().predict(
                model, loaders or None, None if loaders else datamodule, dataset, return_predictions, checkpoint
            )
        model.run_folder = source.folder if source else None
        return batches
