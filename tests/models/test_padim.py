"""PaDiM against plain anomalib, and its fit from sums."""

from pathlib import Path

import pytest
import torch
from helpers.models import fitted, plain_rows, small

from defectlab import Detector
from defectlab.models.convert import check_target, to_anomalib
from defectlab.models.loading import restore
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError, OptionError


def scores(run: Run) -> list[float]:
    return [row.score for row in run.scores()]


def test_padims_sums_give_the_fit_on_kept_embeddings(parts: Path, monkeypatch: pytest.MonkeyPatch):
    _, kept = fitted("padim", parts, n_features=3)
    numbers = scores(kept)
    monkeypatch.setattr("defectlab.models.padim.lightning_model.MAX_EMBEDDING_BYTES", 1)
    model, summed = fitted("padim", parts, n_features=3)
    assert model.model.gaussian.value.form == "factor"
    assert scores(summed) == pytest.approx(numbers, rel=2e-5)


def test_a_converted_padim_has_anomalibs_form_and_still_scores(parts: Path):
    model, run = fitted("padim", parts)
    assert model.model.gaussian.value.form == "low_rank"  # 8 images, 20 features
    converted = to_anomalib(run.folder)
    assert converted == run.folder / "weights" / "anomalib" / "model.ckpt"
    assert restore(converted).model.gaussian.value.form == "inverse"
    row = run.scores("test")[0]
    assert Detector.load(converted).predict(row.image_path)[0].score == pytest.approx(row.score, rel=2e-5)
    with pytest.raises(OptionError, match="anomalib"):
        check_target("onnx")
    with pytest.raises(InputError, match="no checkpoint"):
        to_anomalib(run.folder / "none.ckpt")


def test_padims_smaller_n_features_is_a_prefix_of_a_larger():
    few, many = small("padim", n_features=10), small("padim", n_features=50)
    assert torch.equal(few.model.idx, many.model.idx[:10])


@pytest.mark.row("4.5")
def test_padim_against_plain_anomalib(parts: Path):
    from anomalib.models.image.padim.torch_model import PadimModel as Plain

    model, _ = fitted("padim", parts)
    plain = Plain(backbone="resnet18", layers=model.model.layers, pre_trained=False, n_features=20)
    plain.feature_extractor.feature_extractor.load_state_dict(
        model.model.feature_extractor.feature_extractor.state_dict()
    )
    plain.idx = model.model.idx
    train, test = plain_rows(model, parts)
    plain.train()
    plain(train)
    plain.fit()
    plain.eval()
    with torch.no_grad():
        theirs, ours = plain(test), model.model.eval()(test)
    assert torch.allclose(ours.pred_score, theirs.pred_score.flatten(), rtol=2e-5)
    assert torch.allclose(ours.anomaly_map, theirs.anomaly_map, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_features": 193}, "1 to 192"),
        ({"n_feature": 10}, "n_features"),
        ({"layers": ["layer1", "layer1"]}, "layer1"),
        ({"layers": ["layer7"]}, "layer1"),
        ({"layers": "layer1"}, "list"),
        ({"backbone": "resnet18", "pre_trained": False}, "weights='random'"),
        ({"center_crop": 10}, "at least 17"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small("padim", **options)
