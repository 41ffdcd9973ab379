"""Graphs of every model: the scores and maps of the model itself, in files of every format, for batches of any size."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import SMALL, small

from defectlab.export.checks import FORMATS
from defectlab.export.detectors import open_detector
from defectlab.export.graph import ExportGraph
from defectlab.export.writers import WRITERS
from defectlab.models.memory_bank import MemoryBankDetector
from defectlab_runtime.description import Description, RunFacts
from defectlab_runtime.tiling import Tiling

OWN_FORM = ("padim", "patchcore", "cflow")  # models whose scores have a form of their own
QUICK = ("linear_vae", "subspace")

PATCHCORES = {
    "one neighbour": {"num_neighbors": 1},
    "own neighbours": {"score_computation": "own_neighbours"},
    "mean of neighbours": {"score_computation": "amazon"},
    "cosine and top share": {"distance": "cosine", "top_share": 0.05, "num_neighbors": 1},
    "compressed": {"compress_memory_bank": True},
    "centre crop": {"image_size": (80, 72), "center_crop": (64, 64)},
}


def fitted_in_memory(name: str, tiling: Tiling | None = None, **options):
    """A model whose graph is complete: fitted on noise where it fits once, as drawn where it trains."""
    detector = small(name, **options).eval()
    if tiling is not None:
        detector.set_input_region(None, tiling)
    if name == "efficient_ad":
        for values in (detector.model.mean_std, detector.model.quantiles):
            for number, one in enumerate(values.values()):
                one.data += 0.5 + number
    if isinstance(detector, MemoryBankDetector):
        with torch.no_grad():
            images = noise(6, detector.preprocessing.map_size)
            detector.fit_embedding(detector.model.embed(detector.model.features(images)))
    return detector


def noise(count: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(7).random((count, 3, *size), dtype=np.float32))


def described(preprocessing: dict) -> Description:
    run = RunFacts("id", "name", "Model", "data", "hash")
    return Description("0", run, "model", preprocessing, None, None, (0, 1), (0, 1), False, True)


def check(detector, formats, folder: Path) -> None:
    """Each file gives what the model gives: one image at a time and in batches, whatever else is in the batch."""
    preprocessing = detector.preprocessing
    images = noise(5, preprocessing.whole_size)
    with torch.no_grad():
        found = copy.deepcopy(detector).model(preprocessing.transform()(images))
    wanted, wanted_maps = found.pred_score.reshape(5).numpy(), found.anomaly_map.reshape(5, *preprocessing.map_size)
    before = {key: value.clone() for key, value in detector.model.state_dict().items()}
    for file_format in formats:
        path = folder / f"model{FORMATS[file_format]}"
        WRITERS[file_format](ExportGraph(copy.deepcopy(detector)), path, described(preprocessing.to_dict()))
        opened = open_detector(path)
        assert opened.description == described(preprocessing.to_dict())
        for part in (slice(0, 1), slice(1, 3), slice(0, 5)):
            scores, maps = opened.score(images[part].numpy())
            np.testing.assert_allclose(scores, wanted[part], rtol=1e-4, atol=1e-4 * np.ptp(wanted))
            np.testing.assert_allclose(maps, wanted_maps[part].numpy(), atol=1e-3 * float(np.ptp(wanted_maps.numpy())))
    assert all(torch.equal(value, before[key]) for key, value in detector.model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("padim", list(FORMATS)),
        ("patchcore", ["onnx"]),
        ("cflow", ["onnx", "torchscript"]),
        pytest.param("patchcore", ["openvino", "torch"], marks=pytest.mark.long),
        pytest.param("cflow", ["openvino", "torch"], marks=pytest.mark.long),
    ],
)
def test_files_give_what_the_model_gives(name: str, formats: list[str], tmp_path: Path):
    check(fitted_in_memory(name), formats, tmp_path)


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in SMALL if name not in OWN_FORM],
)
def test_every_other_model_gives_the_same_as_onnx(name: str, tmp_path: Path):
    check(fitted_in_memory(name), ["onnx"], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in SMALL if name not in OWN_FORM])
def test_every_other_model_gives_the_same_in_the_other_formats(name: str, tmp_path: Path):
    check(fitted_in_memory(name), ["openvino", "torch", "torchscript"], tmp_path)


@pytest.mark.parametrize("options", PATCHCORES.values(), ids=PATCHCORES)
def test_every_option_of_patchcore_is_in_the_graph(options: dict, tmp_path: Path):
    check(fitted_in_memory("patchcore", **options), ["torchscript"], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("options", PATCHCORES.values(), ids=PATCHCORES)
def test_every_option_of_patchcore_is_in_the_onnx_file(options: dict, tmp_path: Path):
    check(fitted_in_memory("patchcore", **options), ["onnx"], tmp_path)


@pytest.mark.parametrize("name", ["patchcore", "stfpm"])
def test_tiles_are_in_the_graph(name: str, tmp_path: Path):
    check(fitted_in_memory(name, tiling=Tiling((96, 128), 0.25)), ["torchscript"], tmp_path)


def test_a_bank_of_several_blocks_is_searched_exactly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("defectlab.export.score_forms.BANK_BLOCK", 20)  # of 77 rows
    for options in ({}, {"score_computation": "amazon"}):
        check(fitted_in_memory("patchcore", **options), ["torchscript"], tmp_path)


def test_every_form_of_covariance_is_in_the_graph(tmp_path: Path):
    detector = fitted_in_memory("padim", n_features=100)
    assert detector.model.gaussian.value.form == "low_rank"
    check(detector, ["torchscript"], tmp_path)
    gaussian = detector.model.gaussian.value
    detector.model.gaussian.set(type(gaussian)(gaussian.mean, inverse=gaussian.to_inverse()))
    check(detector, ["torchscript"], tmp_path)
    assert fitted_in_memory("padim", n_features=3).model.gaussian.value.form == "factor"
    check(fitted_in_memory("padim", n_features=3), ["torchscript"], tmp_path)
