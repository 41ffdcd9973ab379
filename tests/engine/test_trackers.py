"""Copies of a run at trackers: what they hold is what the record says, and no tracker costs a run anything."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
from helpers.fake_trackers import FakeWandb
from helpers.models import data, trained_vae
from helpers.nasty_names import CONTROL
from helpers.runs import finished

from defectlab import Engine, SmallConvVae
from defectlab.cli import main
from defectlab.engine.trackers import TRACKERS, check_trackers, make_trackers
from defectlab.engine.trackers.csv_tracker import CsvLog
from defectlab.engine.trackers.mlflow_tracker import MlflowLog
from defectlab.engine.trackers.tracker import RunTracker
from defectlab.engine.trackers.wandb_tracker import WandbLog
from defectlab.results.run.result_records import TrackerRecord
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError, OptionError

MLFLOW = {"name": "mlflow", "checkpoint": True, "register": "parts", "stage": "staging"}
COPIES = ["csv", "tensorboard", MLFLOW, {"name": "wandb", "project": "parts"}]


def logged_records(log: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, which a .wandb file is: blocks of 32 KB, a head of 7 bytes before each piece."""
    place, whole = 7, b""  # the first seven bytes name the format
    while place + 7 <= len(log):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        size, kind = int.from_bytes(log[place + 4 : place + 6], "little"), log[place + 6]
        whole += log[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield whole
            whole = b""


@pytest.mark.row("3.21")
class TestRealTrackers:
    """One training, mirrored to all of them at once; each copy is read back with the tracker's own reader."""

    @pytest.fixture(scope="class")
    def home(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return tmp_path_factory.mktemp("mirrored")

    @pytest.fixture(scope="class")
    def run(self, parts: Path, home: Path) -> Run:
        for package in ("mlflow", "alembic", "tensorboard", "wandb"):
            pytest.importorskip(package)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DEFECTLAB_HOME", str(home))
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            return trained_vae(parts, loggers=COPIES, check_val_every_n_epoch=2)

    @pytest.fixture(scope="class")
    def numbers(self, run: Run) -> dict[str, float]:
        return {name: value for name, value in run.record.metrics.items() if value is not None}

    def test_the_record_says_where_the_copies_are(self, run: Run):
        assert set(run.record.trackers) == {"csv", "tensorboard", "mlflow", "wandb"}
        assert run.record.trackers["csv"].where.endswith("/metrics.csv")
        assert not any(entry.error for entry in run.record.trackers.values())
        assert run.status == "finished"

    def test_csv(self, run: Run, numbers: dict[str, float]):
        with (run.folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        curve = [(int(row["epoch"]), float(row["value"])) for row in rows if row["name"] == "train_loss"]
        assert curve == list(enumerate(run.record.history["train_loss"], 1))
        validated = {row["epoch"]: float(row["value"]) for row in rows if row["name"] == "val_good_loss"}
        assert validated == {"2": pytest.approx(run.record.history["val_good_loss"][1], rel=1e-6)}
        assert {row["name"]: float(row["value"]) for row in rows if row["stage"] == "test"} == numbers

    def test_tensorboard(self, run: Run, numbers: dict[str, float]):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run.folder / "tensorboard"))
        events.Reload()
        curve = [(event.step, event.value) for event in events.Scalars("loss/train_loss")]
        assert [step for step, _ in curve] == [8, 16, 24]  # images seen
        assert [value for _, value in curve] == pytest.approx(run.record.history["train_loss"], rel=1e-6)
        found = {tag.removeprefix("metric/"): events.Scalars(tag)[0].value
                 for tag in events.Tags()["scalars"] if tag.startswith("metric/")}  # fmt: skip
        assert found == pytest.approx(numbers, rel=1e-6)
        assert events.Tags()["images"] == ["pictures"]
        assert any("experiment" in tag for tag in events.Tags()["tensors"])

    def test_mlflow(self, run: Run, home: Path, numbers: dict[str, float]):
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
        experiment = client.get_experiment_by_name("parts")
        (found,) = client.search_runs([experiment.experiment_id])  # the test added to the training's
        assert found.info.status == "FINISHED"
        assert found.data.params["model.latent_dim"] == "8"
        assert found.data.tags["defectlab.run_id"] == run.record.run_id
        assert found.data.tags["status"] == "finished"
        history = client.get_metric_history(found.info.run_id, "train_loss")
        curve = [(metric.step, metric.value) for metric in sorted(history, key=lambda metric: metric.step)]
        assert curve == list(enumerate(run.record.history["train_loss"], 1))
        assert {name: found.data.metrics[name] for name in numbers} == numbers
        kept = home / "mlruns/artifacts" / found.info.run_id / "artifacts"
        assert {file.name for file in kept.iterdir()} == {
            "run.json", "scores.csv", "manifest.json", "pictures.png", "model.ckpt"
        }  # fmt: skip
        assert (kept / "scores.csv").read_bytes() == (run.folder / "scores.csv").read_bytes()
        assert json.loads((kept / "run.json").read_text())["metrics"] == run.record.metrics

    @pytest.mark.row("3.21")
    def test_mlflows_registry_has_the_checkpoint(self, run: Run, home: Path):
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
        (version,) = client.search_model_versions("name = 'parts'")
        assert version.tags["defectlab.run_id"] == run.record.run_id
        assert client.get_model_version_by_alias("parts", "staging").version == version.version
        kept = Path(unquote(urlparse(version.source).path))
        assert kept.read_bytes() == run.checkpoint.read_bytes()

    def test_wandb(self, run: Run, numbers: dict[str, float]):
        from wandb.proto.wandb_internal_pb2 import Record

        logged: dict[str, list[float]] = {}
        tags = []
        for file in sorted(run.folder.glob("wandb/offline-run-*/*.wandb")):
            for content in logged_records(file.read_bytes()):
                record = Record()
                record.ParseFromString(content)
                tags += record.run.tags
                for item in record.history.item:
                    logged.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
        assert set(tags) == {"train", "test"}
        assert logged["train loss (epoch)"] == pytest.approx(run.record.history["train_loss"], rel=1e-6)
        assert logged["val blot loss (epoch)"] == pytest.approx([run.record.history["val_anomalous_loss"][1]])
        assert logged["TPR"] == [numbers["image_TPR"]]
        assert logged["pixel_AUROC"] == [numbers["pixel_AUROC"]]
        assert len(logged["train loss (batch)"]) == 6
        (saved,) = run.folder.glob("wandb/offline-run-*/files/scores.csv")
        assert saved.read_bytes() == (run.folder / "scores.csv").read_bytes()


def test_weights_and_biases_gets_the_references_keys(wells: Path, monkeypatch: pytest.MonkeyPatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run = trained_vae(wells, callbacks=[WandbLog("wells")], check_val_every_n_epoch=2)
    train, test = fake.runs
    assert [one.told["tags"] for one in fake.runs] == [["train"], ["test"]]
    assert all(one.told["project"] == "wells" and one.told["mode"] == "offline" for one in fake.runs)
    assert train.told["config"]["model"]["latent_dim"] == 8
    assert [one.exit_code for one in fake.runs] == [0, 0]
    batches = [step for step, values in train.logged if "train loss (batch)" in values]
    assert batches == [5, 10, 15, 16, 21, 26, 31, 32, 37, 42, 47, 48]  # images seen: 16 an epoch
    epochs = {step: values for step, values in train.logged if "train loss (epoch)" in values}
    history = run.record.history
    assert list(epochs) == [16, 32, 48]
    assert [values["train loss (epoch)"] for values in epochs.values()] == pytest.approx(history["train_loss"])
    assert set(epochs[32]) == {"train loss (epoch)", "val proliv loss (epoch)", "val not proliv loss (epoch)"}
    assert set(epochs[16]) == {"train loss (epoch)"}
    assert epochs[32]["val proliv loss (epoch)"] == pytest.approx(history["val_anomalous_loss"][1])
    assert epochs[32]["val not proliv loss (epoch)"] == pytest.approx(history["val_good_loss"][1])
    metrics = run.record.metrics
    numbers = {name: value for name, value in metrics.items() if value is not None}
    assert test.logged == [(None, {"TPR": metrics["image_TPR"], "TNR": metrics["image_TNR"], **numbers})]
    assert test.saved == ["run.json", "scores.csv", "manifest.json", "pictures.png"]
    assert not train.saved


def test_a_failed_training_ends_its_mirror_as_failed(wells: Path, monkeypatch: pytest.MonkeyPatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(SmallConvVae, "training_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trained_vae(wells, callbacks=[WandbLog("wells")])
    assert [one.exit_code for one in fake.runs] == [1]


def test_a_replayed_training_is_the_one_that_was_followed(wells: Path):
    followed = trained_vae(wells, loggers=["csv"])
    before = [row.split(",") for row in (followed.folder / "metrics.csv").read_text().splitlines()]
    (followed.folder / "metrics.csv").unlink()
    Engine(loggers=["csv"]).writer_of(followed).announce(trained_elsewhere=True)
    after = [row.split(",") for row in (followed.folder / "metrics.csv").read_text().splitlines()]
    assert sorted(row[:4] for row in after) == sorted(row[:4] for row in before)
    values = {tuple(row[:4]): float(row[4]) for row in before[1:]}
    assert {tuple(row[:4]): float(row[4]) for row in after[1:]} == pytest.approx(values, rel=1e-6)


NASTY = (
    "=1+1",
    "two\nlines",
    "\x1b[2J",
    "undecodable\udcff",
    "\u202egnp",
    "\u00fc" * 300,
    "../../outside",
    "a [1] {*}?",
    "",
)


def copied(tracker: RunTracker, name: str, number: int) -> Run:
    """A finished run whose dataset, name, settings and kind of defect all bear this name, mirrored as it trained."""
    options = {"layers": [name], f"odd/{name}": name}
    run = finished(name, dataset=name, options=options, manifest=f"manifest {number}", history={"train_loss": [1.0]})
    tracker.start_training(run, {name})
    tracker.log_epoch({"train_loss": 1.0, "val_anomalous_loss": 2.0}, 1)
    tracker.end_stage()
    tracker.copy_test(run)
    run = Run.open(run.folder)
    assert run.record.trackers[tracker.name].error is None
    return run


def test_mlflow_takes_every_name_and_writes_nowhere_else(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = MlflowClient(f"sqlite:///{own_project}/mlruns/mlflow.db")
    tracker = MlflowLog(checkpoint=True, register="it's parts")
    ids = []
    for number, name in enumerate(NASTY):
        run = copied(tracker, name, number)
        run.checkpoint.parent.mkdir(parents=True)
        run.checkpoint.write_bytes(b"weights")
        tracker.copy_test(run)
        ids.append(run.record.run_id)
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert sorted(one.data.tags["defectlab.run_id"] for one in found) == sorted(ids)  # a test adds to its training
    texts = [text for one in found for text in (one.info.run_name, *one.data.tags.values(), *one.data.params)]
    texts += [experiment.name for experiment in client.search_experiments()]
    assert not [text for text in texts if CONTROL.search(text) or "\n" in text or len(text) > 250]
    assert sorted(version.tags["defectlab.run_id"] for version in client.search_model_versions()) == sorted(ids)
    assert {path.name for path in own_project.iterdir()} == {"results", "mlruns"}


def test_weights_and_biases_takes_every_name(monkeypatch: pytest.MonkeyPatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for number, name in enumerate(NASTY):
        copied(WandbLog(), name, number)
    for one in fake.runs:
        assert not CONTROL.search(one.told["name"])
        json.dumps(one.told["config"], ensure_ascii=False).encode()  # as protobuf does
        assert all(len(key) < 250 and not CONTROL.search(key) for _, values in one.logged for key in values)
    assert all(one.saved == ["run.json"] for one in fake.runs[1::2])


def test_weights_and_biases_gets_the_files_of_a_dataset_in_brackets():
    pytest.importorskip("wandb")
    run = copied(WandbLog(), "parts [1]", 0)
    (saved,) = run.folder.glob("wandb/offline-run-*/files/run.json")
    assert json.loads(saved.read_text())["run_id"] == run.record.run_id


class FakeComet:
    """As much of comet_ml as is used."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def OfflineExperiment(self, **told: Any) -> Any:  # noqa: N802 - comet's name
        one = SimpleNamespace(told=told, tags=[], metrics=[], assets=[], parameters={}, ended=False)
        one.set_name = lambda name: setattr(one, "name", name)
        one.add_tag = one.tags.append
        one.log_parameters = one.parameters.update
        one.log_metric = lambda name, value, step=None: one.metrics.append((step, {name: value}))
        one.log_metrics = lambda values, step=None, epoch=None: one.metrics.append((step, values))
        one.log_asset = lambda file, file_name: one.assets.append(file_name)
        one.end = lambda: setattr(one, "ended", True)
        self.made.append(one)
        return one


@pytest.mark.row("3.21")
def test_comet_offline_gets_curves_metrics_and_files(parts: Path, monkeypatch: pytest.MonkeyPatch):
    fake = FakeComet()
    monkeypatch.setitem(sys.modules, "comet_ml", fake)
    run = trained_vae(parts, loggers=[{"name": "comet", "project": "parts"}])
    train, test = fake.made
    assert (train.tags, test.tags) == (["train"], ["test"])
    assert train.told["offline_directory"] == str(run.folder / "comet")
    assert train.parameters["model.latent_dim"] == 8
    curve = [values["train_loss"] for _, values in train.metrics if "train_loss" in values]
    assert curve == pytest.approx(run.record.history["train_loss"])
    assert test.metrics[0][1]["image_AUROC"] == run.record.metrics["image_AUROC"]
    assert "run.json" in test.assets
    assert train.ended
    assert test.ended


@pytest.mark.parametrize("step", ["start", "log epoch", "log test", "store", "finish"])
def test_a_broken_tracker_never_loses_the_record(
    step: str, parts: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    method, _, kind = step.partition(" ")

    def breaks(*given: Any, **_: Any) -> None:
        if not kind or given[-1].kind == kind:
            raise ConnectionError("no tracker here")

    monkeypatch.setattr(CsvLog, method, breaks)
    monkeypatch.setattr(CsvLog, "location", lambda _: "nowhere")
    model = SmallConvVae(latent_dim=2, image_size=(16, 16))
    images = data(parts, train_batch_size=8, eval_batch_size=8)
    engine = Engine(max_epochs=1, enable_progress_bar=False)
    engine.add_callback(CsvLog())  # as one given to the constructor
    engine.train(model=model, datamodule=images)
    run = Run.open(model.run_folder)
    assert run.status == "finished"
    assert run.record.metrics["image_AUROC"] is not None
    assert run.record.trackers == {"csv": TrackerRecord(error="ConnectionError: no tracker here")}
    assert "go on without it" in caplog.text


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ("csv", "must be a list"),
        (["mlflo"], "Did you mean 'mlflow'"),
        (["csv", {"name": "csv"}], "twice"),
        ([{"project": "x"}], "a mapping with a name"),
        ([{"name": "csv", "fil": "x"}], "Logger csv has no option 'fil'. Did you mean 'file'"),
        ([{"name": "wandb", "mode": "of"}], "offline"),
        ([{"name": "mlflow", "checkpoint": "no"}], "checkpoint must be true or false"),
        ([{"name": "mlflow", "register": "x"}], "checkpoint: true"),
        ([{"name": "mlflow", "stage": "x"}], "give register"),
        ([{"name": "mlflow", "register": "../x", "checkpoint": True}], "no name of a model"),
    ],
)
def test_what_names_no_tracker_is_refused(specs: Any, message: str):
    with pytest.raises(OptionError, match=message):
        make_trackers(specs)


@pytest.mark.parametrize("name", [name for name, tracker in TRACKERS.items() if tracker.packages])
def test_an_absent_package_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    tracker = TRACKERS[name]
    for package in tracker.packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError, match=rf"needs {', '.join(tracker.packages)}.*pip install 'defectlab\[{tracker.extra}\]'"
    ):
        check_trackers(["csv", name])
    assert main(["train", "--data.root", "x", "--model.name", "padim", "--loggers", f"[{name}]"]) == 2
    assert tracker.extra in capsys.readouterr().err
