"""AnomalyDINO's way in PatchCore against the method in numpy, and against anomalib's own model, on one small ViT."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers.models import data, plain_rows
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from torch import nn

import defectlab
from defectlab import Detector, Engine, Experiment, InputError, Patchcore, nearest_good_patches
from defectlab.cli.main import main
from defectlab.data.manifest.manifest import Manifest
from defectlab.kernels.maps import smooth_upsample
from defectlab.kernels.rotation import rotate
from defectlab.models.convert import to_anomalib
from defectlab.models.loading import restore
from defectlab.results.run.run import Run, find_runs

SIDE, PATCH = 182, 14
GRID = SIDE // PATCH
PAPER = {
    "layers": ["norm"], "image_size": SIDE, "coreset_sampling_ratio": 1.0, "num_neighbors": 1, "neighbourhood": 1,
    "distance": "cosine", "top_share": 0.05, "rotations": 8, "foreground_mask": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Any:
    """DINOv2's ViT at the width of ViT-Ti/14, three blocks, random; its tokens are about as long as trained ones."""
    torch.manual_seed(0)
    vit = timm.create_model("vit_small_patch14_dinov2", img_size=SIDE, depth=3, embed_dim=192, num_heads=3)
    with torch.no_grad():
        vit.norm.weight.mul_(1.2)
    return vit.eval()


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright discs on dark ground, with a blot if defective; a part of them lies off the middle."""
    root, random = tmp_path_factory.mktemp("data") / "objects", np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for folder, count in (("train/good", 4), ("test/good", 4), ("test/blot", 4)):
        for number in range(count):
            pixels = random.normal(30, 6, (SIDE, SIDE, 3))
            disc = (rows - 88 - number) ** 2 + (columns - 92 + number) ** 2 < 40**2
            pixels[disc] += (170, 150, 120)
            pixels += np.where(disc, 12 * np.sin(rows / 3 + number), 0)[..., None]
            if folder == "test/blot":
                pixels[78:92, 84:98] = (90, 160, 40)
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / folder / f"{number:03d}.png")
    return root


def fit(network: Any, root: Path, **options: Any) -> Patchcore:
    model = Patchcore(backbone=network, **(PAPER | options))
    Engine(max_epochs=1, enable_progress_bar=False).fit(model=model, datamodule=data(root))
    model.eval()
    return model


def tokens(network: Any, images: torch.Tensor) -> np.ndarray:
    """(B, P, C) patch tokens of the whole network after its norm, in float64."""
    with torch.no_grad():
        return network.forward_features(images)[:, network.num_prefix_tokens :].double().numpy()


def numpy_mask(patches: np.ndarray) -> np.ndarray:
    """(P,) the foreground of one image's tokens (P, C)."""
    centred = patches - patches.mean(0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    first = (centred @ axis * np.sign(axis[np.abs(axis).argmax()])).reshape(GRID, GRID)
    centre = slice(int(GRID * 0.2), int(GRID * 0.8))
    mask = first > 10
    if mask[centre, centre].sum() <= 0.35 * mask[centre, centre].size:
        mask = -first > 10
    square = np.ones((3, 3))
    grown = binary_dilation(binary_dilation(mask, square), square)
    return binary_erosion(grown, square, border_value=1).ravel()


def numpy_distances(train: np.ndarray, test: np.ndarray, *, masks: bool) -> np.ndarray:
    """(B, P) cosine distances of test tokens (B, P, C) to the nearest training token."""
    keep = np.stack([numpy_mask(one) for one in train]) if masks else np.ones(train.shape[:2], bool)
    bank = train[keep] / np.linalg.norm(train[keep], axis=1, keepdims=True)
    units = test / np.linalg.norm(test, axis=2, keepdims=True)
    distances = 1 - (units @ bank.T).max(axis=2)
    return np.where(np.stack([numpy_mask(one) for one in test]), distances, 0) if masks else distances


@pytest.mark.parametrize("masks", [True, False], ids=["masked", "whole"])
@pytest.mark.parametrize("rotations", [8, 1])
def test_the_whole_method_in_numpy(
    network: Any, objects: Path, masks: bool, rotations: int, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "defectlab")
    model = fit(network, objects, foreground_mask=masks, rotations=rotations)
    train, test = plain_rows(model, objects)
    turned = torch.cat([rotate(train, 360 * number / rotations) for number in range(rotations)])
    expected = numpy_distances(tokens(network, turned), tokens(network, test), masks=masks)
    largest = np.sort(expected, axis=1)[:, ::-1][:, : int(expected.shape[1] * 0.05)].mean(axis=1)
    with torch.no_grad():
        found = model.model(test)
    assert found.pred_score.numpy() == pytest.approx(largest, abs=2e-6)
    maps = smooth_upsample(torch.from_numpy(expected).float().reshape(-1, 1, GRID, GRID), (SIDE, SIDE), mode="nearest")
    assert found.anomaly_map.numpy() == pytest.approx(maps.numpy(), abs=2e-6)
    images = data(objects)
    images.setup()
    bad = np.array([entry.label == 1 for entry in images.manifest.split("test")])
    assert largest[bad].min() > largest[~bad].max()
    if masks:
        assert 0 < (expected == 0).mean() < 0.9
        assert len(model.model.memory_bank) < len(train) * rotations * GRID**2
        assert "is used: in 4 of 4 training images" in model.notes["foreground mask"]
        assert model.notes["foreground mask"] in caplog.text


@pytest.mark.parametrize("masks", [True, False], ids=["masked", "whole"])
def test_equals_anomalibs_own_model_on_the_same_tokens(
    network: Any, objects: Path, masks: bool, monkeypatch: pytest.MonkeyPatch
):
    """anomalib has neither rotations nor a test of its masks, and always takes 1 % of the patches."""
    from anomalib.models.image.anomaly_dino import torch_model as anomalibs

    class Tokens(nn.Module):
        patch_size = PATCH

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"blocks.11": network.forward_features(images)[:, network.num_prefix_tokens :]}

    monkeypatch.setattr(anomalibs, "TimmFeatureExtractor", lambda **_: Tokens())
    model = fit(network, objects, foreground_mask=masks, rotations=1, top_share=0.01)
    train, test = plain_rows(model, objects)
    plain = anomalibs.AnomalyDINOModel(masking=masks)
    with torch.no_grad():
        plain.train()(train)
        plain.fit()
        theirs, ours = plain.eval()(test), model.model(test)
    # the same patches, but for the order of images in a batch, which a bank does not know
    assert ours.pred_score.numpy() == pytest.approx(theirs.pred_score.flatten().numpy(), abs=1e-6)
    assert ours.anomaly_map.numpy() == pytest.approx(theirs.anomaly_map.numpy(), abs=1e-6)
    assert model.model.memory_bank.numpy() == pytest.approx(plain.memory_bank.numpy(), abs=1e-6)


def test_it_reloads_explains_itself_and_says_what_anomalib_lacks(network: Any, objects: Path):
    model = Patchcore(backbone=network, **PAPER)
    Engine(max_epochs=1, enable_progress_bar=False).train(model=model, datamodule=data(objects))
    run = Run.open(model.run_folder)
    recorded = run.record.experiment.model
    assert {key: recorded[key] for key in PAPER} == {**PAPER, "image_size": [SIDE, SIDE]}
    assert "foreground mask" in run.record.notes
    _, test = plain_rows(model, objects)
    again = restore(run.checkpoint, backbone=network)
    with torch.no_grad():
        ours, theirs = model.model.eval()(test), again.model.eval()(test)
    assert torch.equal(ours.pred_score, theirs.pred_score)
    found = nearest_good_patches(Detector.load(run.folder, backbone=network), objects / "test/blot/000.png", count=3)
    left, top, right, bottom = found.box
    blot = np.zeros((SIDE, SIDE), bool)
    blot[78:92, 84:98] = True
    assert blot[top:bottom, left:right].any()
    with pytest.raises(InputError, match="distance"):
        to_anomalib(run.folder)


def test_the_preset_trains(parts: Path):
    path = Path(defectlab.__file__).parents[1] / "configs/few_shot_anomaly_dino.yaml"
    paper = Experiment.from_yaml(path)
    assert (paper.backbone.name, paper.model["image_size"]) == ("vit_small_patch14_dinov2", [448, 448])
    few = ["--data.root", str(parts), "--data.num_workers", "0", "--backbone.weights", "random",
           "--model.image_size", "[112, 112]", "--trainer", "{enable_progress_bar: false}"]  # fmt: skip
    assert main(["train", "--config", str(path), *few]) == 0
    (run,) = find_runs()
    assert run.status == "finished"
    recorded = {key: run.record.experiment.model.get(key) for key in paper.model if key not in ("name", "image_size")}
    assert recorded == {key: paper.model[key] for key in recorded}
    train = len(Manifest.read(run.folder / "manifest.json").split("train"))
    assert "no foreground mask is used" in run.record.notes["foreground mask"]  # random weights find no objects
    assert len(restore(run.checkpoint).model.memory_bank) == train * 8 * (112 // 14) ** 2
