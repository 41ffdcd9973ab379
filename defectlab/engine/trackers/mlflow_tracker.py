"""The tracker for MLflow, in a local SQLite file by default: `loggers: [mlflow]`.

Not through Lightning's MLFlowLogger, which changes the process's own tracking server, adds the user's name to the tags
and cuts settings at 250 characters.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from defectlab.engine.trackers.tracker import LogPoint, RunTracker, flatten, printable_settings
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.validation import checked_options
from defectlab_runtime import names
from defectlab_runtime.errors import OptionError

FOLDER = "mlruns"
RUN_ID_TAG = "defectlab.run_id"
MAX_PARAMETER_LENGTH = 500  # characters, at MLflow's older servers
MAX_KEY_BYTES = 200
_NOT_IN_KEYS = re.compile(r"[^\w .-]")


class MlflowLog(RunTracker):
    """One MLflow run for each DefectLab run: its settings as parameters, curves, metrics, tags and files.

    A test adds to the MLflow run of its training, also in another process. `mlflow ui --backend-store-uri
    sqlite:///mlruns/mlflow.db` shows what is there (with the package mlflow; mlflow-skinny has no pages).

    Args:
        experiment: MLflow's experiment; default is the dataset's name.
        uri: Of the tracking server; default is `MLFLOW_TRACKING_URI`, else mlruns/mlflow.db in the project.
        checkpoint: As in `RunTracker`.
        register: Name in MLflow's registry of models under which each tested checkpoint becomes a version.
        stage: Alias of the newest version there, such as staging or production; the one before loses it.

    Raises:
        OptionError: `register` without `checkpoint`, `stage` without `register`, or a name with / or :.
    """

    name: ClassVar[str] = "mlflow"
    packages: ClassVar[tuple[str, ...]] = ("mlflow", "sqlalchemy", "alembic")

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
        if register is not None and (register in ("", ".") or set("/:") & set(names.printable(register))):
            raise OptionError(f"Logger mlflow: register is {register!r}, which MLflow takes for no name of a model.")
        self.experiment = experiment
        self.register, self.stage = register, stage
        self._given_uri = uri
        self._client: Any = None
        self._id = ""

    @property
    def uri(self) -> str:
        """URI of the MLflow tracking server."""
        return self._given_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_folder() / 'mlflow.db'}"

    def start(self, run: Run, stage: str) -> None:
        """Create the MLflow run of a training, or find it for a test."""
        from mlflow import MlflowClient

        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=self.uri)
        experiment = self._experiment_id(run.record.dataset.name)
        earlier = self._find(experiment, run) if stage == "test" else None
        self._id = earlier or self._create(experiment, run)
        self._client.set_tag(self._id, "status", run.status)

    def _experiment_id(self, dataset: str) -> str:
        name = names.tracker(self.experiment or dataset)
        if (experiment := self._client.get_experiment_by_name(name)) is not None:
            return experiment.experiment_id
        is_local = self.uri.startswith("sqlite:")
        return self._client.create_experiment(name, (_folder() / "artifacts").as_uri() if is_local else None)

    def _find(self, experiment: str, run: Run) -> str | None:
        query = f"tags.`{RUN_ID_TAG}` = '{run.record.run_id}'"
        order = ["attributes.start_time DESC"]
        runs = self._client.search_runs([experiment], query, order_by=order, max_results=1)
        return runs[0].info.run_id if runs else None

    def _create(self, experiment: str, run: Run) -> str:
        tags = {RUN_ID_TAG: run.record.run_id, "defectlab.folder": _place(run)}
        tags["defectlab.commit"] = str(run.record.git and run.record.git.commit)
        run_id = self._client.create_run(experiment, run_name=names.tracker(run.title), tags=tags).info.run_id
        for key, value in flatten(printable_settings(run.record.experiment.to_dict())).items():
            self._client.log_param(run_id, _key(key), str(value)[:MAX_PARAMETER_LENGTH])
        return run_id

    def log(self, values: Mapping[str, float], point: LogPoint) -> None:
        """Log an epoch's losses by epoch, as MLflow's charts count, or a test's metrics."""
        if point.kind != "batch":
            for name, value in values.items():
                self._client.log_metric(self._id, name, value, step=point.epoch)

    def store(self, run: Run, files: list[Path]) -> None:
        """Log the files, the final name and status; register the checkpoint where that is asked for."""
        self._client.set_tag(self._id, "status", run.status)
        self._client.set_tag(self._id, "defectlab.folder", _place(run))
        for file in files:
            self._client.log_artifact(self._id, str(file))
        if self.register is not None and run.checkpoint in files:
            self._register(self.register, run)

    def _register(self, name: str, run: Run) -> None:
        """Make the run's checkpoint a version of a registered model, once."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        ours = self._client.search_model_versions(f"run_id = '{self._id}'")  # a name may hold a quote: not in a query
        versions = [version for version in ours if version.name == name]
        source = f"{self._client.get_run(self._id).info.artifact_uri}/{run.checkpoint.name}"
        version = versions[0] if versions else self._client.create_model_version(
            name, source, self._id, tags={RUN_ID_TAG: run.record.run_id}
        )  # fmt: skip
        if self.stage is not None:
            self._client.set_registered_model_alias(name, self.stage, version.version)

    def finish(self, failed: bool) -> None:
        """End the MLflow run; a test ends that of its training again."""
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def location(self) -> str:
        """Return the tracking server's URI and the id of the MLflow run."""
        return f"{_without_secrets(self.uri)} run {self._id}"


def _folder() -> Path:
    return paths.resolve(FOLDER)


def _place(run: Run) -> str:
    return names.printable(paths.relative(run.folder))


def _key(key: str) -> str:
    """Return a setting's name as MLflow takes one, with a hash where it had to be changed."""
    safe = _NOT_IN_KEYS.sub("-", names.path(key, most=MAX_KEY_BYTES))
    return safe if safe == key else f"{safe}-{names.short_hash(key)}"


def _without_secrets(uri: str) -> str:
    """Return the URI with a relative path, where it is a file, and without a user's name and password."""
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{paths.relative(uri.removeprefix('sqlite:///'))}"
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
