"""The three variational autoencoders: sizes, loss, decisions, records, reload."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import small
from lightning.pytorch import seed_everything

from defectlab import BigConvVae, Detector, Engine, Folder, LinearVae, SmallConvVae
from defectlab.engine.checkpoints import KeepEpochs
from defectlab.models.base import BaseDetector
from defectlab.models.vae.networks import big_networks, linear_networks, small_networks
from defectlab.models.vae.torch_model import divergence
from defectlab.results.run.run import Run
from defectlab.utils.tensor_archive import DIGEST
from defectlab.visualization.report import write_report
from defectlab_runtime.errors import OptionError

SIZE = (16, 24)
VAES = {
    "linear_vae": (LinearVae, {"hidden": [16, 8], "lr": 1e-2}),
    "small_conv_vae": (SmallConvVae, {"lr": 3e-3}),
    "big_conv_vae": (BigConvVae, {"lr": 1e-3}),
}


def vae(name: str, **options) -> BaseDetector:
    cls, own = VAES[name]
    return cls(**{"latent_dim": 4, "image_size": SIZE, **own, **options})


def data(root: Path, **options) -> Folder:
    return Folder(root=root, **{"num_workers": 0, "train_batch_size": 4, "eval_batch_size": 3} | options)


def trained(name: str, root: Path, epochs: int = 2, **options) -> Run:
    model = vae(name, **options)
    Engine(max_epochs=epochs, keep="last", enable_progress_bar=False).train(model=model, datamodule=data(root))
    return Run.open(model.run_folder)


@pytest.fixture(scope="module")
def runs(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """One finished run of each, shared; read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTLAB_HOME", str(tmp_path_factory.mktemp("vaes")))
        return {name: trained(name, parts, epochs=3) for name in VAES}


def count(networks) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def test_the_sizes_of_the_reference():
    with torch.device("meta"):
        linear = count(linear_networks((40, 72), 128))
        small = count(small_networks((40, 72), 128))
        larger = count(small_networks((40, 72), 136))
        big = count(big_networks((40, 72), 128))
    assert (linear, small, big) == (89_869_504, 2_352_931, 11_768_643)
    assert [round(n / 1e6, places) for n, places in ((linear, 2), (small, 3), (larger, 3), (big, 3))] == [
        89.87, 2.353, 2.491, 11.769,
    ]  # fmt: skip


def test_defaults_are_the_references():
    for cls, lr in ((SmallConvVae, 3e-4), (BigConvVae, 3e-4)):
        model = cls()
        assert model.preprocessing.size == (40, 72)
        assert (model.options["latent_dim"], model.options["lr"]) == (128, lr)
    assert LinearVae(hidden=[8, 4]).options["lr"] == 1e-3


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 24), (33, 50)])
@pytest.mark.parametrize("name", VAES)
def test_any_size_goes_in_and_comes_out(name: str, size: tuple[int, int]):
    model = vae(name, image_size=size).model
    images = torch.rand(2, 3, *size)
    output = model(images)
    assert output.pred_score.shape == (2,)
    assert output.anomaly_map.shape == (2, 1, *size)
    assert model.reconstruct(images).shape == images.shape
    assert model.generate(3).shape == (3, 3, *size)


@pytest.mark.parametrize("name", VAES)
class TestScore:
    def test_the_four_parts_make_forward(self, name: str):
        model = vae(name).model.eval()
        images = torch.rand(2, 3, *SIZE)
        with torch.no_grad():
            score, maps = model.score(model.embed(model.features(images)), SIZE)
        output = model.train()(images)  # decided in eval mode, whatever the mode is
        assert model.training
        assert torch.equal(output.pred_score, score)
        assert torch.equal(output.anomaly_map, maps)

    def test_it_is_the_loss_by_its_definition(self, name: str):
        model = vae(name).model.eval()
        images = torch.rand(3, 3, *SIZE)
        with torch.no_grad():
            found = model.embed(model.features(images))
            rebuilt = model.decoder(found.mean).double().numpy()
            output = model(images)
        squared = (rebuilt - images.double().numpy()) ** 2
        posterior = torch.distributions.Normal(found.mean.double(), (found.log_variance.double() / 2).exp())
        prior = torch.distributions.Normal(0.0, 1.0)
        kl = torch.distributions.kl_divergence(posterior, prior).sum(1).numpy()
        assert output.pred_score.numpy() == pytest.approx(squared.sum((1, 2, 3)) + kl, rel=1e-5)
        assert output.anomaly_map[:, 0].numpy() == pytest.approx(squared.sum(1), abs=1e-5)
        assert divergence(found).numpy() == pytest.approx(kl, rel=1e-4, abs=1e-6)

    def test_samples_on_request_are_the_same_for_every_image_and_time(self, name: str):
        images = torch.rand(3, 3, *SIZE)
        one, many = vae(name).model, vae(name, n_samples=50).model
        scores = many(images).pred_score
        torch.rand(7)
        assert torch.equal(many(images).pred_score, scores)
        alone = torch.cat([many(image[None]).pred_score for image in images])
        assert alone.numpy() == pytest.approx(scores.numpy(), rel=1e-5)
        assert not torch.equal(one(images).pred_score, scores)
        with torch.no_grad():
            found = many.eval().embed(many.features(images))
            losses = [
                ((many.decoder(found.mean + noise * (found.log_variance / 2).exp()) - images) ** 2).sum((1, 2, 3))
                for noise in many.noise
            ]
        expected = torch.stack(losses).mean(0) + divergence(found)
        assert scores.numpy() == pytest.approx(expected.numpy(), rel=1e-5)

    def test_the_seed_decides_weights_and_images(self, name: str):
        first, again, other = vae(name).model, vae(name).model, vae(name, seed=7).model
        assert torch.equal(first.generate(2), again.generate(2))
        assert not torch.equal(first.generate(2), first.generate(2, seed=1))
        assert not torch.equal(first.generate(2), other.generate(2))


@pytest.mark.parametrize("name", VAES)
class TestRun:
    def test_both_curves_are_on_record(self, name: str, runs: dict[str, Run]):
        run = runs[name]
        history = run.record.history
        assert list(history) == ["train_loss", "val_good_loss", "val_anomalous_loss"]
        assert all(len(values) == 3 for values in history.values())
        assert history["train_loss"][2] < history["train_loss"][0]
        for label, curve in enumerate(("val_good_loss", "val_anomalous_loss")):
            mean = np.mean([row.score for row in run.scores("validation") if row.label == label])
            assert history[curve][-1] == pytest.approx(mean, rel=1e-6)

    def test_the_threshold_is_midway_between_the_means(self, name: str, runs: dict[str, Run]):
        run = runs[name]
        image = run.record.thresholds.image
        last = [run.record.history[curve][-1] for curve in ("val_good_loss", "val_anomalous_loss")]
        assert image.rule == "mean_of_means"
        assert image.value == pytest.approx(sum(last) / 2, rel=1e-6)
        tested = run.scores("test")
        found = {label: [row.score > image.value for row in tested if row.label == label] for label in (0, 1)}
        assert run.record.metrics["image_TPR"] == pytest.approx(np.mean(found[1]))
        assert run.record.metrics["image_TNR"] == pytest.approx(1 - np.mean(found[0]))

    def test_what_it_is_made_of_is_on_record(self, name: str, runs: dict[str, Run]):
        record = runs[name].record
        assert record.backbone.name == "none"
        assert record.parameters == sum(p.numel() for p in vae(name).model.parameters())
        assert record.name == "4_3ep"

    def test_the_same_experiment_gives_the_same_numbers(self, name: str, runs: dict[str, Run], parts: Path):
        seed_everything(1)
        again = trained(name, parts, epochs=3)
        assert again.record.history == runs[name].record.history
        assert [row.score for row in again.scores()] == [row.score for row in runs[name].scores()]


def test_checkpoints_alone_give_equal_scores_in_another_process(runs: dict[str, Run], parts: Path, tmp_path: Path):
    """The autoencoders', and FeatCAE's beside them."""
    featcae = small("featcae")
    Engine(max_epochs=2, enable_progress_bar=False).train(model=featcae, datamodule=data(parts))
    runs = {**runs, "featcae": Run.open(featcae.run_folder)}
    checkpoints = {}
    for name, run in runs.items():
        checkpoints[name] = str(tmp_path / f"{name}.ckpt")
        Path(checkpoints[name]).write_bytes(run.checkpoint.read_bytes())
    images = [row.image_path for row in runs["linear_vae"].scores("test")]
    code = f"""
from defectlab import Detector
for path in {list(checkpoints.values())!r}:
    print([(found.score, found.label) for found in Detector.load(path).predict({images!r}, batch_size=3)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [eval(line) for line in done.stdout.splitlines()]
    for ours, run in zip(found, runs.values(), strict=True):
        rows = run.scores("test")
        assert [label for _, label in ours] == [row.pred_label for row in rows]
        # a test before this one that sets torch's threads moves MKL of this process to other sums
        assert [score for score, _ in ours] == pytest.approx([row.score for row in rows], rel=1e-6)


def test_the_report_shows_both_curves(runs: dict[str, Run], tmp_path: Path):
    text = write_report([runs["small_conv_vae"]], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "val_good_loss" in text
    assert "val_anomalous_loss" in text


def test_samples_of_a_score_are_the_checkpoints(parts: Path):
    run = trained("linear_vae", parts, n_samples=5)
    row = run.scores("test")[0]
    other = vae("linear_vae", n_samples=5, seed=3)
    batches = Engine(enable_progress_bar=False).predict(model=other, datamodule=data(parts), ckpt_path=run.checkpoint)
    assert float(batches[0].pred_score[0]) == row.score
    assert run.record.metrics["image_AUROC"] is not None


def test_losses_of_epochs_without_validation_are_left_out(parts: Path):
    model = vae("linear_vae")
    engine = Engine(max_epochs=3, keep="last", check_val_every_n_epoch=2, enable_progress_bar=False)
    engine.fit(model=model, datamodule=data(parts))
    history = Run.open(model.run_folder).record.history
    assert None not in history["train_loss"]
    assert [value is None for value in history["val_good_loss"]] == [True, False, False]  # the last one afterwards


def test_epochs_can_be_kept_beside_the_runs_own(parts: Path, caplog: pytest.LogCaptureFixture):
    model = vae("linear_vae")
    engine = Engine(max_epochs=4, callbacks=[KeepEpochs(every=2)], keep="last", enable_progress_bar=False)
    engine.train(model=model, datamodule=data(parts))
    assert "KeepEpochs" not in caplog.text
    run = Run.open(model.run_folder)
    kept = sorted((run.folder / "weights" / "epochs").iterdir())
    assert [file.name for file in kept] == [f"linear_vae_4_4_{epoch}.ckpt" for epoch in (2, 4, "last")]
    image = run.scores("test")[0].image_path
    early, fourth, last = (Detector.load(file) for file in kept)
    losses = [run.record.history[curve][1] for curve in ("val_good_loss", "val_anomalous_loss")]
    assert early.image_threshold == pytest.approx(sum(losses) / 2, rel=1e-6)  # its own, though in the run's folder
    for detector in (fourth, last):
        assert detector.image_threshold == pytest.approx(run.record.thresholds.image.value, rel=1e-6)
        assert detector.predict(image)[0].score == pytest.approx(run.scores("test")[0].score, rel=1e-5)
    assert early.predict(image)[0].score != pytest.approx(run.scores("test")[0].score, rel=1e-5)
    assert all("optimizer_states" not in torch.load(file, weights_only=False) for file in kept)
    for file in (*kept, run.checkpoint):
        assert any(name.endswith(DIGEST) for name in ZipFile(file).namelist()), file


def test_a_kept_epoch_without_validation_is_told(parts: Path, caplog: pytest.LogCaptureFixture):
    keep = KeepEpochs(every=1, optimizer=True)
    engine = Engine(max_epochs=2, callbacks=[keep], check_val_every_n_epoch=2, enable_progress_bar=False)
    model = vae("small_conv_vae")
    engine.fit(model=model, datamodule=data(parts))
    assert "KeepEpochs: one validation in 2 epochs" in caplog.text
    first = Run.open(model.run_folder).folder / "weights" / "epochs" / "small_conv_vae_4_2_1.ckpt"
    resumed = vae("small_conv_vae")
    Engine(max_epochs=3, enable_progress_bar=False).fit(model=resumed, datamodule=data(parts), ckpt_path=first)
    assert len(Run.open(resumed.run_folder).record.history["train_loss"]) == 2  # the second epoch and the third
    with pytest.raises(OptionError, match="every"):
        KeepEpochs(every=0)


def test_good_images_alone_train_too(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = trained("small_conv_vae", make_parts(tmp_path / "good", bad=0))
    assert list(run.record.history) == ["train_loss", "val_good_loss"]
    assert run.record.thresholds.image.rule == "good_max"
    assert "Rule mean_of_means needs anomalous images" in caplog.text


def test_a_left_over_image_is_passed_over_where_batch_norm_needs_two(tmp_path: Path):
    root = make_parts(tmp_path / "five", train=5)
    assert trained("linear_vae", root).status == "finished"
    with pytest.raises(OptionError, match="at least two images"):
        Engine(max_epochs=1).fit(model=vae("linear_vae"), datamodule=data(root, train_batch_size=1))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("linear_vae", {"latent_dim": 0}, "latent_dim"),
        ("linear_vae", {"hidden": [8]}, "two or more widths"),
        ("linear_vae", {"hidden": [8, 0]}, "hidden"),
        ("small_conv_vae", {"n_samples": -1}, "n_samples"),
        ("small_conv_vae", {"latent": 3}, "latent_dim"),
        ("big_conv_vae", {"lr": 0}, "lr"),
        ("big_conv_vae", {"backbone": "resnet18"}, "backbone"),
    ],
)
def test_options_that_cannot_work_are_refused(name: str, options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        vae(name, **options)


def test_a_normalising_pre_processor_is_refused():
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    with pytest.raises(OptionError, match="leave Normalize out"):
        SmallConvVae(pre_processor=PreProcessor(Compose([Resize(SIZE), Normalize([0.5] * 3, [0.2] * 3)])))
    assert SmallConvVae(pre_processor=PreProcessor(Resize(SIZE))).model.image_size == SIZE


@pytest.mark.parametrize("side", [3, 4, 5, 8, 9])
@pytest.mark.parametrize("name", VAES)
def test_a_single_image_is_passed_over_exactly_where_batch_norm_cannot_take_it(name: str, side: int):
    model = vae(name, image_size=side)
    model.model.train()
    single = torch.rand(1, 3, side, side)
    try:
        model.model.embed(model.model.features(single))
        model.model.decoder(torch.zeros(1, 4))
        works = True
    except ValueError:  # torch: expected more than 1 value per channel
        works = False
    assert model.needs_pairs is not works
