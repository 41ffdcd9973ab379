"""The export of a run: what is written, what the parity gate refuses, and what is left behind."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.models import fitted

from defectlab import Detector, export_run
from defectlab.cli import main
from defectlab.export.checks import read_exports
from defectlab.export.detectors import open_detector
from defectlab.export.export import ParityError, verify
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError, OptionError


@pytest.fixture
def run(parts: Path) -> Run:
    return fitted("padim", parts)[1]


def test_files_agree_with_the_run_and_say_what_it_says(run: Run):
    before = run.checkpoint_file().read_bytes()
    records = export_run(run, ["onnx", "torchscript"])
    assert [one.file for one in records] == ["exports/model.onnx", "exports/model.pt"]
    assert read_exports(run).exports == records
    for record in records:
        parity = record.parity
        assert parity.problems == []
        assert parity.images == len(run.scores())
        assert parity.score_difference < 1e-5
        assert 0 <= parity.map_difference < 1e-4
        assert parity.changed_labels == 0
        assert parity.before == {name: run.record.metrics[name] for name in ("image_AUROC", "pixel_AUROC")}
        described = open_detector(run.folder / record.file).description
        assert described.image_threshold == run.record.thresholds.image.value
        assert described.pixel_threshold == run.record.thresholds.pixel.value
        assert described.run.id == run.record.run_id
        assert described.preprocessing == run.record.preprocessing.options()
    assert run.checkpoint_file().read_bytes() == before
    assert {path.name for path in (run.folder / "exports").iterdir()} == {"model.onnx", "model.pt", "export.json"}
    again = export_run(run, "onnx")[0]  # replaces the file and its record
    assert [one.file for one in read_exports(run).exports] == ["exports/model.pt", "exports/model.onnx"]
    assert again.parity.score_difference == records[0].parity.score_difference


def test_the_command_exports_and_the_detector_of_the_file_decides_as_that_of_the_run(
    run: Run, parts: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["export", str(run.folder), "--format", "onnx"]) == 0
    assert "exports/model.onnx" in capsys.readouterr().out
    images = parts / "test"
    own, exported = (Detector.load(path).predict(images) for path in (run.folder, run.folder / "exports/model.onnx"))
    assert [one.image_path for one in own] == [one.image_path for one in exported]
    assert [one.label for one in own] == [one.label for one in exported]
    np.testing.assert_allclose([one.score for one in exported], [one.score for one in own], rtol=1e-4)
    span = max(one.anomaly_map.max() for one in own)
    for one, other in zip(own, exported, strict=True):
        np.testing.assert_allclose(other.anomaly_map, one.anomaly_map, atol=1e-4 * span)
    assert main(["export", str(run.folder), "--verify", str(run.folder / "exports/model.onnx")]) == 0
    assert main(["export", str(run.folder), "--format", "onyx"]) == 2
    assert "Did you mean 'onnx'" in capsys.readouterr().err


def test_a_file_that_says_something_else_is_not_kept(run: Run):
    rows = run.scores()
    changed = [replace(rows[0], score=rows[0].score * 1.001), *rows[1:]]
    run.write_scores(changed)
    with pytest.raises(ParityError, match=r"scores differ by up to [\d.]+e-04 of their size"):
        export_run(run, "torchscript")
    assert list((run.folder / "exports").iterdir()) == []


def test_maps_that_differ_are_refused(run: Run):
    maps = np.load(run.maps_path("test"))
    low, high = np.load(run.maps_path("validation")).min(), np.load(run.maps_path("validation")).max()
    maps[2, 5, 5] += 0.01 * (high - low)
    np.save(run.maps_path("test"), maps)
    with pytest.raises(ParityError, match=r"maps differ by up to 1\.0e-02 of their range"):
        export_run(run, "torchscript")


def test_labels_that_differ_are_refused(run: Run):
    rows = run.scores()
    flipped = replace(rows[3], pred_label=1 - rows[3].pred_label)
    run.write_scores([*rows[:3], flipped, *rows[4:]])
    with pytest.raises(ParityError, match="labels changed, such as"):
        export_run(run, "torchscript")


def test_a_file_is_verified_later_and_damage_is_found(run: Run):
    (record,) = export_run(run, "torchscript")
    assert verify(run.folder / record.file).problems == []
    rows = run.scores()
    run.write_scores([replace(rows[0], score=rows[0].score * 1.01), *rows[1:]])
    assert "scores differ" in verify(run.folder / record.file).words


def test_reduced_precisions_have_thresholds_of_their_own(run: Run):
    plain, half, record = export_run(run, "onnx", precision=["float32", "float16", "int8"], max_drop=0.2)
    assert [plain.file, half.file] == ["exports/model.onnx", "exports/model_float16.onnx"]
    assert plain.thresholds["image"] == run.record.thresholds.image.value
    assert record.file == "exports/model_int8.onnx"
    described = open_detector(run.folder / record.file).description
    assert described.precision == "int8"
    assert described.image_threshold == record.thresholds["image"] != run.record.thresholds.image.value
    assert "chosen again" in record.notes[0]
    with pytest.raises(ParityError, match="pixel_AUROC falls from"):
        export_run(run, "onnx", precision="int8", max_drop=0.0)
    assert (run.folder / record.file).is_file()  # of before


@pytest.mark.parametrize(
    ("formats", "precision", "message"),
    [
        ("onyx", "float32", "Did you mean 'onnx'"),
        ("onnx", "int4", "precision"),
        ("torch", "int8", "torch is exported in float32 only"),
        ([], "float32", "at least one format"),
    ],
)
def test_what_cannot_be_asked_for_is_said(formats, precision, message: str, tmp_path: Path):
    with pytest.raises(OptionError, match=message):
        export_run(tmp_path, formats, precision=precision)


def test_a_run_without_scores_or_images_is_refused(run: Run, parts: Path):
    (run.folder / "scores.csv").rename(run.folder / "scores.bak")
    with pytest.raises(InputError, match="Test the run first"):
        export_run(run)
    text = (run.folder / "scores.bak").read_text(encoding="utf-8").replace(".png", ".gone.png")
    (run.folder / "scores.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="is gone"):
        export_run(run, "torchscript")


def test_the_record_is_json(run: Run):
    export_run(run, "torchscript")
    data = json.loads((run.folder / "exports" / "export.json").read_text(encoding="utf-8"))
    assert data["exports"][0]["parity"]["changed_labels"] == 0
