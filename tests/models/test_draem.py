"""DRAEM against plain anomalib; its textures; its options."""

from pathlib import Path

import pytest
import torch
from helpers.models import data, small
from PIL import Image

from defectlab import Draem, Engine
from defectlab.models.checkpoint import read_checkpoint_record
from defectlab.results.run.run import Run
from defectlab_runtime.errors import DataError, OptionError


def test_loss_and_maps_are_plain_anomalibs():
    from anomalib.models.image.draem.loss import DraemLoss
    from anomalib.models.image.draem.torch_model import DiscriminativeSubNetwork, DraemModel, ReconstructiveSubNetwork

    ours = small("draem").model
    plain = DraemModel()
    plain.reconstructive_subnetwork = ReconstructiveSubNetwork(base_width=8)
    plain.discriminative_subnetwork = DiscriminativeSubNetwork(in_channels=6, out_channels=2, base_width=8)
    plain.load_state_dict(ours.state_dict())
    draw = torch.Generator().manual_seed(0)
    images, augmented = torch.rand(2, 2, 3, 64, 96, generator=draw)
    masks = (torch.rand(2, 1, 64, 96, generator=draw) > 0.9).float()
    with torch.no_grad():
        reconstruction, prediction = plain.train()(augmented)
        theirs = DraemLoss()(images, reconstruction, masks, prediction)
        assert float(ours.train().fit(images, augmented, masks)) == pytest.approx(float(theirs), rel=1e-6)
        mine, output = ours.eval()(images), plain.eval()(images)
    assert torch.allclose(mine.anomaly_map[:, 0], output.anomaly_map, atol=1e-6)
    assert torch.allclose(mine.pred_score, output.pred_score, atol=1e-6)


def test_the_full_size_is_anomalibs(monkeypatch: pytest.MonkeyPatch):
    from anomalib.models.image.draem.torch_model import DraemModel

    with torch.device("meta"):
        plain = DraemModel(sspcab=True)
        ours = Draem(enable_sspcab=True)
    shapes = {key: value.shape for key, value in plain.state_dict().items()}
    assert {key: value.shape for key, value in ours.model.state_dict().items()} == shapes
    assert {"lr": 1e-4, "enable_sspcab": True, "sspcab_lambda": 0.1, "beta": [0.1, 1.0]}.items() <= ours.options.items()
    assert ours.preprocessing.mean == (0.0, 0.0, 0.0)


@pytest.mark.row("3.13")
def test_textures_and_the_block_are_on_record(parts: Path, tmp_path: Path):
    for number in range(2):
        path = tmp_path / f"textures/{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((40, 40), 80).convert("RGB").save(path)
    model = small("draem", dtd_dir="textures", enable_sspcab=True)
    Engine(max_epochs=1, enable_progress_bar=False).fit(model=model, datamodule=data(parts))
    run = Run.open(model.run_folder)
    assert run.record.sources["textures"].startswith("2 images of textures, listing sha256 ")
    assert read_checkpoint_record(run.checkpoint)["sources"] == run.record.sources
    assert run.record.backbone.name == "none"
    assert run.folder.name == "1ep"
    assert model.augmenter.anomaly_source_paths == [tmp_path / "textures/0.png", tmp_path / "textures/1.png"]
    generated = small("draem", enable_sspcab=True)
    assert Engine(max_epochs=1).finished_run(generated, data(parts)) is None
    assert generated.sources == {"textures": "9 generated surfaces of 64 px, seed 42"}


def test_absent_textures_are_refused_before_anything_is_written(parts: Path, own_project: Path):
    model = small("draem", dtd_dir="datasets/dtd")
    with pytest.raises(DataError, match=r"Draem: dtd_dir: there is no folder .*dtd-r1\.0\.1.*formulas"):
        Engine(max_epochs=1).fit(model=model, datamodule=data(parts))
    assert not (own_project / "results").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": (0.9, 0.1)}, "beta"),
        ({"beta": 2.0}, "beta"),
        ({"lr": 0}, "lr"),
        ({"reconstructive_width": 0}, "reconstructive_width"),
        ({"image_size": 31}, "at least 32"),
        ({"dtd": "x"}, "Did you mean 'dtd_dir'"),
        ({"backbone": "resnet18"}, "no option 'backbone'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        Draem(**options)


def test_a_pre_processor_that_normalises_is_refused():
    from anomalib.models import Padim as Plain

    with pytest.raises(OptionError, match="leave Normalize out"):
        small("draem", pre_processor=Plain.configure_pre_processor((64, 64)))
