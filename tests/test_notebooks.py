"""The committed notebooks: thin, without outputs, equal to their twins, and they run as a person would run them."""

import ast
import builtins
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from helpers.datasets import make_parts
from nbclient import NotebookClient

import defectlab
from defectlab import make_sample
from defectlab.backbones.registry import build, get_spec
from defectlab.results.run.run import find_runs
from defectlab.results.workbook import read_workbook

CHECKOUT = Path(defectlab.__file__).parents[1]
NOTEBOOKS = sorted(
    path for folder in ("training_code", "inference_code") for path in (CHECKOUT / folder).glob("*.ipynb")
)
MOST_LINES = 14
TRAINING = ["training_code/padim.ipynb", "training_code/patchcore.ipynb"]
READING = ["training_code/compare.ipynb", "inference_code/set_the_threshold.ipynb"]
INFERENCE = ["inference_code/predict.ipynb", "inference_code/look_at_one_image.ipynb"]
OTHER_BACKBONES = ["resnet18", "resnet50", "wide_resnet50_2", "cspdarknet53", "efficientnet_b7"]


def name_of(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def cells(path: Path, kind: str) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_all_are_there():
    assert [name_of(path) for path in NOTEBOOKS] == [
        "inference_code/look_at_one_image.ipynb", "inference_code/predict.ipynb",
        "inference_code/review.ipynb", "inference_code/set_the_threshold.ipynb",
        "training_code/cflow.ipynb", "training_code/compare.ipynb",
        "training_code/featcae.ipynb", "training_code/more_models.ipynb",
        "training_code/padim.ipynb", "training_code/patchcore.ipynb", "training_code/sweep.ipynb",
        "training_code/vae.ipynb", "training_code/your_own_data.ipynb",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def twins() -> dict[str, str]:
    """What jupytext makes of each notebook."""
    # in a process of its own: jupytext fails where another test has loaded nbformat's classes a second time
    code = (
        "import json, sys, jupytext;"
        "print(json.dumps([jupytext.writes(jupytext.read(path), fmt='py:percent') for path in sys.argv[1:]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *NOTEBOOKS], capture_output=True, text=True, check=True)
    return dict(zip(map(name_of, NOTEBOOKS), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
class TestEveryNotebook:
    def test_twin_is_equal(self, path: Path, twins: dict[str, str]):
        twin = path.parent / "py" / path.with_suffix(".py").name
        assert twin.read_text(encoding="utf-8") == twins[name_of(path)], f"run: jupytext --sync {name_of(path)}"

    def test_holds_no_outputs(self, path: Path):
        for cell in cells(path, "code"):
            assert cell.outputs == []
            assert cell.execution_count is None

    def test_names_what_every_kernel_has(self, path: Path):
        metadata = nbformat.read(path, as_version=4).metadata
        assert metadata.kernelspec.name == "python3"
        assert metadata.jupytext.formats == "ipynb,py//py:percent"

    def test_cells_are_thin(self, path: Path):
        for cell in cells(path, "code"):
            assert len(cell.source.splitlines()) <= MOST_LINES
            nodes = ast.walk(ast.parse(cell.source))
            assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) for node in nodes)

    def test_no_cell_needs_a_name_of_one_that_may_fail(self, path: Path):
        known = set(dir(builtins))
        for cell in cells(path, "code"):
            tree = ast.parse(cell.source)
            names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
            own = {node.id for node in names if isinstance(node.ctx, ast.Store)} | {
                (alias.asname or alias.name).split(".")[0]
                for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
            } | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)} | {
                node.name for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.name
            }  # fmt: skip
            unknown = {node.id for node in names} - own - known
            assert not unknown, f"{unknown} of: {cell.source}"
            known |= own if "raises-exception" not in cell.metadata.get("tags", []) else set()

    def test_a_text_cell_precedes_each_code_cell(self, path: Path):
        kinds = [cell.cell_type for cell in nbformat.read(path, as_version=4).cells]
        assert kinds[0] == "markdown"
        assert all(before == "markdown" for before, kind in itertools.pairwise(kinds) if kind == "code")

    def test_paths_are_relative(self, path: Path):
        assert not any(f"{quote}/" in cell.source for cell in cells(path, "code") for quote in "\"'")


@pytest.mark.parametrize("path", [CHECKOUT / name for name in [*TRAINING, "training_code/cflow.ipynb"]], ids=name_of)
def test_a_training_cell_is_complete_in_itself(path: Path):
    trainings = [cell for cell in cells(path, "code") if "Engine(" in cell.source]
    assert len(trainings) == len(cells(path, "code")) - 1
    assert 'load_backbone("efficientnet_lite0")' in trainings[0].source
    for cell in trainings:
        tree = ast.parse(cell.source)
        known = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                 for alias in node.names}  # fmt: skip
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        known |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
        assert {node.id for node in names} <= known
        assert 'Folder(root="data/coins", train_batch_size=10' in cell.source
        assert "raises-exception" in cell.metadata.tags
    assert {name for name in OTHER_BACKBONES if any(f'("{name}")' in cell.source for cell in trainings)} == set(
        OTHER_BACKBONES
    )


def project(root: Path, *, train: int, good: int, bad: int) -> Path:
    """A person's project folder: notebooks, a workbook that marks the root, a few small images."""
    for folder in ("training_code", "inference_code"):
        shutil.copytree(CHECKOUT / folder, root / folder, ignore=shutil.ignore_patterns("py", ".ipynb_checkpoints"))
    (root / "models_comparing.xlsx").touch()
    make_parts(root / "data/coins", train=train, good=good, bad=bad, defect="patch")
    return root


def random_weights(root: Path, name: str) -> None:
    (root / "weights").mkdir(exist_ok=True)
    torch.save(build(get_spec(name), seed=0).state_dict(), root / f"weights/{name}.pth")


def execute(root: Path, names: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Run notebooks as they are, each in a fresh kernel in its own folder; returns the errors shown in each."""
    monkeypatch.delenv("DEFECTLAB_HOME", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT), prepend=os.pathsep)
    errors = {}
    for name in names:
        notebook = nbformat.read(root / name, as_version=4)
        resources = {"metadata": {"path": str((root / name).parent)}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        errors[name] = [output for output in outputs if output.output_type == "error"]
        chatter = "".join(output.text for output in outputs if output.output_type == "stream")
        assert "GPU available" not in chatter, "Lightning's commentary is kept out of notebooks"
        assert "\r" not in chatter, "bars are drawn in place, never as text"
    return errors


def cheapen(root: Path, name: str, cheap: dict[str, str]) -> None:
    """Replace patterns in a notebook's cells; each must occur, or the notebook has moved on."""
    notebook = nbformat.read(root / name, as_version=4)
    for pattern, instead in cheap.items():
        assert any(re.search(pattern, cell.source) for cell in notebook.cells), pattern
        for cell in notebook.cells:
            cell.source = re.sub(pattern, instead, cell.source)
    nbformat.write(notebook, root / name)


def assert_only_weights_are_missing(errors: Sequence[Any], expected: int) -> None:
    assert len(errors) == expected
    for error in errors:
        assert error.ename == "WeightsError"
        assert "defectlab weights get " in error.evalue
        assert len(error.traceback) == 1, "the message alone, no traceback"
        assert error.traceback[0].startswith("WeightsError: No weights for backbone")


def test_they_run_with_the_weights_that_come_along(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=3, good=4, bad=4)
    errors = execute(root, [*TRAINING, *INFERENCE], monkeypatch)
    assert_only_weights_are_missing(errors["training_code/padim.ipynb"], 13)
    assert_only_weights_are_missing(errors["training_code/patchcore.ipynb"], 6)
    assert not errors["inference_code/predict.ipynb"]
    assert not errors["inference_code/look_at_one_image.ipynb"]
    runs = find_runs(root / "results")
    assert sorted(run.folder.relative_to(root / "results").as_posix() for run in runs) == [
        "Padim/coins/efficientnet_lite0_blocks.1-blocks.2-blocks.4_100",
        "Patchcore/coins/efficientnet_lite0_blocks.2-blocks.4_0.01_3",
        "Patchcore/coins/efficientnet_lite0_blocks.2-blocks.4_0.1_9",
    ]
    assert all(run.status == "finished" and (run.folder / "pictures.png").is_file() for run in runs)
    rows = read_workbook(root / "models_comparing.xlsx")
    assert {row["run_id"] for row in rows} == {run.record.run_id for run in runs}
    assert len(list((root / "predictions/coins/heatmaps").rglob("*.png"))) == 8
    assert len(list((root / "predictions/coins/masks").rglob("*.png"))) == 8


def cut(root: Path, name: str, codes: int) -> None:
    """Keep a notebook up to its first so many code cells."""
    notebook = nbformat.read(root / name, as_version=4)
    places = [place for place, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    notebook.cells = notebook.cells[: places[codes - 1] + 1]
    nbformat.write(notebook, root / name)


def test_runs_are_compared_and_a_threshold_is_set(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=3, good=4, bad=4)
    cut(root, "training_code/patchcore.ipynb", 3)
    errors = execute(root, ["training_code/patchcore.ipynb", *READING], monkeypatch)
    assert not any(errors.values()), errors
    assert (root / "results/report.html").stat().st_size > 100_000
    name = "inference_code/set_the_threshold.ipynb"
    rules = [threshold_rules(root)]
    for switched in (
        {"APPLY = False": "APPLY = True"},
        {"APPLY = True": "APPLY = False", "UNDO = False": "UNDO = True"},
    ):
        cheapen(root, name, switched)
        assert execute(root, [name], monkeypatch) == {name: []}
        rules.append(threshold_rules(root))
    assert rules == [{"f1"}, {"f1", "conformal / f1"}, {"f1"}], "Run All writes nothing until a cell is told to"


def threshold_rules(root: Path) -> set[Any]:
    """The rules of the images' and of the pixels' thresholds in the workbook, which are those of the records."""
    rows = read_workbook(root / "models_comparing.xlsx")
    runs = [run.record.thresholds for run in find_runs(root / "results")]
    of_records = {" / ".join(dict.fromkeys((found.image.rule, found.pixel.rule))) for found in runs}
    assert {row["threshold_rule"] for row in rows} == of_records
    return of_records


def test_own_data_are_trained_on_reviewed_and_trained_on_again(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=3, good=4, bad=4)
    make_parts(root / "data/coins_new", train=12, good=4, bad=4)  # past the noise that the images above were drawn from
    (root / "data/coins_new/sample.json").write_text("{}")  # as the sample in whose place they are
    names = ["training_code/your_own_data.ipynb", "inference_code/review.ipynb"]
    assert execute(root, names, monkeypatch) == {name: [] for name in names}
    old, new = find_runs(root / "results")
    assert (old.status, new.status) == ("finished", "finished")
    counts = [run.record.dataset.counts for run in (old, new)]
    assert [count["train"]["good"] for count in counts] == [3, 7]
    assert counts[0]["test"] == counts[1]["test"]
    assert (root / "data/verdicts_on_the_sample.csv").read_text().count(",good,") == 4
    assert not (root / "data/verdicts.csv").exists()
    assert (root / "predictions/your_own_data/anomaly_test_output.json").is_file()


@pytest.mark.parametrize("layout", ["good and bad", pytest.param("good alone", marks=pytest.mark.long)])
def test_own_photographs_get_no_verdict_but_the_persons(
    own_project: Path, layout: str, monkeypatch: pytest.MonkeyPatch
):
    """A folder of photographs, its name put in place of the sample's, and cells run again with verdicts."""
    root = project(own_project, train=6, good=4, bad=4)
    parts, mine = root / "data/coins", root / "data/screws"
    shutil.copytree(parts / "train/good", mine / "good")
    if layout == "good and bad":
        for file in sorted((parts / "test/good").iterdir()):
            shutil.copy(file, mine / "good" / f"more_{file.name}")
        shutil.copytree(parts / "test/patch", mine / "bad")
    shutil.copytree(make_parts(root / "data/day", train=12, good=4, bad=4) / "test/good", root / "data/new_screws")
    training, review = "training_code/your_own_data.ipynb", "inference_code/review.ipynb"
    cheapen(root, training, {"data/coins": "data/screws"})
    scoring, threshold = "inference_code/predict.ipynb", "inference_code/set_the_threshold.ipynb"
    cheapen(root, scoring, {"data/coins/test": "data/new_screws", "/coins/": "/screws/"})
    cheapen(root, threshold, {"/coins/": "/screws/", "APPLY = False": "APPLY = True"})
    cheapen(
        root,
        review,
        {"data/coins_new/test": "data/new_screws", "data/coins_new": "data/new_screws", "/coins/": "/screws/"},
    )
    names = [training, scoring, threshold, review]
    assert execute(root, names, monkeypatch) == {name: [] for name in names}
    assert (root / "data/verdicts.csv").read_text().splitlines() == ["image_path,score,label,verdict,reviewed"]
    assert len(find_runs(root / "results")) == 1, "nothing is confirmed, so nothing is trained"
    cheapen(
        root,
        review,
        {
            r"verdicts = \{\}": 'verdicts = {"000.png": "good", "001.png": "anomalous", "002.png": "good"}',
            "ADD = False": "ADD = True",
        },
    )
    assert execute(root, [review], monkeypatch) == {review: []}
    runs = find_runs(root / "results")
    assert sorted(run.record.addition is not None for run in runs) == [False, False, True]
    counts = sorted(run.record.dataset.counts["train"]["good"] for run in runs)
    assert counts == [counts[0], counts[0] + 2, counts[0] + 2]


def test_cflow_runs_with_the_weights_that_come_along(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=1, good=2, bad=2)
    cheap = {r"=30\b": "=5", r"Cflow\(\s*backbone": "Cflow(image_size=128, backbone"}  # epochs, pixels
    cheapen(root, "training_code/cflow.ipynb", cheap)
    errors = execute(root, ["training_code/cflow.ipynb"], monkeypatch)
    assert_only_weights_are_missing(errors["training_code/cflow.ipynb"], 5)
    (run,) = find_runs(root / "results")
    assert run.status == "finished"
    losses = run.record.history["train_loss"]
    assert len(losses) == 5
    assert losses[-1] < losses[0]


def test_featcae_runs_with_the_weights_that_come_along(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=1, good=2, bad=2)
    (root / "data/coins").rename(root / "data/bottle")  # the person's own, found and replaced as the notebook tells
    (root / "data/bottle/test/patch").rename(root / "data/bottle/test/crack")
    (root / "data/bottle/ground_truth/patch").rename(root / "data/bottle/ground_truth/crack")
    cheapen(root, "training_code/featcae.ipynb", {r"=20\b": "=4", "data/coins": "data/bottle"})
    errors = execute(root, ["training_code/featcae.ipynb"], monkeypatch)
    assert_only_weights_are_missing(errors["training_code/featcae.ipynb"], 2)
    (run,) = find_runs(root / "results")
    history = run.record.history
    assert len(history["train_loss"]) == len(history["val_good_loss"]) == len(history["val_anomalous_loss"]) == 4
    assert history["train_loss"][-1] < history["train_loss"][0]


@pytest.mark.long
def test_a_sweep_runs_and_its_best_scores_images(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=2, good=2, bad=2)
    name = "training_code/sweep.ipynb"
    cheap = {
        r"settings = \{": 'settings = {\n    "model": {"image_size": [64, 64]},',
        r"\[0\.01, 0\.1\]": "[0.01]",
        r'"step": 40': '"step": 120',
        r'"max_epochs": 5': '"max_epochs": 1',
        r"\[25, 50\]": "[25]",
        r'\[1, 2, 4, 8, "all"\]': '[1, "all"]',
    }
    cheapen(root, name, cheap)
    assert execute(root, [name], monkeypatch) == {name: []}
    runs = find_runs(root / "results")
    models = sorted(run.model for run in runs)
    assert models == ["FeatCae"] * 2 + ["Padim"] * 2 + ["Patchcore"] * 5 + ["Subspace"]
    assert sum(run.record.k_shots is not None for run in runs) == 2
    assert all(run.status == "finished" and run.checkpoint.is_file() for run in runs)
    assert len(read_workbook(root / "models_comparing.xlsx")) == 10


def test_the_autoencoders_run_on_a_few_wells(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=1, good=2, bad=2)
    make_sample("wells", root / "data/wells", train=12, proliv=3, test=8)
    name = "training_code/vae.ipynb"
    cheap = {  # ninety million weights and their optimiser take a gigabyte on disk
        r"Vae\(latent_dim=128": "Vae(latent_dim=8",
        r"LinearVae\(latent": "LinearVae(hidden=[16, 8], latent",
        r"num_workers=\d+": "num_workers=0",
        r"max_epochs=\d+": "max_epochs=2",
        r"check_val_every_n_epoch=\d+": "check_val_every_n_epoch=1",
    }
    cheapen(root, name, cheap)
    errors = execute(root, [name], monkeypatch)[name]
    assert [error.ename for error in errors] == ([] if find_spec("wandb") else ["InputError"])
    runs = {run.record.experiment.model_name: run for run in find_runs(root / "results")}
    assert set(runs) == {"linear_vae", "small_conv_vae", "big_conv_vae"}
    for run in runs.values():
        assert run.status == "finished"
        assert run.record.thresholds.image.rule == "mean_of_means"
        assert [len(values) for values in run.record.history.values()] == [2, 2, 2]


@pytest.mark.long
def test_more_models_run(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=2, good=2, bad=2)
    for index in range(3):  # in place of the set that would be made
        make_parts(root / f"data/generated/surfaces_360_256px_seed42/{index}", train=1, good=0, bad=0)
    name = "training_code/more_models.ipynb"
    cheapen(root, name, {"image_size=128": "image_size=64", r"=2\b": "=1"})
    assert execute(root, [name], monkeypatch) == {name: []}
    runs = find_runs(root / "results")
    assert {run.model for run in runs} == {"Stfpm", "Fastflow", "Csflow", "Subspace", "Draem", "Dfm", "Patchcore"}
    assert {run.status for run in runs} == {"finished"}
    assert (root / "weights/teacher_for_show.safetensors").is_file()


@pytest.mark.long
def test_an_absent_run_is_named_with_what_makes_it(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=1, good=2, bad=2)
    name = "inference_code/look_at_one_image.ipynb"
    notebook = nbformat.read(root / name, as_version=4)
    notebook.cells = notebook.cells[:2]
    notebook.cells[1].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, root / name)
    (error,) = execute(root, [name], monkeypatch)[name]
    assert error.ename == "InputError"
    assert "first training cell of training_code/patchcore.ipynb" in error.evalue


def test_comparing_nothing_says_what_makes_runs(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=1, good=2, bad=2)
    name = "training_code/compare.ipynb"
    cut(root, name, 1)
    notebook = nbformat.read(root / name, as_version=4)
    notebook.cells[-1].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, root / name)
    (error,) = execute(root, [name], monkeypatch)[name]
    assert error.ename == "InputError"
    assert "There are no finished runs under results yet: run the training cells of" in error.evalue


@pytest.mark.long
@pytest.mark.parametrize("name", ["cflow", "featcae", "sweep"])
def test_they_run_as_they_are(own_project: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=2, good=2, bad=2)
    if name == "sweep":
        cheapen(root, "training_code/sweep.ipynb", {r'\[1, 2, 4, 8, "all"\]': '[1, "all"]'})
    errors = execute(root, [f"training_code/{name}.ipynb"], monkeypatch)[f"training_code/{name}.ipynb"]
    assert_only_weights_are_missing(errors, {"cflow": 5, "featcae": 2, "sweep": 0}[name])
    assert {run.status for run in find_runs(root / "results")} == {"finished"}


@pytest.mark.long
def test_they_run_with_every_backbone(own_project: Path, monkeypatch: pytest.MonkeyPatch):
    root = project(own_project, train=2, good=2, bad=2)
    for name in OTHER_BACKBONES:
        random_weights(root, name)
    errors = execute(root, TRAINING, monkeypatch)
    assert not any(errors.values()), errors
    runs = find_runs(root / "results")
    assert len(runs) == 14 + 8
    assert {run.status for run in runs} == {"finished"}
