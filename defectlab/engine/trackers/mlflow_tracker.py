"""A run mirrored to MLflow, into a local SQLite file unless told otherwise: `loggers: [mlflow]`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from defectlab.engine.trackers.tracker import Mirror, flat, title
from defectlab.results.run.record import Run
from defectlab.utils import paths
from defectlab.utils.errors import OptionError
from defectlab.utils.validation import checked_options

FOLDER = "mlruns"
ID = "defectlab.run_id"
LONGEST = 500  # characters of a parameter, at MLflow's older servers


class MlflowLog(Mirror):
    """One MLflow run for each DefectLab run: its settings as parameters, curves, metrics, tags and files.

    A test adds to the MLflow run of its training, also in another process. `mlflow ui --backend-store-uri
    sqlite:///mlruns/mlflow.db` shows what is there (with the package mlflow; mlflow-skinny has no pages).

    Args:
        experiment: MLflow's experiment; default is the dataset's name.
        uri: Of the tracking server; default is `MLFLOW_TRACKING_URI`, else mlruns/mlflow.db in the project.
        checkpoint: As in `Mirror`.
        register: Name in MLflow's registry of models under which each tested checkpoint becomes a version.
        stage: Alias of the newest version there, such as staging or production; the one before loses it.

    Raises:
        OptionError: `register` without `checkpoint`, or `stage` without `register`.
    """

    name: ClassVar[str] = "mlflow"

    @checked_options
    def __init__(
        self,
        experiment: str | None = None,
        uri: str | None = None,
        checkpoint: bool = False,
        register: str | None = None,
        stage: str | None = None,
    ) -> None:
        super().__init__(checkpoint)
        if register is not None and not checkpoint:
            raise OptionError("Logger mlflow: register keeps checkpoints: give checkpoint: true too.")
        if stage is not None and register is None:
            raise OptionError("Logger mlflow: stage is of a registered model: give register, its name, too.")
        self.experiment = experiment
        self.register, self.stage = register, stage
        self._given_uri = uri
        self._client: Any = None
        self._id = ""

    @property
    def uri(self) -> str:
        """Of the tracking server."""
        return self._given_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_local() / 'mlflow.db'}"

    def begin(self, run: Run, stage: str) -> None:
        """Make the MLflow run of a training, or find it for a test."""
        from mlflow import MlflowClient

        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=self.uri)
        experiment = self._experiment(run.record["dataset"]["name"])
        earlier = self._earlier(experiment, run) if stage == "test" else None
        self._id = earlier or self._new(experiment, run)
        self._client.set_tag(self._id, "status", run.status)

    def _experiment(self, dataset: str) -> str:
        name = self.experiment or dataset
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        local = self.uri.startswith("sqlite:")
        return self._client.create_experiment(name, (_local() / "artifacts").as_uri() if local else None)

    def _earlier(self, experiment: str, run: Run) -> str | None:
        query = f"tags.`{ID}` = '{run.record['run_id']}'"
        order = ["attributes.start_time DESC"]
        found = self._client.search_runs([experiment], query, order_by=order, max_results=1)
        return found[0].info.run_id if found else None

    def _new(self, experiment: str, run: Run) -> str:
        tags = {ID: run.record["run_id"], "defectlab.folder": paths.relative(run.folder)}
        tags |= {"defectlab.commit": str(run.record.get("git", {}).get("commit"))}
        made = self._client.create_run(experiment, run_name=title(run), tags=tags).info.run_id
        for key, value in flat(run.record["experiment"]).items():
            self._client.log_param(made, key, str(value)[:LONGEST])
        return made

    def log_epoch(self, losses: Mapping[str, float], step: int, epoch: int) -> None:
        """Log the losses, the step being the epoch, as MLflow's charts count."""
        for name, value in losses.items():
            self._client.log_metric(self._id, name, value, step=epoch)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the test's metrics."""
        for name, value in metrics.items():
            self._client.log_metric(self._id, name, value)

    def keep(self, run: Run, files: list[Path]) -> None:
        """Log the files, and the final name and status."""
        self._client.set_tag(self._id, "status", run.status)
        self._client.set_tag(self._id, "defectlab.folder", paths.relative(run.folder))
        for file in files:
            self._client.log_artifact(self._id, str(file))
        if self.register is not None and run.checkpoint in files:
            self._register(self.register, run)

    def _register(self, name: str, run: Run) -> None:
        """Make the run's checkpoint a version of a registered model, once."""
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        known = self._client.search_model_versions(f"name = '{name}' and run_id = '{self._id}'")
        source = f"{self._client.get_run(self._id).info.artifact_uri}/{run.checkpoint.name}"
        made = known[0] if known else self._client.create_model_version(
            name, source, self._id, tags={ID: run.record["run_id"]}
        )  # fmt: skip
        if self.stage is not None:
            self._client.set_registered_model_alias(name, self.stage, made.version)

    def end(self, failed: bool) -> None:
        """End the MLflow run; a test ends it again."""
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def where(self) -> str:
        """Return server and run."""
        return f"{_shown(self.uri)} run {self._id}"


def _local() -> Path:
    return paths.resolve(FOLDER)


def _shown(uri: str) -> str:
    """Return the URI without what only this machine knows, and without a password."""
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{paths.relative(uri.removeprefix('sqlite:///'))}"
    scheme, found, rest = uri.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"
