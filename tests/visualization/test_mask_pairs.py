"""The picture of images with the outlines of their masks."""

import numpy as np
import pytest
from PIL import Image

from defectlab.cli.main import main
from defectlab.data.manifest.manifest import build_manifest
from defectlab.visualization.mask_pairs import outlined, write_mask_pairs
from defectlab_runtime.errors import InputError
from defectlab_runtime.overlays import CONTOUR
from tests.helpers.datasets import make_parts, mvtec


def test_the_outline_surrounds_the_defect(tmp_path):
    manifest = build_manifest(make_parts(tmp_path, train=6, good=2, bad=2, size=64))
    entry = next(entry for entry in manifest.entries if entry.mask)
    pixels, share = outlined(manifest, entry)
    marked = np.asarray(Image.open(tmp_path / entry.mask)) > 0
    drawn = (pixels == CONTOUR).all(axis=-1)
    assert share == marked.mean() == 14 * 14 / 64**2
    assert drawn.any()
    assert not (drawn & marked).any()
    rows, columns = np.nonzero(marked)
    assert drawn[rows.min() - 5, columns.min()]
    assert not drawn[rows.min() - 7].any()


def test_data_check_draws_where_it_is_told_or_into_the_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DEFECTLAB_RESULTS", str(tmp_path / "results"))
    root = make_parts(tmp_path / "parts", train=6, good=2, bad=3)
    assert main(["data", "check", str(root), "--near", "false", "--pictures"]) == 0
    assert "Pictures: 3 images with the outlines of their masks in" in capsys.readouterr().out
    assert Image.open(tmp_path / "results/data_check/parts.png").width > 600
    assert main(["data", "check", str(root), "--near", "false", "--pictures", str(tmp_path / "a.jpg")]) == 0
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"


def test_nothing_to_draw_and_no_picture(tmp_path):
    with pytest.raises(InputError, match="has no masks"):
        write_mask_pairs(build_manifest(mvtec(tmp_path / "bare", masks=False)), tmp_path / "a.png")
    with pytest.raises(InputError, match="ends in"):
        write_mask_pairs(build_manifest(mvtec(tmp_path / "masked")), tmp_path / "a.txt")
