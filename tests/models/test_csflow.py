"""CS-Flow against plain anomalib, other backbones and sizes, and its options."""

import pytest
import torch
from helpers.models import small

from defectlab import Csflow, load_backbone
from defectlab.backbones.recognition import as_backbone
from defectlab_runtime.errors import OptionError, WeightsError


class LikeB5(torch.nn.Module):
    """304 channels at stride 32 in a layer called as EfficientNet-B5's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        first = torch.nn.Conv2d(3, 8, 8, stride=8)
        last = torch.nn.Sequential(*(torch.nn.Identity() for _ in range(8)), torch.nn.Conv2d(8, 304, 4, stride=4))
        self.features = torch.nn.Sequential(first, *(torch.nn.ReLU() for _ in range(5)), last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images)


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)])
def test_loss_and_maps_are_plain_anomalibs(whole: bool, monkeypatch: pytest.MonkeyPatch):
    from anomalib.models.image.csflow import torch_model
    from anomalib.models.image.csflow.loss import CsFlowLoss

    network = load_backbone("efficientnet_b5", weights="random") if whole else as_backbone(LikeB5())
    monkeypatch.setattr(torch_model, "efficientnet_b5", lambda weights: network.network)  # it would be downloaded
    options = {"cross_conv_hidden_channels": 8, "n_coupling_blocks": 2}
    ours = small("csflow", backbone=network, layers=["features.6.8"], image_size=(128, 256), **options).model
    plain = torch_model.CsFlowModel((128, 256), **options)
    plain.graph.load_state_dict(ours.graph.state_dict())
    for name, parameter in plain.graph.named_parameters():
        if "gamma" in name:  # zero at first, and then nothing is coupled
            with torch.no_grad():
                parameter.fill_(0.3)
    ours.graph.load_state_dict(plain.graph.state_dict())
    images = torch.rand(2, 3, 128, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine, theirs = ours.eval()(images), plain.eval()(images)
        latents, jacobians = plain.graph(plain.feature_extractor(images))
        loss = ours.fit(ours.embed(ours.features(images)))
    assert torch.allclose(mine.anomaly_map, theirs.anomaly_map, rtol=1e-4)
    assert torch.allclose(mine.pred_score, theirs.pred_score, rtol=1e-5)
    assert float(loss) == pytest.approx(float(CsFlowLoss()(latents, jacobians)), rel=1e-5)


def test_sizes_that_do_not_halve_are_resized_inside():
    model = small("csflow", image_size=(70, 128)).model.eval()
    assert model.working_size == (128, 128)
    with torch.no_grad():
        output = model(torch.rand(1, 3, 70, 128))
    assert output.anomaly_map.shape == (1, 1, 70, 128)


def test_without_weights_the_error_says_what_to_run():
    with pytest.raises(WeightsError, match="weights get efficientnet_b5"):
        Csflow()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["layer2", "layer3"]}, "one layer"),
        ({"n_coupling_blocks": 0}, "n_coupling_blocks"),
        ({"clamp": 0}, "clamp"),
        ({"num_channels": 1}, "num_channels"),
        ({"layers": ["features.6.8"]}, "layer1"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small("csflow", **options)
