"""anomalib's other models by name: no download, the same records, a checkpoint that reloads."""

import math
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.models import backbone, data

from defectlab import Detector, Engine, load_backbone, model_class
from defectlab.inference.prediction_files import predict_to_folder
from defectlab.models.registry import ANOMALIB_MODELS, MODELS, UNAVAILABLE, model_info
from defectlab.results.run.run import Run
from defectlab.utils.errors import InputError, OptionError

OWN: dict[str, dict[str, Any]] = {
    "cfa": {},
    "dfkde": {"layers": ["layer3"], "n_pca_components": 4},
    "dfm": {"layer": "layer2"},
    "fre": {"layer": "layer2", "pooling_kernel_size": 2, "input_dim": 2048, "latent_dim": 8},
    "ganomaly": {"n_features": 8, "latent_vec_size": 8, "lr": 2e-3},
    "mh_patchcore": {"layers": ["layer2"], "memory_bank_size": 20, "local_coreset_size": 10, "num_neighbors": 2},
    "patchflow": {"flow_feature_dim": 16, "flow_hidden_dim": 16},
    "reverse_distillation": {},
    "uninet": {"backbone": "resnet50"},  # its student has the channels of these
    "supersimplenet": {"image_size": 128},  # its noise needs 32 cells a side
}


EPOCHS = {"ganomaly": 20}  # two leave it where it began
SHORT = ("dfm", "dfkde")


def make(name: str, **options: Any) -> Any:
    own = {"image_size": 64, **OWN[name], **options}
    if ANOMALIB_MODELS[name].backbone:
        own["backbone"] = load_backbone(own["backbone"], weights="random") if "backbone" in own else backbone()
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


def test_options_are_checked():
    with pytest.raises(OptionError, match="Did you mean 'layer'"):
        make("dfm", layr="layer2")


@pytest.mark.row("3.12")
def test_every_image_model_of_anomalib_is_offered_or_has_its_reason():
    from anomalib.models import image

    names = {info.name for info in pkgutil.iter_modules(image.__path__)}
    assert names <= {*MODELS, *ANOMALIB_MODELS, *UNAVAILABLE}, names - {*MODELS, *ANOMALIB_MODELS, *UNAVAILABLE}
    assert not {*UNAVAILABLE} & {*MODELS, *ANOMALIB_MODELS}
    with pytest.raises(OptionError, match=r"cannot be run here: it .*language model"):
        model_info("vlm_ad")
