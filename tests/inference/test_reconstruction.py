"""What the autoencoders rebuild and make of noise, a first look at a dataset, experiments side by side, W&B."""

from pathlib import Path

import numpy as np
import pytest
from helpers.models import data as parts_data
from helpers.models import small
from helpers.runs import finished
from PIL import Image

from defectlab import Detector, Engine, Folder, SmallConvVae, make_sample
from defectlab.data.images import read_image
from defectlab.inference.reconstruction import generate, generated_figure, reconstruct, reconstruction_figure
from defectlab.results.run.run import Run
from defectlab.utils.errors import InputError
from defectlab.visualization.charts import metric_bars, training_figure
from defectlab.visualization.dataset import counts_table, labels_figure, samples_figure, size_table
from defectlab.visualization.markdown import experiment_table


@pytest.fixture(scope="module")
def wells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample("wells", tmp_path_factory.mktemp("data") / "wells", train=20, proliv=4, test=8)


@pytest.fixture(scope="module")
def run(wells: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(wells, default_root_dir=tmp_path_factory.mktemp("results"))


def trained(wells: Path, **options) -> Run:
    model = SmallConvVae(latent_dim=8, lr=3e-3)
    images = Folder(root=wells, num_workers=0, train_batch_size=5, eval_batch_size=5)
    Engine(max_epochs=3, enable_progress_bar=False, **options).train(model=model, datamodule=images)
    return Run.open(model.run_folder)


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


def test_experiments_stand_side_by_side(run: Run):
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
