"""Rows 4.9 and 4.10: panels of test images and of predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models import small, trained
from scipy.ndimage import binary_dilation, binary_erosion

import defectlab.visualization.segmentation as drawing
from defectlab.cli import main
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError


@pytest.fixture(scope="module")
def run(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(small("padim"), parts, tmp_path_factory.mktemp("results"))


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, np.ndarray]]:
    """What is shown, figure by figure, by the panels' titles; `bar` holds the words beside the scale."""
    shown: list[dict[str, Any]] = []
    real = drawing.to_image

    def to_image(figure: Any) -> Any:
        axes = [axis for axis in figure.axes if axis.images and axis.get_title()]
        shown.append({axis.get_title(): np.asarray(axis.images[0].get_array()) for axis in axes})
        shown[-1]["bar"] = figure.axes[-1].get_ylabel()
        shown[-1]["title"] = figure.get_suptitle()
        return real(figure)

    monkeypatch.setattr(drawing, "to_image", to_image)
    return shown


@pytest.mark.row("4.9")
def test_opening_is_erosion_then_dilation_by_a_disc_of_four_pixels():
    mask = np.zeros((60, 60), dtype=bool)
    mask[5:25, 5:30] = True
    mask[40:45, 40:45] = True  # a speck: no disc of nine pixels across fits in
    disc = np.array([[x * x + y * y <= 16 for x in range(-4, 5)] for y in range(-4, 5)])
    expected = binary_dilation(binary_erosion(mask, disc), disc)
    assert np.array_equal(drawing.opened(mask), expected)
    assert not drawing.opened(mask)[40:45, 40:45].any()
    assert drawing.opened(mask)[15, 15]


@pytest.mark.row("4.9")
def test_a_test_image_is_five_panels_from_the_record(run: Run, panels: list[dict[str, Any]]):
    assert main(["report", str(run.folder), "--figures", "all"]) == 0
    rows, masks, maps = run.scores("test"), run.masks("test"), run.maps("test")
    assert masks is not None
    assert maps is not None
    files = sorted(path.name for path in (run.folder / "report").glob("*_val_*.png"))
    assert files == [f"parts_val_{number}.png" for number in range(len(rows))]
    for shown, row, mask, anomaly_map in zip(panels, rows, masks, maps, strict=True):
        assert list(shown) == ["image", "ground truth", "heat map", "predicted mask", "boundaries", "bar", "title"]
        assert shown["bar"] == "Anomaly Score"
        assert f"score {row.score:.4g}" in shown["title"]
        assert np.array_equal(shown["ground truth"][..., 0] > 0, mask)  # the images have the model's own size
        found = anomaly_map > run.record.thresholds.pixel.value
        assert np.array_equal(shown["predicted mask"][..., 0] > 0, drawing.opened(found))


@pytest.mark.row("4.10")
def test_a_prediction_is_four_panels_and_its_file_carries_the_score(
    run: Run, parts: Path, tmp_path: Path, panels: list[dict[str, Any]], capsys: pytest.CaptureFixture
):
    files = sorted((parts / "test/blot").iterdir())[:2]
    source = [str(run.folder), *map(str, files)]
    assert main(["predict", *source, "--output", str(tmp_path / "first"), "--figures", "first"]) == 0
    assert len(list((tmp_path / "first/figures").iterdir())) == 1
    assert main(["predict", *source, "--output", str(tmp_path / "all"), "--figures", "all"]) == 0
    assert list(panels[0]) == ["image", "heat map", "predicted mask", "boundaries", "bar", "title"]
    lines = [line.split(",") for line in (tmp_path / "all/scores.csv").read_text().splitlines()[1:]]
    names = {path.name for path in (tmp_path / "all/figures").iterdir()}
    assert names == {f"parts_pre_{number}_{float(line[4]):.4g}.png" for number, line in enumerate(lines)}
    printed = capsys.readouterr().out
    assert all(f"score {float(line[4]):.4g}" in printed for line in lines)


def test_what_cannot_be_drawn_is_refused(run: Run, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    source = [str(run.folder), str(parts / "test/blot"), "--output", str(tmp_path / "out")]
    assert main(["predict", *source, "--figures", "al"]) == 2
    assert "Did you mean 'all'" in capsys.readouterr().err
    assert main(["predict", *source, "--figures", "all", "--report"]) == 2
    bare = Run(run.folder, run.record.replaced(thresholds={}))
    with pytest.raises(InputError, match="no threshold for them"):
        list(drawing.write_run_figures(bare, tmp_path))
    assert not (tmp_path / "out").exists()
