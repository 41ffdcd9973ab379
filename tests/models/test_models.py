"""PaDiM, PatchCore and CFlow against plain anomalib on the same rows, and what is theirs alone."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from helpers.models import data, small

from defectlab import Cflow, Detector, Engine, load_backbone
from defectlab.data.datasets import load_image
from defectlab.models.convert import check_target, to_anomalib
from defectlab.models.embedding_store import EmbeddingStore
from defectlab.models.loading import restore
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.errors import InputError, OptionError, WeightsError
from defectlab.utils.seeds import generator


def fitted(name: str, root: Path, **options):
    model = small(name, **options)
    Engine(max_epochs=1, enable_progress_bar=False).train(model=model, datamodule=data(root))
    return model, Run.open(model.run_folder)


def scores(run: Run) -> list[float]:
    return [row.score for row in run.scores()]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("padim", {"n_features": 193}, "1 to 192"),
        ("padim", {"n_feature": 10}, "n_features"),
        ("padim", {"layers": ["layer1", "layer1"]}, "layer1"),
        ("padim", {"layers": ["layer7"]}, "layer1"),
        ("padim", {"layers": "layer1"}, "list"),
        ("padim", {"backbone": "resnet18", "pre_trained": False}, "weights='random'"),
        ("patchcore", {"coreset_sampling_ratio": 0}, r"\(0, 1\]"),
        ("patchcore", {"coreset_sampling_ratio": 1.1}, r"\(0, 1\]"),
        ("patchcore", {"num_neighbors": 0}, "at least 1"),
        ("patchcore", {"coreset_ratio": 0.1}, "coreset_sampling_ratio"),
        ("patchcore", {"precision": "float64"}, "float16"),
        ("patchcore", {"bank_sampling": "randon"}, "Did you mean 'random'"),
        ("patchcore", {"image_size": 64, "pre_processor": False}, "resizing"),
        ("cflow", {"fiber_batch_size": 0}, "fiber_batch_size"),
        ("cflow", {"condition_vector": 126}, "multiple of 4"),
        ("cflow", {"condition_vector": "128"}, "whole number"),
        ("padim", {"center_crop": 10}, "at least 17"),
        ("cflow", {"decoder": "all"}, "freia-cflow"),
        ("cflow", {"lr": 0}, "lr"),
    ],
)
def test_options_that_cannot_work_are_refused(name: str, options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small(name, **options)


def test_a_layer_without_weights_is_refused(tmp_path: Path):
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save({key: value for key, value in state.items() if not key.startswith(("layer4", "fc"))}, tmp_path / "a.pth")
    without = load_backbone("resnet18", weights=tmp_path / "a.pth")
    assert small("padim", backbone=without)
    with pytest.raises(WeightsError, match="layer4"):
        small("padim", backbone=without, layers=["layer4"], n_features=3)


def test_mean_and_std_are_the_backbones(tmp_path: Path):
    other = load_backbone("resnet18", weights="random", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert small("padim", backbone=other).preprocessing.mean == (0.5, 0.5, 0.5)


def test_every_image_setting_survives_the_checkpoint(parts: Path):
    model, run = fitted("padim", parts, image_size=(72, 64), center_crop=(64, 56), keep_aspect=True)
    assert restore(run.checkpoint).preprocessing == model.preprocessing
    row = run.scores("test")[0]
    assert Detector.load(run.folder).predict(row.image_path)[0].score == pytest.approx(row.score, rel=1e-5)


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


def plain_rows(model, root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of the training images in manifest order, and of the test images."""
    images = data(root)
    images.setup()
    resize, transform = model.preprocessing.resize(), model.preprocessing.transform()
    stacks = []
    for dataset in (images.train_data, images.test_data):
        batch = torch.stack([resize(dataset[index].image) for index in range(len(dataset))])
        with torch.no_grad():
            stacks.append(transform(batch))
    return stacks[0], stacks[1]


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


def test_patchcore_fits_on_the_kept_embeddings_themselves(monkeypatch: pytest.MonkeyPatch):
    model, seen = small("patchcore"), []
    batches = [torch.rand(2, 6, 3, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    monkeypatch.setattr(type(model), "trainer", SimpleNamespace(datamodule=None))
    monkeypatch.setattr(model.model, "fit", seen.append)
    model._embeddings = [(["c", "a"], batches[0]), (["b", "d"], batches[1])]
    model.fit()
    (rows,) = seen
    assert rows._base is not None  # a view: the patches are not held twice
    stacked = torch.stack([batches[0][1], batches[1][0], batches[0][0], batches[1][1]])
    assert torch.equal(rows, stacked.permute(0, 2, 3, 1).reshape(-1, 6))  # (N, C, h, w) -> (N*h*w, C)


@pytest.mark.row("4.6")
def test_patchcore_against_plain_anomalib(parts: Path):
    from anomalib.models.components.sampling.k_center_greedy import KCenterGreedy
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel as Plain

    from defectlab.kernels.projection import sparse_projection
    from defectlab.utils.seeds import generator

    model, _ = fitted("patchcore", parts)
    plain = Plain(backbone="resnet18", layers=model.model.layers, pre_trained=False, num_neighbors=3)
    plain.feature_extractor.feature_extractor.load_state_dict(
        model.model.feature_extractor.feature_extractor.state_dict()
    )
    train, test = plain_rows(model, parts)
    plain.train()
    rows = plain(train)
    sampler = KCenterGreedy(rows, 0.2)
    sampler.model.fit = lambda _rows: sampler.model  # same projection and first pick as ours
    sampler.model.sparse_random_matrix = sparse_projection(*rows.shape, generator=generator(42, "coreset projection"))
    first = torch.randint(len(rows), (1,), generator=generator(42, "coreset first pick"))
    draw, torch.randint = torch.randint, lambda *_args, **_kwargs: first
    try:
        plain.memory_bank = sampler.sample_coreset()
    finally:
        torch.randint = draw
    assert torch.allclose(model.model.memory_bank, plain.memory_bank, atol=1e-6)
    plain.eval()
    with torch.no_grad():
        theirs, ours = plain(test), model.model.eval()(test)
    assert torch.allclose(ours.pred_score, theirs.pred_score.flatten(), rtol=1e-4)
    assert torch.allclose(ours.anomaly_map, theirs.anomaly_map, rtol=1e-4, atol=1e-3)


@pytest.mark.row("4.6")
def test_patchcores_bank_may_be_drawn_at_random(parts: Path):
    chosen, run = fitted("patchcore", parts)
    drawn, other = fitted("patchcore", parts, bank_sampling="random")
    assert other.folder != run.folder
    assert drawn.model.memory_bank.shape == chosen.model.memory_bank.shape
    train, _ = plain_rows(drawn, parts)
    rows = drawn.model.rows(drawn.model.embed(drawn.model.features(train)))
    order = torch.randperm(len(rows), generator=generator(42, "random bank"))
    assert torch.allclose(drawn.model.memory_bank, rows[order[: len(drawn.model.memory_bank)]], atol=1e-5)
    assert restore(other.checkpoint).options["bank_sampling"] == "random"
    assert "bank_sampling" not in run.record.experiment.model
    # what the coreset is for: the farthest patch is nearer to it
    radius = [float(torch.cdist(rows, model.model.memory_bank).amin(dim=1).max()) for model in (chosen, drawn)]
    assert radius[0] < radius[1]


@pytest.mark.parametrize("tied", [True, False], ids=["one tensor", "many tensors"])
def test_cflow_losses_are_plain_anomalibs_under_the_same_draws(tied: bool):
    """Both train one step on one batch, from the same flows, with the fibers in the same order."""
    from anomalib.models import Cflow as Plain

    ours = small("cflow")
    options = {"coupling_blocks": 2, "fiber_batch_size": 32}
    plain = Plain(backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False, **options)
    plain.model.load_state_dict(ours.model.state_dict())
    images = torch.rand(2, 3, 64, 64)
    theirs = _plain_cflow_step(plain, images)
    optimizer = ours.configure_optimizers() if tied else torch.optim.Adam(ours.model.decoders.parameters(), lr=1e-4)
    total = torch.zeros(1, dtype=torch.float64)
    for losses in ours.model.fit(ours.model.embed(ours.model.features(images)), torch.Generator().manual_seed(5)):
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        total += losses.detach().sum()
    assert float(total) == pytest.approx(float(theirs), rel=1e-6)
    for a, b in zip(ours.model.decoders.parameters(), plain.model.decoders.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def _plain_cflow_step(plain, images: torch.Tensor) -> torch.Tensor:
    optimizer = plain.configure_optimizers()
    plain.optimizers = lambda: optimizer
    plain.manual_backward = lambda loss: loss.backward()
    plain.log = lambda *_args, **_kwargs: None
    batch = type("Batch", (), {"image": images})()
    torch.manual_seed(5)
    return plain.training_step(batch)["loss"].detach()


def test_cflow_scores_are_plain_anomalibs_at_batch_size_one(parts: Path):
    from anomalib.models import Cflow as Plain

    ours, _ = fitted("cflow", parts)
    options = {"coupling_blocks": 2, "fiber_batch_size": 32}
    plain = Plain(backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False, **options).eval()
    plain.model.load_state_dict(ours.model.state_dict())
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        together = ours.eval().model(images)
        one_by_one = [plain.model(image[None]) for image in images]
    for index, theirs in enumerate(one_by_one):
        assert float(together.pred_score[index]) == pytest.approx(float(theirs.pred_score[0]), rel=1e-5)
        assert torch.allclose(together.anomaly_map[index], theirs.anomaly_map, atol=1e-5)


def test_cflow_learns(parts: Path):
    model = small("cflow", lr=1e-3)
    Engine(max_epochs=4, enable_progress_bar=False).fit(model=model, datamodule=data(parts))
    losses = Run.open(model.run_folder).record.history["train_loss"]
    assert len(losses) == 4
    assert np.all(np.diff(losses) < 0)


def test_cflow_reads_each_training_image_once(parts: Path, monkeypatch: pytest.MonkeyPatch):
    read = Counter()

    def counted(path):
        read[Path(path).parts[-3:]] += 1
        return load_image(path)

    monkeypatch.setattr("defectlab.data.datasets.load_image", counted)
    seen = []
    monkeypatch.setattr(EmbeddingStore, "get", _spied(EmbeddingStore.get, seen))
    model = small("cflow")
    Engine(max_epochs=3, enable_progress_bar=False).fit(model=model, datamodule=data(parts))
    losses = Run.open(model.run_folder).record.history["train_loss"]
    training = [count for (split, *_), count in read.items() if split == "train"]
    assert training == [1] * 8
    assert [found is not None for found in seen] == [False] * 3 + [True] * 6
    monkeypatch.setattr(Cflow, "open_store", lambda *_: None)
    anew = small("cflow")
    Engine(max_epochs=3, enable_progress_bar=False).fit(model=anew, datamodule=data(parts))
    assert Run.open(anew.run_folder).record.history["train_loss"] == losses
    assert [count for (split, *_), count in read.items() if split == "train"] == [2] * 8  # pixels are kept as well


def _spied(method, seen: list):
    def call(*arguments):
        seen.append(method(*arguments))
        return seen[-1]

    return call


def test_a_last_short_batch_of_images_trains_too(parts: Path):
    model = small("cflow", fiber_batch_size=4096)
    Engine(max_epochs=1, enable_progress_bar=False).fit(model=model, datamodule=data(parts))
    assert Run.open(model.run_folder).status == "fitted"


def test_a_backbone_of_lower_precision_is_on_record_and_reloads(parts: Path):
    lower = load_backbone("resnet18", "random", precision="bfloat16")
    engine, images = Engine(enable_progress_bar=False), data(parts)
    model = small("patchcore", backbone=lower)
    assert engine.run_id(model, images) != engine.run_id(small("patchcore"), images)
    engine.train(model=model, datamodule=images)
    run = Run.open(model.run_folder)
    assert run.record.experiment.backbone["precision"] == "bfloat16"
    rows = run.scores("test")
    found = Detector.load(run.folder).predict([str(paths.resolve(row.image_path)) for row in rows])
    assert [one.score for one in found] == pytest.approx([row.score for row in rows], rel=1e-5)


def test_random_weights_are_named_in_the_record():
    assert small("padim").backbone_record["source"] == "random(seed=42)"
