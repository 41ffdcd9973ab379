"""FastFlow against plain anomalib, any backbone, any size, and its options."""

import pytest
import torch
from helpers.models import small

from defectlab import load_backbone
from defectlab_runtime.errors import OptionError


def test_maps_loss_and_step_are_plain_anomalibs():
    from anomalib.models.image.fastflow.loss import FastflowLoss
    from anomalib.models.image.fastflow.torch_model import FastflowModel as Plain

    options = {"flow_steps": 2, "hidden_ratio": 0.2}
    ours = small("fastflow", layers=["layer1", "layer2", "layer3"], **options)
    plain = Plain(input_size=(64, 64), backbone="resnet18", pre_trained=False, **options)
    state = ours.model.state_dict()
    own = "feature_extractor.feature_extractor."
    taken = {key.replace(own, "feature_extractor."): value for key, value in state.items()}
    missing = plain.load_state_dict(taken, strict=False)
    assert not missing.unexpected_keys
    assert all(key.startswith("feature_extractor.layer4") for key in missing.missing_keys)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    embedding = ours.model.embed(ours.model.features(images))
    with torch.no_grad():
        assert float(ours.model.fit(embedding)) == pytest.approx(
            float(FastflowLoss()(*plain.train()(images))), rel=1e-5
        )
        mine, theirs = ours.eval().model(images), plain.eval()(images)
    assert torch.allclose(mine.anomaly_map, theirs.anomaly_map, rtol=1e-4, atol=1e-6)
    assert torch.allclose(mine.pred_score, theirs.pred_score.flatten(), rtol=1e-4)


def test_another_backbone_and_layer_at_an_odd_size():
    network = load_backbone("mobilenetv3_small_050", weights="random")
    model = small("fastflow", backbone=network, layers=["blocks.1", "blocks.0"], hidden_ratio=1, image_size=(77, 50))
    with torch.no_grad():
        output = model.eval().model(torch.rand(2, 3, 77, 50))
    assert output.anomaly_map.shape == (2, 1, 77, 50)
    assert output.pred_score.shape == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flow_steps": 0}, "flow_steps"),
        ({"hidden_ratio": 0.001}, "leaves no channel for layer 'layer1' with its 64"),
        ({"hidden_ratio": 0}, "hidden_ratio"),
        ({"lr": -1}, "lr"),
        ({"flow_step": 8}, "Did you mean 'flow_steps'"),
        ({"layers": "layer1"}, "list"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small("fastflow", **options)
