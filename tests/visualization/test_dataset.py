"""A first look at a dataset: counts, sizes and images."""

from pathlib import Path

import pytest
from PIL import Image

from defectlab import Folder
from defectlab.visualization.dataset import counts_table, labels_figure, samples_figure, size_table
from defectlab_runtime.errors import InputError


def test_a_first_look_at_a_dataset(wells: Path):
    manifest = Folder(root=wells).manifest
    assert counts_table(manifest).splitlines() == [
        "| split | good | proliv |",
        "| --- | ---: | ---: |",
        "| train | 16 | 0 |",
        "| validation | 4 | 4 |",
        "| test | 6 | 2 |",
    ]
    train = next(line for line in size_table(manifest).splitlines() if line.startswith("| train |"))
    sizes = [Image.open(path).size for path in (wells / "train").iterdir()]
    ranges = [f"{min(side)} to {max(side)}" for side in zip(*sizes, strict=True)]
    assert train == f"| train | 20 | {len(set(sizes))} | {ranges[0]} | {ranges[1]} |"
    assert labels_figure(manifest).width > 300
    assert samples_figure(manifest, "test", 1, count=5).width < samples_figure(manifest, "test", 0, count=5).width
    with pytest.raises(InputError, match="no anomalous images in train"):
        samples_figure(manifest, "train", 1)
