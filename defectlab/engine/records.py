"""The engine's way with records: begun, completed and copied wherever their scores were computed."""

import logging
from pathlib import Path
from typing import Any

from defectlab import paths
from defectlab.bookkeeping import describe_run, start_run
from defectlab.data.folder import Folder
from defectlab.engine.trainers import EngineTrainers
from defectlab.fields_of_view import follow_data
from defectlab.files import replacing
from defectlab.finishing import complete_thresholds, finish_run
from defectlab.loggers.mirror import Mirror
from defectlab.models.base import BaseDetector
from defectlab.recorder import set_decisions
from defectlab.results.evaluate import AUPIMO
from defectlab.results.identity import experiment_id
from defectlab.results.record import CHECKPOINT, Run, find_runs
from defectlab.results.show import summary
from defectlab.results.workbook import update_workbook

logger = logging.getLogger(__name__)


class EngineRecords(EngineTrainers):
    """Runs as records: which one a training would be, and what `test` does once images are scored."""

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

    def finished_run(self, model: BaseDetector, datamodule: Folder) -> Run | None:
        """Return the finished run of what `train` would do now: same settings, seed, images, split and backbone."""
        follow_data(model, datamodule)
        model.check_training(datamodule)
        wanted = self.run_id(model, datamodule)
        same = (run for run in find_runs(self._results) if run.record["run_id"] == wanted)
        exact = (run for run in same if run.status == "finished" and run.features_dtype == "float32")
        wanted_too = self._evaluation["aupimo"]  # no part of the identity, but asked for
        return next((run for run in exact if not wanted_too or AUPIMO in run.record["metrics"]), None)

    def run_id(self, model: BaseDetector, datamodule: Folder) -> str:
        """Return the id of what `train` would do now: equal for equal settings, seed, images, split and backbone."""
        follow_data(model, datamodule)
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
