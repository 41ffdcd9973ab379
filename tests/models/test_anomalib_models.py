"""anomalib's other models by name: no download, the same records, a checkpoint that reloads."""

import math
import pkgutil
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import anomalib.models
import lightning
import numpy as np
import pytest
import timm
import torch
import torchvision
from helpers.models import backbone, data
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import vision_transformer
from torchvision.transforms.v2 import functional as tvf

from defectlab import Detector, Engine, load_backbone, model_class
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.inference.prediction_files import predict_to_folder
from defectlab.models.registry import ANOMALIB_MODELS, MODELS, UNAVAILABLE, model_info
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError, OptionError
from defectlab_runtime.imagenet import IMAGENET_MEAN, IMAGENET_STD

DINO, VIT = "vit_small_patch14_dinov2", "vit_tiny_patch16_224"
OWN: dict[str, dict[str, Any]] = {
    "cfa": {},
    "dfkde": {"layers": ["layer3"], "n_pca_components": 4},
    "dfm": {"layer": "layer2"},
    "fre": {"layer": "layer2", "pooling_kernel_size": 2, "input_dim": 2048, "latent_dim": 8},
    "ganomaly": {"n_features": 16, "latent_vec_size": 16, "lr": 2e-3},
    "mh_patchcore": {"layers": ["layer2"], "memory_bank_size": 20, "local_coreset_size": 10, "num_neighbors": 2},
    "patchflow": {"flow_feature_dim": 16, "flow_hidden_dim": 16},
    "reverse_distillation": {},
    "uninet": {"backbone": "resnet50"},  # its student has the channels of these
    "supersimplenet": {"image_size": 128},  # its noise needs 32 cells a side
    "anomaly_dino": {"backbone": DINO, "image_size": 56},
    "dinomaly": {"backbone": DINO, "image_size": 56},
    "foundad": {"backbone": DINO, "image_size": 56, "pred_depth": 1, "pred_emb_dim": 48},
    "general_ad": {"backbone": VIT, "layers": (12,), "hidden_dim": 128, "lr": 2e-3, "noise_std": 2.0},
    "inp_former": {"backbone": DINO, "image_size": 56},
    "l2bt": {"backbone": VIT, "layers": [0, 2]},
    "rad": {"backbone": VIT, "layers": [0, 2]},
    "super_add": {"backbone": "vit_small_patch16_dinov3", "layers": [0, 2], "patch_size": 64},
    "uflow": {"flow_steps": 1},
    "glass": {
        **{"pretrain_embed_dim": 128, "target_embed_dim": 128, "discriminator_hidden": 64},
        **{"learning_rate": 2e-3, "mining": False},
    },
}


EPOCHS = {"ganomaly": 20, "general_ad": 20, "glass": 30, "inp_former": 8}  # two leave them where they began
SHORT = ("dfm", "dfkde", "rad", "l2bt")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch):
    for module, function in (
        (timm.models._builder, "load_pretrained"),
        (torchvision.models._api, "load_state_dict_from_url"),
        (torch.hub, "load_state_dict_from_url"),
        (anomalib.models.image.glass.lightning_model, "download_and_extract"),
    ):
        monkeypatch.setattr(module, function, lambda *_args, **_options: pytest.fail("a download"))
    # anomalib sets it for the whole process: it is put back for the tests that follow
    monkeypatch.setattr(vision_transformer, "resample_abs_pos_embed", resample_abs_pos_embed)


def make(name: str, **options: Any) -> Any:
    own = {"image_size": 64, **OWN[name], **options}
    if ANOMALIB_MODELS[name].backbone:
        network = own.get("backbone", "resnet18")
        own["backbone"] = backbone() if network == "resnet18" else load_backbone(network, weights="random")
    return model_class(name)(**own)


def test_every_one_is_under_test():
    assert set(OWN) == set(ANOMALIB_MODELS)
    assert not set(ANOMALIB_MODELS) & set(MODELS)


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in ANOMALIB_MODELS]
)
def test_it_trains_records_and_reloads_at_any_batch(name: str, parts: Path):
    model = make(name)
    Engine(max_epochs=EPOCHS.get(name, 2), enable_progress_bar=False).train(model=model, datamodule=data(parts))
    run = Run.open(model.run_folder)
    assert run.status == "finished"
    rows = run.scores("test")
    assert all(math.isfinite(row.score) for row in rows)
    auroc = run.record.metrics["image_AUROC"]
    assert auroc > 0.5
    detector = Detector.load(run.folder)
    own = [row.score for row in rows]
    for batch_size in (4, 1):
        got = [found.score for found in detector.predict([row.image_path for row in rows], batch_size=batch_size)]
        assert got == pytest.approx(own, rel=1e-4)
    (found,) = detector.predict(rows[0].image_path)
    assert found.anomaly_map.shape == (64, 64)
    assert np.isnan(found.anomaly_map).all() == (not ANOMALIB_MODELS[name].maps)
    assert (run.record.metrics["pixel_AUROC"] is None) == (not ANOMALIB_MODELS[name].maps)
    if not ANOMALIB_MODELS[name].maps:
        assert found.mask is None
        assert "maps" in run.record.metric_reasons["pixel_AUROC"]
        with pytest.raises(InputError, match="no maps; leave out --heatmaps"):
            predict_to_folder(run.folder, rows[0].image_path, "out", heatmaps=True)


@pytest.mark.long
def test_dinomaly_serves_two_categories(categories: Path):
    model = make("dinomaly")
    images = data(categories, categories="all")
    Engine(max_epochs=2, enable_progress_bar=False).train(model=model, datamodule=images)
    run = Run.open(model.run_folder)
    for one in run.record.categories:
        assert one.metrics["image_AUROC"] > 0.5
    detector = Detector.load(run.folder)
    rows = run.scores("test")
    found = detector.predict([row.image_path for row in rows])
    assert [one.score for one in found] == pytest.approx([row.score for row in rows], rel=1e-4)
    assert [one.label for one in found] == [row.pred_label for row in rows]


def test_options_are_checked():
    with pytest.raises(OptionError, match="Did you mean 'layer'"):
        make("dfm", layr="layer2")


def test_images_are_normalised_as_the_backbone_was_trained_and_as_a_checkpoint_says(tmp_path: Path):
    model = model_class("dfm")(backbone="efficientnet_lite0", image_size=64)
    assert model.options["layer"] == "blocks.4"  # of the stride of a ResNet's layer3, anomalib's default
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert model.preprocessing.mean == model.preprocessing.std == (0.5, 0.5, 0.5)
    torch.testing.assert_close(model.pre_processor(image), image * 2 - 1)
    resnet = make("cfa").preprocessing
    assert (resnet.mean, resnet.std) == (IMAGENET_MEAN, IMAGENET_STD)
    # one written when every backbone got ImageNet's mean and std keeps what it was trained with
    model.pre_processor.use(replace(model.preprocessing, mean=IMAGENET_MEAN, std=IMAGENET_STD))
    trainer = lightning.Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "old.ckpt")
    again = type(model).load_from_checkpoint(tmp_path / "old.ckpt")
    assert again.preprocessing == model.preprocessing
    assert torch.equal(again.pre_processor(image), model.pre_processor(image))


def test_foundads_augmentations_give_the_same_pixels_whatever_the_mean_and_std_of_the_backbone():
    half = load_backbone(DINO, weights="random", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    model = model_class("foundad")(**{**OWN["foundad"], "backbone": half, "use_few_shot_augmentation": True})
    plain = make("foundad", use_few_shot_augmentation=True)
    pixels = torch.rand(8, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    imagenet = tvf.normalize(pixels, list(IMAGENET_MEAN), list(IMAGENET_STD))
    for name in ("cutpaste", "few_shot_augment"):
        random.seed(3)
        torch.manual_seed(3)
        expected = getattr(plain, name)(imagenet)
        random.seed(3)
        torch.manual_seed(3)
        found = getattr(model, name)(pixels * 2 - 1)
        assert not torch.allclose(expected, imagenet, atol=0.1)  # it does change them
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        torch.testing.assert_close(found / 2 + 0.5, expected * std + mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("foundad", {"backbone": VIT}, "FoundAD: Unknown backbone 'vit_tiny_patch16_224'.*vit_small_patch14_dinov2"),
        ("foundad", {"image_size": (56, 70)}, "square images only, not 56 x 70"),
        ("uflow", {"backbone": "resnet50"}, "Uflow: Feature extractor must be one of .*resnet18"),
        ("anomaly_dino", {"backbone": VIT, "image_size": 64}, "AnomalyDINO: Encoder name must start with dino"),
        ("anomaly_dino", {"image_size": 64}, "image_size 56 x 56 or 70 x 70"),
        ("glass", {"input_shape": (32, 32)}, "input_shape"),
        ("dinomaly", {"decoder_depth": 2}, "Dinomaly: decoder_depth gives 2 blocks, and fuse_layer_decoder names 8"),
        ("dinomaly", {"target_layers": [0, 1]}, "Dinomaly: target_layers gives 2 blocks.*give 8"),
        ("dinomaly", {"fuse_layer_encoder": [[0]]}, "Dinomaly: anomalib's code loses fuse_layer_encoder"),
    ],
)
def test_what_anomalib_would_refuse_later_or_fetch_is_refused_at_once(name: str, options: dict[str, Any], says: str):
    with pytest.raises(OptionError, match=says):
        make(name, **options)


@pytest.mark.parametrize(
    ("name", "given"), [("mh_patchcore", {"layers": ["layer2", "layer9"]}), ("dfm", {"layer": "layr"})]
)
def test_a_layer_that_anomalib_would_leave_out_is_refused_before_training(name: str, given: Any, parts: Path):
    model = make(name, **given)
    with pytest.raises(OptionError, match=r"Unknown layer '(layer9|layr)'.*layer"):
        Engine(enable_progress_bar=False).fit(model=model, datamodule=data(parts))


def test_glass_without_the_textures_that_were_asked_for_is_refused_before_training_and_fetches_none(parts: Path):
    model = make("glass", anomaly_source_path="nowhere")
    with pytest.raises(OptionError, match=r"Glass: there is no folder .*nowhere \(anomaly_source_path\)"):
        Engine(enable_progress_bar=False).fit(model=model, datamodule=data(parts))
    here = make("glass", anomaly_source_path=str(parts / "train" / "good"))
    here.check_training(data(parts))
    assert here.model.augmentor.anomaly_source_paths


def test_anomaly_dino_gives_plain_anomalibs_scores_on_the_same_network(parts: Path):
    from anomalib.models.image.anomaly_dino.torch_model import AnomalyDINOModel

    ours = make("anomaly_dino")
    with mock.patch.object(timm, "create_model", lambda name, **options: _shared(ours, name, options)):
        plain = AnomalyDINOModel()
    images = torch.rand(5, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    for model in (ours.model, plain):
        model.train()
        model(images[:3])
        model.fit()
        model.eval()
    expected, found = plain(images), ours.model(images)
    assert torch.equal(found.pred_score, expected.pred_score)
    assert torch.equal(found.anomaly_map, expected.anomaly_map)
    # and its bank is the normed tokens of our own extractor at the size of the network, which are not resampled
    state = ours.model.feature_encoder.feature_extractor.state_dict()
    native = torch.rand(1, 3, 518, 518, generator=torch.Generator().manual_seed(1))
    tokens = FeatureExtractor(load_backbone(DINO, state), ["norm"])(native)["norm"]
    with torch.no_grad():
        theirs = plain.extract_features(native)
    torch.testing.assert_close(tokens.flatten(2).transpose(1, 2), theirs)


def _shared(model: Any, name: str, options: dict[str, Any]) -> Any:
    network = _CREATE(name, pretrained=False, dynamic_img_size=options["dynamic_img_size"])
    network.load_state_dict(model.model.feature_encoder.feature_extractor.state_dict())
    return network


_CREATE = timm.create_model


def test_features_of_a_backbone_do_not_depend_on_what_of_anomalib_was_built_before():
    network, batch = load_backbone(VIT, weights="random"), torch.rand(1, 3, 96, 64)
    before = FeatureExtractor(network, ["blocks.0"])(batch)["blocks.0"]
    make("rad")  # anomalib's extractor switches antialiasing off in timm
    assert torch.equal(FeatureExtractor(network, ["blocks.0"])(batch)["blocks.0"], before)


def test_a_transformer_of_another_size_has_the_position_embeddings_that_timm_would_give_it():
    model = make("general_ad")
    own = model.model.feature_extractor.pretrained_model.pos_embed
    native = load_backbone(VIT, weights="random").network.pos_embed
    expected = resample_abs_pos_embed(native, new_size=[4, 4], old_size=[14, 14], num_prefix_tokens=1)
    assert torch.equal(own, expected)


def test_super_add_can_be_fitted_twice(parts: Path, tmp_path: Path):
    model = make("super_add")
    for results in ("first", "second"):
        engine = Engine(default_root_dir=tmp_path / results, enable_progress_bar=False)
        engine.fit(model=model, datamodule=data(parts))
    assert model.model.memory_bank.shape[0] == 2
    assert len(model.model.memory_bank[0]) <= len(data(parts).manifest.split("train")) * 16


@pytest.mark.row("3.12")
def test_every_image_model_of_anomalib_is_offered_or_has_its_reason():
    from anomalib.models import image

    names = {info.name for info in pkgutil.iter_modules(image.__path__)}
    assert names <= {*MODELS, *ANOMALIB_MODELS, *UNAVAILABLE}, names - {*MODELS, *ANOMALIB_MODELS, *UNAVAILABLE}
    assert not {*UNAVAILABLE} & {*MODELS, *ANOMALIB_MODELS}
    with pytest.raises(OptionError, match=r"cannot be run here: it .*language model"):
        model_info("vlm_ad")
