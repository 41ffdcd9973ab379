"""One experiment on many categories."""

import csv
from pathlib import Path

import pytest
from helpers.datasets import make_parts

from defectlab.cli.main import main
from defectlab.data.manifest.categories import OBJECTS, chosen_categories
from defectlab.data.manifest.options import DataOptions
from defectlab.experiment import Experiment, build
from defectlab.sweeps.run_many import METRICS, per_category, run_categories, table_of, write_table
from defectlab.utils import paths
from defectlab.utils.errors import DataError, OptionError

MODEL = {"name": "padim", "layers": ["layer1"], "n_features": 10, "image_size": 64}


def experiment(root: Path, **options) -> Experiment:
    data = {"root": str(root), "num_workers": 0, **options.pop("data", {})}
    given = {"categories": "all", "model": MODEL, **options}
    return Experiment.from_dict({"data": data, "backbone": {"name": "resnet18", "weights": "random"}, **given})


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for number, name in enumerate(("bottle", "carpet", "mine")):
        make_parts(tmp_path / "shelf" / name, train=4 + number, good=2, bad=2)
    return tmp_path / "shelf"


@pytest.mark.row("4.1", "4.4")
def test_names_lists_and_groups():
    there = ["bottle", "carpet", "mine"]
    groups = {"ours": ["mine", "bottle"]}
    for asked, expected in (
        ("all", there),
        ("mine", ["mine"]),
        ("ours", ["mine", "bottle"]),
        (["ours", "carpet", "mine"], ["mine", "bottle", "carpet"]),
        ("carpet, mine", ["carpet", "mine"]),
    ):
        assert chosen_categories(asked, there, groups) == expected
    with pytest.raises(DataError, match="Did you mean 'bottle'"):
        chosen_categories("botle", there, groups)
    with pytest.raises(DataError, match="cable"):
        chosen_categories("objects", there, groups)
    assert chosen_categories("objects", [*OBJECTS], groups) == [*OBJECTS]


def test_an_experiment_for_each_category(shelf: Path):
    each = per_category(experiment(shelf, categories=["mine", "bottle"]))
    assert [(one.data.name, Path(one.data.root).name, one.categories) for one in each] == [
        ("mine", "mine", None), ("bottle", "bottle", None)
    ]  # fmt: skip
    with pytest.raises(OptionError, match=r"leave out data\.name"):
        per_category(experiment(shelf, data={"name": "x"}))
    with pytest.raises(OptionError, match="is several"):
        build(experiment(shelf))
    assert DataOptions().unknown_dir is None


def test_a_table_keeps_the_name_that_earlier_versions_gave_it():
    assert table_of(experiment(Path("shelf"))).name == "all_padim_05c7e2.csv"


def test_a_mean_says_of_how_many_it_is(tmp_path: Path):
    done = {"status": "finished", "image_AUROC": 0.5}
    write_table(tmp_path / "t.csv", [{**done, "pixel_AUROC": 0.9}, {**done, "pixel_AUROC": None}, {"status": "failed"}])
    mean = rows_of(tmp_path / "t.csv")[-1]
    assert (mean["status"], mean["image_AUROC"]) == ("of 2; pixel_AUROC of 1", "0.5")


@pytest.mark.row("R.20")
def test_print_config_trains_nothing(shelf: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["train", "--data.root", str(shelf), "--model.name", "padim", "--categories", "all", "--print_config"]
    assert main(arguments) == 0
    assert "categories: all" in capsys.readouterr().out
    assert not paths.results_dir().exists()


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.row("4.8")
def test_the_table_grows_and_survives_a_broken_category(shelf: Path, monkeypatch: pytest.MonkeyPatch):
    (shelf / "carpet/train/good/000.png").write_bytes(b"broken")
    seen = []
    import defectlab.sweeps.run_many as module

    write = module.write_table
    monkeypatch.setattr(module, "write_table", lambda table, rows: (seen.append(len(rows)), write(table, rows)))
    wanted = experiment(shelf)
    table = table_of(wanted)
    assert len(run_categories(per_category(wanted), table)) == 2
    assert seen == [1, 2, 3]
    rows = rows_of(table)
    assert [(row["category"], row["status"]) for row in rows] == [
        ("bottle", "finished"), ("carpet", "failed"), ("mine", "finished"), ("mean", "of 2")
    ]  # fmt: skip
    assert "000.png" in rows[1]["error"]
    for name in METRICS:
        values = [float(row[name]) for row in rows[:3] if row[name]]
        assert float(rows[3][name]) == pytest.approx(sum(values) / len(values))
    folder = paths.resolve(rows[0]["run"])
    before = (folder / "run.json").stat().st_mtime_ns

    make_parts(shelf / "carpet", train=5, good=2, bad=2)  # mended: only what is missing is run
    settings = ["--model.layers", "[layer1]", "--model.n_features", "10", "--model.image_size", "64"]
    arguments = ["train", "--data.root", str(shelf), "--data.num_workers", "0", "--backbone.weights", "random"]
    assert main([*arguments, "--model.name", "padim", *settings, "--categories", "all"]) == 0
    assert (folder / "run.json").stat().st_mtime_ns == before
    again = [file for file in table.parent.iterdir() if rows_of(file)[-1]["status"] == "of 3"]
    assert len(again) == 1
