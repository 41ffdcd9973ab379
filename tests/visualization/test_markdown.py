"""Runs as rows of a Markdown table."""

from pathlib import Path

import pytest
from helpers.models import trained_vae
from helpers.runs import finished

from defectlab.cli import main
from defectlab.utils import paths
from defectlab.visualization.markdown import experiment_table


def test_experiments_stand_side_by_side(wells: Path):
    run = trained_vae(wells)
    header, rule, row, other = experiment_table(
        [run, finished("x", dataset="wells", metrics={"image_TPR": None})]
    ).splitlines()
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert columns == [
        "model", "run", "parameters", "epochs", "lr", "threshold", "image_TPR", "image_TNR", "image_AUROC", "fit s",
    ]  # fmt: skip
    assert rule.count("|") == header.count("|") == row.count("|") == other.count("|")
    values = dict(zip(columns, (cell.strip() for cell in row.strip("|").split("|")), strict=True))
    assert (values["model"], values["run"], values["epochs"], values["lr"]) == ("SmallConvVae", "8_3ep", "3", "0.003")
    assert values["parameters"] == f"{run.record.parameters / 1e6:.2f} M"
    assert values["image_TPR"] == f"{run.record.metrics['image_TPR']:.3f}"
    assert dict(zip(columns, (cell.strip() for cell in other.strip("|").split("|")), strict=True))["image_TPR"] == "-"


def test_all_runs_as_one_markdown_table(capsys: pytest.CaptureFixture[str]):
    finished("one", metrics={"image_AUROC": 0.75})
    finished("two", dataset="bottle", metrics={"image_AUROC": None})
    assert main(["compare", "--table"]) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = [cell.strip() for cell in header.strip("|").split("|")]
    assert [row[0] for row in cells] == ["bottle", "coins"]
    assert [row[names.index("image_AUROC")] for row in cells] == ["-", "0.750"]
    assert not paths.workbook().exists(), "it only prints"
    assert main(["compare", "--table", "--prune"]) == 2
    one = finished("one")
    assert main(["compare", str(one.folder), "--table"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
