"""EfficientAD against plain anomalib; its teacher and where it comes from; its options."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets import make_parts
from helpers.models import backbone, data, small
from PIL import Image
from safetensors import safe_open

from defectlab import Detector, Engine, distil_teacher
from defectlab.models.efficient_ad.teacher import channel_statistics, floored_deviations, patch_description_network
from defectlab.results.calibration import choices_of
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError, OptionError, WeightsError


def test_losses_and_maps_are_plain_anomalibs():
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel as Plain

    ours = small("efficient_ad").model
    plain = Plain(teacher_out_channels=8)
    options = {"padding": False, "seed": 0}
    plain.teacher = patch_description_network("tiny", 8, purpose="a", **options)
    plain.student = patch_description_network("tiny", 16, purpose="b", **options)
    draw = torch.Generator().manual_seed(0)
    for value in (ours.mean_std["std"], *ours.quantiles.values()):
        value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
    plain.load_state_dict(ours.state_dict())
    images, general_image = torch.rand(2, 1, 3, 256, 256, generator=draw)
    losses = []
    with torch.no_grad():
        for score in (lambda: ours.train().fit(images, general_image), lambda: plain.train()(images, general_image)):
            torch.manual_seed(3)
            losses.append([float(loss) for loss in score()])
        mine, theirs = ours.eval()(images), plain.eval()(images)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert torch.allclose(mine.anomaly_map, theirs.anomaly_map, rtol=1e-4, atol=1e-6)
    assert torch.allclose(mine.pred_score, theirs.pred_score.flatten(), rtol=1e-5)


def test_channel_statistics_are_numpys():
    network = torch.nn.Conv2d(3, 4, 1)
    batches = [torch.rand(2, 3, 5, 6), torch.rand(1, 3, 5, 6)]
    mean, std = channel_statistics(network, batches)
    with torch.no_grad():
        values = np.concatenate([network(batch).transpose(0, 1).flatten(1).numpy() for batch in batches], axis=1)
    assert mean.flatten().numpy() == pytest.approx(values.mean(axis=1), rel=1e-5)
    assert std.flatten().numpy() == pytest.approx(values.std(axis=1), rel=1e-4)


def test_a_channel_that_hardly_varies_counts_a_share_of_its_deviation_on_general_images():
    shape = (1, 4, 1, 1)
    std, general = torch.tensor([0.0, 1e-4, 0.6, 0.0]).view(shape), torch.tensor([1.0, 2.0, 1.0, 0.0]).view(shape)
    floored, count = floored_deviations(std, general)
    assert floored.flatten().tolist() == pytest.approx([0.25, 0.5, 0.6, 1e-6])
    assert count == 3


@pytest.mark.long
def test_blank_parts_get_finite_scores_and_the_record_says_how(tmp_path: Path):
    root = tmp_path / "blank"
    for folder, values in (("train/good", [250, 251]), ("test/good", [249, 252]), ("test/blot", [40, 60])):
        for number, value in enumerate(values):
            pixels = np.full((64, 64, 3), 250, np.uint8)
            pixels[20:40, 20:40] = value
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{number}.png")
    model = small("efficient_ad")
    images = data(root, train_batch_size=1, val_split_mode="none")
    Engine(max_epochs=1, enable_progress_bar=False).train(model=model, datamodule=images)
    record = Run.open(model.run_folder).record
    scores = {row.label: row.score for row in Run.open(model.run_folder).scores("test")}
    assert np.isfinite(list(scores.values())).all()
    assert -1 < scores[0] < scores[1] < 1000
    assert "8 of 8 channels" in record.notes["efficient_ad floor of deviations"]
    assert "student and autoencoder: divided by 0.01" in record.notes["efficient_ad floor of ranges"]


def test_no_teacher_says_what_to_fetch_or_run(parts: Path, own_project: Path):
    model = small("efficient_ad", teacher=None, model_size="small")
    images = data(parts, train_batch_size=1)
    with pytest.raises(WeightsError, match=r"(?s)pretrained_teacher_small.*Fetch https.*weights distil.*'random'"):
        Engine(max_epochs=1).fit(model=model, datamodule=images)
    with pytest.raises(WeightsError, match=r"(?s)No weights file 'mine\.pth'.*weights distil"):
        Engine(max_epochs=1).fit(model=small("efficient_ad", teacher="mine.pth"), datamodule=images)
    assert not (own_project / "results").exists()


def test_more_than_one_image_at_a_time_is_refused(parts: Path):
    with pytest.raises(OptionError, match="train_batch_size=1, not 3"):
        Engine(max_epochs=1).fit(model=small("efficient_ad"), datamodule=data(parts))


def test_a_distilled_teacher_learns_is_found_and_recorded(own_project: Path, parts: Path):
    options = {"model_size": "tiny", "teacher_out_channels": 8, "layers": ["layer1", "layer2"], "image_size": 64}
    path = distil_teacher(backbone(), **options, steps=30, batch_size=2, lr=3e-3)
    assert path == own_project / "weights/pretrained_teacher_tiny.safetensors"
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    assert facts["backbone"] == "resnet18"
    assert facts["images"] == "9 generated surfaces of 64 px, seed 42"
    assert float(facts["loss"]) < 0.9  # 1 is what a constant gets
    with pytest.raises(InputError, match="already"):
        distil_teacher(backbone(), **options, steps=1)
    model = small("efficient_ad", teacher=None)
    model.check_training(data(parts, train_batch_size=1))
    assert model.backbone_record["source"] == "weights/pretrained_teacher_tiny.safetensors"
    assert model.backbone_record["name"] == "pdn_tiny"
    other = small("efficient_ad", teacher=None, teacher_out_channels=9)
    with pytest.raises(WeightsError, match=r"conv4\.bias is \(8,\) there, \(9,\) here"):
        other.check_training(data(parts, train_batch_size=1))


def test_without_validation_the_maps_are_measured_on_training_images(tmp_path: Path):
    root = make_parts(tmp_path / "few", train=2, good=1, bad=1)
    images = data(root, train_batch_size=1, val_split_mode="none")
    model = small("efficient_ad")
    Engine(max_epochs=1, enable_progress_bar=False).fit(model=model, datamodule=images)
    run = Run.open(model.run_folder)
    assert run.record.backbone.source == "random(seed=42)"
    reloaded = Detector.load(run.folder).model
    assert reloaded.backbone_record == run.record.backbone.to_dict()
    quantiles = {key: float(value) for key, value in reloaded.model.quantiles.items()}
    assert 0 < quantiles["qa_st"] < quantiles["qb_st"]
    assert 0 < quantiles["qa_ae"] < quantiles["qb_ae"]
    assert float(reloaded.model.mean_std["std"].min()) > 0


def test_images_held_back_for_calibration_do_not_scale_the_maps(tmp_path: Path):
    """The quantiles of a training with a share held back are those of the other good validation images alone."""
    root = make_parts(tmp_path / "few", train=8, good=1, bad=1)
    found = {}
    for share in (0.0, 0.5):
        images = data(
            root, train_batch_size=1, val_split_mode="from_train", val_split_ratio=0.5, calibration_share=share
        )
        model = small("efficient_ad")
        Engine(max_epochs=1, enable_progress_bar=False).fit(model=model, datamodule=images)
        record = Run.open(model.run_folder).record
        assert len(record.dataset.calibration) == 2 * bool(share)
        assert choices_of(record, 0) == ["the scale of the maps"]
        found[share] = [float(value) for value in model.model.quantiles.values()]
    assert found[0.0] != found[0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_size": "smal"}, "Did you mean 'small'"),
        ({"image_size": 255}, "at least 256"),
        ({"teacher_out_channels": 0}, "teacher_out_channels"),
        ({"imagenet": "x"}, "imagenet_dir"),
        ({"pre_padding": [1, 2, 3]}, "four whole numbers"),
        ({"pre_padding": [-1, 2, 3, 4]}, "four whole numbers"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small("efficient_ad", **options)


def test_pre_padding_puts_black_around_and_cuts_the_maps_back():
    around = [4, 8, 12, 16]  # left, right, top, bottom
    plain, padded = small("efficient_ad").model, small("efficient_ad", pre_padding=around).model
    draw = torch.Generator().manual_seed(0)
    for value in (plain.mean_std["std"], *plain.quantiles.values()):
        value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
    padded.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, 256, 256, generator=draw)
    canvas = torch.zeros(1, 3, 256 + 28, 256 + 12)
    canvas[..., 12:268, 4:260] = images
    with torch.no_grad():
        mine, whole = padded.eval()(images), plain.eval()(canvas)
    cut = whole.anomaly_map[..., 12:268, 4:260]
    assert torch.allclose(mine.anomaly_map, cut)
    assert torch.allclose(mine.pred_score, cut.amax(dim=(-3, -2, -1)))
    assert small("efficient_ad", image_size=240, pre_padding=[8] * 4).preprocessing.input_size == (240, 240)
