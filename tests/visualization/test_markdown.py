"""Runs as rows of a Markdown table."""

from pathlib import Path

from helpers.models import trained_vae
from helpers.runs import finished

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
