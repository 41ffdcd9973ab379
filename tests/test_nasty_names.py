"""Nasty names of files, folders, kinds of defect, datasets and runs through all that DefectLab writes."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from helpers.nasty_names import CONTROL, NASTY, Page
from helpers.runs import finished, run_with_maps
from PIL import Image

from defectlab import Detector, predict_to_folder, report_predictions
from defectlab.cli import main
from defectlab.experiment import Experiment
from defectlab.experiment import run as train
from defectlab.inference.review import confirmed, write_verdicts
from defectlab.results.evaluate import evaluate_run
from defectlab.results.run.run import Run, find_runs
from defectlab.results.run.scores import read_scores
from defectlab.results.workbook import read_workbook, update_workbook
from defectlab.utils import paths
from defectlab.visualization.markdown import experiment_table
from defectlab.visualization.report import write_report
from defectlab.visualization.result_files import write_result_files
from defectlab.visualization.run_panel import run_panel
from defectlab.visualization.segmentation import write_run_figures
from defectlab.visualization.terminal import runs_table
from defectlab_runtime import names

OURS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "b", "a", "nav", "div", "span", "table",
    "thead", "tbody", "tr", "th", "td", "details", "summary", "figure", "figcaption", "img", "svg", "defs", "g", "path",
    "use", "text", "tspan", "clippath", "rect", "metadata", "rdf:rdf", "cc:work", "dc:type", "dc:format", "dc:creator",
    "cc:agent",
    "dc:title", "dc:date",
}  # fmt: skip
FILES = (
    "=1+1.png", "<script>alert(1)</script".replace("/", "\u2215") + ".png", "$\\frac{a$.png", "two\nlines.png",
    "\x1b[2J.png", "[red]x[\u2215red].png", "x" * 251 + ".png", "Case.png", "case.png", "a;=1+1.png", "\u202egnp.png",
)  # fmt: skip
KIND = "=cmd|'<b>$\\frac{a$\n`|"


def check_workbook() -> list[dict[str, object]]:
    """Check that the workbook opens and that its text is text; return the rows."""
    book = openpyxl.load_workbook(paths.workbook())
    types = {cell.data_type for sheet in book.worksheets for row in sheet.iter_rows() for cell in row}
    assert types <= {"s", "n", "d"}
    return read_workbook()


def check_page(file: Path) -> None:
    page = file.read_text(encoding="utf-8")
    found = Page(page)
    assert found.tags <= OURS
    assert not {name for name in found.attributes if name.startswith("on")}
    assert not CONTROL.search(page)


def check_csv(file: Path, columns: int, lines: int) -> None:
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.reader(opened))
    assert [len(row) for row in rows] == [columns + ("names_escaped" in rows[0])] * lines
    for cell in (cell for row in rows for text in row for cell in re.split("[;\n]", text)):
        assert re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell) or not re.match("[=+\\-@\t\r]", cell)


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_a_run_of_any_name_is_recorded_and_shown_and_blocks_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = finished(name, dataset=name, options={"layers": [name], "note": name})
    assert run.folder.relative_to(tmp_path / "results").parts[0] == "Padim"
    assert len(run.folder.relative_to(tmp_path / "results").parts) == 3
    again, kept = Run.open(run.folder).record, name.replace("\0", "\ufffd")
    assert (again.experiment.name, again.dataset.name) == (kept, kept)
    assert again.experiment.model["layers"] == [kept]
    update_workbook(run)
    update_workbook(finished("later"))
    rows = check_workbook()
    assert {row["run_id"] for row in rows} == {run.record.run_id for run in find_runs()}
    lines = experiment_table([run]).splitlines()
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) == 1
    runs_table([run], f"Runs on {name}")
    assert not CONTROL.search(capsys.readouterr().out)


def test_kinds_and_images_of_every_name_in_report_files_and_pictures(tmp_path: Path):
    run = run_with_maps("every", 1, 2 * len(NASTY), 0.5, tmp_path)
    rows = run.scores("test")
    named = [
        row.__class__(row.image_path, row.split, NASTY[place // 2] or "x", place % 2, row.score, row.pred_label)
        for place, row in enumerate(rows)
    ]
    named[0] = named[0].__class__(f"images/{NASTY[1]}", *list(vars(named[0]).values())[1:])
    run.write_scores(named)
    assert run.scores("test") == named
    check_csv(run.folder / "scores.csv", 6, len(named) + 1)
    run.update(dataset=run.record.dataset.replaced(name="../../=1 <b>$\\frac{a$"), **evaluate_run(run))
    update_workbook(run)
    check_workbook()
    check_page(write_report([run], tmp_path / "report.html"))
    written = list(write_result_files(run, tmp_path / "files"))
    check_csv(written[1], 4, len(named) + 1)
    kinds = json.loads(written[0].read_text(encoding="utf-8"))["kinds"]
    assert {kind["label"] for kind in kinds} == {name.replace("\0", "\ufffd") or "x" for name in NASTY}


def test_figures_stay_in_their_folder(tmp_path: Path):
    run = run_with_maps("figures", 1, 3, 0.5, tmp_path)
    run.update(dataset=run.record.dataset.replaced(name="../../outside"))
    assert run_panel(run) is not None
    (figure,) = write_run_figures(run, tmp_path / "figures")
    assert figure.resolve().parent == tmp_path / "figures"
    assert figure.name == "-..-outside_val_0.png"


def nasty_parts(root: Path) -> Path:
    """Write a dataset whose folders and files have nasty names."""
    random = np.random.default_rng(0)
    for folder in ("train/good", "test/good", f"test/{KIND}"):
        (root / folder).mkdir(parents=True)
        for name in FILES:
            pixels = random.normal(110, 12, (48, 48, 3)).clip(0, 255).astype(np.uint8)
            if folder.startswith("test/=") and name != FILES[0]:
                pixels[8:20, 8:20] = (250, 240, 60)
            Image.fromarray(pixels).save(root / folder / name)
    return root


def test_nasty_names_from_training_to_review(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = nasty_parts(tmp_path / "=1 <i>$\\frac{a$")
    run = train(Experiment.from_dict({
        "name": "{'=run'}\n<b>\x1b[2J $\\frac{a$",
        "data": {"name": "../=data\n<b>", "root": str(root), "normal_dir": "train/good",
                 "normal_test_dir": "test/good", "abnormal_dir": [f"test/{KIND}"], "num_workers": 0},
        "backbone": {"name": "resnet18", "weights": "random"},
        "model": {"name": "padim", "layers": ["layer1"], "n_features": 10, "image_size": [32, 32]},
        "trainer": {"enable_progress_bar": False},
    }))  # fmt: skip
    assert run.folder.relative_to(tmp_path / "results").as_posix() == "Padim/-=data--b-/=run-b-2J-frac-a"
    assert run.record.experiment.name == "{'=run'}\n<b>\x1b[2J $\\frac{a$"
    assert {row.defect for row in run.scores("test")} == {"good", KIND}
    assert len(check_workbook()) == 1
    assert (run.folder / "pictures.png").is_file()
    assert main(["report", str(run.folder), "--files", "--figures", "first"]) == 0
    check_page(run.folder / "report.html")
    assert main(["evaluate", str(run.folder)]) == 0
    assert main(["compare", "--table"]) == 0
    assert not CONTROL.search(capsys.readouterr().out.replace("\t", ""))

    new = root / "test"
    shutil.copy(new / "good" / FILES[0], os.fsdecode(bytes(new / "good") + b"/undecodable\xff.png"))
    (new / "good" / "=broken.png").write_bytes(b"no image")
    images = 2 * len(FILES) + 2
    scores = predict_to_folder(run.folder, new, tmp_path / "new", heatmaps=True, masks=True, figures="first")
    check_csv(scores, 7, images + 1)
    assert {paths.resolve(row.image_path) for row in read_scores(scores)} == set(new.rglob("*.png"))
    pictures = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert len(pictures) == 2 * (images - 1) + 2
    assert len({names.alike(str(path)) for path in pictures}) == len(pictures)
    assert all(path.resolve().is_relative_to(tmp_path / "new") for path in pictures)
    report = report_predictions(run.folder, new, tmp_path / "judged")
    check_csv(tmp_path / "judged" / "scores.csv", 7, images + 1)
    found = json.loads(report.read_text(encoding="utf-8"))["observations"]
    assert {one["file_name"] for one in found} == {path.name for path in new.rglob("*.png")} - {"=broken.png"}

    detector = Detector.load(run.folder)
    predicted = [detector.predict(str(new / "good" / name))[0] for name in FILES[:3]]
    write_verdicts(predicted, {str(one.image_path): "good" for one in predicted}, tmp_path / "verdicts.csv")
    check_csv(tmp_path / "verdicts.csv", 5, 4)
    assert confirmed(tmp_path / "verdicts.csv") == [new / "good" / name for name in FILES[:3]]
