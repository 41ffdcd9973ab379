"""What the autoencoders rebuild of images and make of noise, and pictures of both."""

from pathlib import Path

import numpy as np
import pytest
from helpers.models import data as parts_data
from helpers.models import small, trained_vae
from PIL import Image

from defectlab import Detector, Engine
from defectlab.inference.reconstruction import generate, generated_figure, reconstruct, reconstruction_figure
from defectlab.results.run.run import Run
from defectlab.visualization.charts import metric_bars, training_figure
from defectlab_runtime.errors import InputError
from defectlab_runtime.images import read_image


@pytest.fixture(scope="module")
def run(wells: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained_vae(wells, default_root_dir=tmp_path_factory.mktemp("results"))


def paths_of(run: Run, label: int) -> list[str]:
    return [row.image_path for row in run.scores("test") if row.label == label]


def test_reconstructions_have_the_scores_of_the_run(run: Run):
    detector = Detector.load(run.folder)
    rows = run.scores("test")
    found = reconstruct(detector, [row.image_path for row in rows])
    assert [one.score for one in found] == pytest.approx([row.score for row in rows], rel=1e-5)
    assert [one.label for one in found] == [row.pred_label for row in rows]
    for one in found:
        assert one.image.shape == one.rebuilt.shape == (40, 72, 3)
        assert one.image.dtype == one.rebuilt.dtype == np.uint8
        # the image is the file's, resized: an independent way to it
        resized = Image.fromarray(read_image(one.image_path)).resize((72, 40), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(resized).astype(int) - one.image).mean() < 2
    squared = ((found[0].image / 255 - found[0].rebuilt / 255) ** 2).sum()
    assert found[0].score >= 0.9 * squared  # the loss is that and the divergence


def test_images_of_noise_are_the_seeds_alone(run: Run):
    detector = Detector.load(run.folder)
    first, again, other = generate(detector, 5), generate(detector, 5), generate(detector, 5, seed=1)
    assert first.shape == (5, 40, 72, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(InputError, match="at least 1"):
        generate(detector, 0)


def test_figures_show_what_they_say(run: Run):
    detector = Detector.load(run.folder)
    few, many = (reconstruction_figure(detector, paths_of(run, 0)[:n], "good") for n in (1, 3))
    assert many.width > few.width
    assert generated_figure(detector, count=9).size == (2 * 8 * 74, 2 * 2 * 42)
    assert training_figure(run).width > 500
    assert metric_bars([run, run]).height > 300
    with pytest.raises(InputError, match="at least one run"):
        metric_bars([])


def test_a_model_that_rebuilds_no_images_says_so(parts: Path):
    model = small("padim")
    Engine(enable_progress_bar=False).train(model=model, datamodule=parts_data(parts))
    with pytest.raises(InputError, match="Padim rebuilds no images"):
        generate(Detector.load(model.run_folder))
