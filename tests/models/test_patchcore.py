"""PatchCore against plain anomalib; its other samplings, scores and banks against independent computations."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.models import data, fitted, plain_rows, small

from defectlab import Engine
from defectlab.kernels.coreset.approximate import approximate_greedy
from defectlab.kernels.coreset.cost import coreset_size
from defectlab.kernels.projection import sparse_projection
from defectlab.models.convert import to_anomalib
from defectlab.models.loading import restore
from defectlab.models.patchcore.scores import mean_distances, own_neighbours, top_mean
from defectlab.results.run.run import Run
from defectlab.utils.seeds import generator
from defectlab_runtime.errors import InputError, OptionError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def numpy_distances(patches: torch.Tensor, bank: torch.Tensor, k: int) -> np.ndarray:
    """The `k` smallest distances (n, k), ascending, in float64."""
    rows, others = patches.double().numpy(), bank.double().numpy()
    return np.sort(np.linalg.norm(rows[:, None] - others[None], axis=2), axis=1)[:, :k]


def test_amazons_score_is_the_mean_distance_to_k_neighbours_of_the_worst_patch():
    patches, bank = draw(2 * 6, 5), draw(9, 5, seed=1)
    near = numpy_distances(patches, bank, 3).reshape(2, 6, 3)
    scores, per_patch = mean_distances(torch.as_tensor(near))
    assert per_patch.numpy() == pytest.approx(near.mean(axis=2))
    assert scores.numpy() == pytest.approx(near.mean(axis=2).max(axis=1))


def test_own_neighbours_weigh_by_the_worst_patchs_own_distances():
    near = numpy_distances(draw(2 * 6, 5), draw(9, 5, seed=1), 3).reshape(2, 6, 3)
    scores, per_patch = own_neighbours(torch.as_tensor(near))
    for image in range(2):
        worst = near[image, :, 0].argmax()
        powers = np.exp(near[image, worst])
        assert float(scores[image]) == pytest.approx((1 - powers.max() / powers.sum()) * near[image, worst, 0])
    assert per_patch.numpy() == pytest.approx(near[..., 0])
    alone, _ = own_neighbours(torch.as_tensor(near[..., :1]))  # one neighbour has no others to weigh it by
    assert alone.numpy() == pytest.approx(near[..., 0].max(axis=1))


@pytest.mark.row("3.13")
def test_amazon_sampling_scores_and_compression_reload_and_are_other_experiments(parts: Path):
    options = {"bank_sampling": "amazon", "score_computation": "amazon", "compress_memory_bank": True}
    model = small("patchcore", **options)
    images = data(parts)
    Engine(max_epochs=1, enable_progress_bar=False).train(model=model, datamodule=images)
    run = Run.open(model.run_folder)
    assert options.items() <= run.record.experiment.model.items()
    network, dataset = model.model.eval(), images.train_data
    transform = model.preprocessing.transform()
    with torch.no_grad():
        pixels = torch.stack([transform(dataset[index].image) for index in range(len(dataset))])
        embedding = network.embed(network.features(pixels))
        rows = network.rows(embedding)
    projection = sparse_projection(*rows.shape, generator=generator(42, "coreset projection"))
    short = rows @ projection.T
    size = coreset_size(len(rows), 0.2)
    order = approximate_greedy(short, size, generator=generator(42, "coreset starting points"))
    assert len(projection) < rows.shape[1]
    assert torch.allclose(network.memory_bank, short[order], atol=1e-4)
    reloaded = restore(run.checkpoint)
    with torch.no_grad():
        scores, maps = network.score(embedding, (64, 64))
        again, _ = reloaded.model.eval().score(embedding, (64, 64))
    assert torch.equal(scores, again)
    per_patch = numpy_distances(short, network.memory_bank, 3).mean(axis=1).reshape(len(pixels), -1)
    assert scores.numpy() == pytest.approx(per_patch.max(axis=1), abs=2e-3)
    assert maps.shape == (len(pixels), 1, 64, 64)
    with pytest.raises(InputError, match="score_computation"):
        to_anomalib(run.folder)


def test_a_compression_that_compresses_nothing_is_refused_before_training(parts: Path):
    with pytest.raises(OptionError, match=r"its 192 numbers would become \d+"):
        small("patchcore", layers=["layer1", "layer2"], compress_memory_bank=True).check_training_images(10**6)


@pytest.mark.parametrize("score_computation", ["anomalib", "own_neighbours", "amazon"])
def test_cosine_distances_reach_every_score(score_computation: str):
    """Against cosines in float64; anomalib's weights are of the bank patches around the nearest one."""
    model = small("patchcore", distance="cosine", score_computation=score_computation, neighbourhood=1).model
    embedding, bank = draw(2, 5, 3, 4) - 0.5, draw(9, 5, seed=1) - 0.5
    model.set_memory_bank(bank, torch.arange(9))
    scores, _ = model.score(embedding, (64, 64))
    rows, others = embedding.permute(0, 2, 3, 1).reshape(-1, 5).double().numpy(), bank.double().numpy()
    rows, others = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (rows, others))
    distances = (1 - rows @ others.T).reshape(2, 12, 9)
    expected = []
    for image, near in enumerate(distances):
        worst = near.min(axis=1).argmax()
        around = np.sort(near[worst])[:3][::-1]  # its own weights are of the farthest of them
        if score_computation == "anomalib":
            support = np.argsort(1 - others[near[worst].argmin()] @ others.T, kind="stable")[:3]
            around = distances[image, worst, support]
        weight = 1 - np.exp(around[0]) / np.exp(around).sum()
        top = np.sort(near, axis=1)[:, :3].mean(axis=1).max()
        expected.append(top if score_computation == "amazon" else weight * near[worst].min())
    assert scores.numpy() == pytest.approx(expected, rel=1e-5)


def test_a_coreset_of_cosines_is_that_of_unit_vectors_and_a_whole_bank_is_not_picked(monkeypatch: pytest.MonkeyPatch):
    rows = (draw(60, 5) - 0.5) * torch.linspace(0.1, 9, 60).unsqueeze(1)
    model = small("patchcore", distance="cosine").model
    units = rows / rows.norm(dim=1, keepdim=True)
    expected = small("patchcore").model.order(units, 12)
    model.fit(rows)
    assert torch.equal(model.picks, expected)
    assert torch.allclose(model.memory_bank, units[expected])
    whole = small("patchcore", coreset_sampling_ratio=1.0).model
    monkeypatch.setattr(type(whole), "order", lambda *_: pytest.fail("all are kept: nothing to pick"))
    whole.fit(rows)
    assert torch.equal(whole.memory_bank, rows)
    assert torch.equal(whole.picks, torch.arange(60))


def test_the_top_share_is_the_mean_of_the_largest():
    per_patch = draw(3, 50)
    by_hand = np.sort(per_patch.numpy(), axis=1)[:, ::-1]
    assert top_mean(per_patch, 0.1).numpy() == pytest.approx(by_hand[:, :5].mean(axis=1))
    assert top_mean(per_patch, 0.01).numpy() == pytest.approx(by_hand[:, 0])  # half a patch: the largest one
    assert top_mean(per_patch, 1).numpy() == pytest.approx(per_patch.numpy().mean(axis=1))


def test_amazons_mean_distances_may_have_a_top_share():
    model = small("patchcore", score_computation="amazon", top_share=0.25, neighbourhood=1).model
    embedding, bank = draw(2, 5, 3, 4), draw(9, 5, seed=1)
    model.set_memory_bank(bank, torch.arange(9))
    scores, _ = model.score(embedding, (64, 64))
    patches = embedding.permute(0, 2, 3, 1).reshape(-1, 5)  # (B, C, h, w) -> (B*h*w, C)
    near = numpy_distances(patches, bank, 3).mean(axis=1).reshape(2, 12)
    assert scores.numpy() == pytest.approx(np.sort(near, axis=1)[:, -3:].mean(axis=1), rel=1e-5)


def test_an_image_without_foreground_is_compared_whole():
    """Flat images have no first component: without the mask's exception each would score 0, as a good one."""
    model = small("patchcore", foreground_mask=True, neighbourhood=1).model
    model.set_memory_bank(draw(9, 5, seed=1), torch.arange(9))
    model.masks_background = torch.tensor(True)
    flat = torch.ones(1, 5, 8, 8)
    assert model.foreground(flat).all()
    assert float(model.score(flat, (64, 64))[0]) > 0


def test_the_options_at_their_usual_values_are_the_experiment_without_them():
    given = {"distance": "euclidean", "neighbourhood": 3, "top_share": None, "foreground_mask": False}
    assert small("patchcore", **given).options == small("patchcore").options


def test_unknown_choices_are_named():
    with pytest.raises(OptionError, match="Did you mean 'amazon'"):
        small("patchcore", score_computation="amazn")
    with pytest.raises(OptionError, match="compress_memory_bank must be true or false"):
        small("patchcore", compress_memory_bank="no")


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coreset_sampling_ratio": 0}, r"\(0, 1\]"),
        ({"coreset_sampling_ratio": 1.1}, r"\(0, 1\]"),
        ({"num_neighbors": 0}, "at least 1"),
        ({"coreset_ratio": 0.1}, "coreset_sampling_ratio"),
        ({"precision": "float64"}, "float16"),
        ({"bank_sampling": "randon"}, "Did you mean 'random'"),
        ({"image_size": 64, "pre_processor": False}, "resizing"),
        ({"distance": "cosin"}, "Did you mean 'cosine'"),
        ({"neighbourhood": 2}, "must be odd"),
        ({"neighbourhood": 0}, "at least 1"),
        ({"top_share": 0}, r"\(0, 1\]"),
        ({"top_share": 0.01}, "the 3 neighbours by which score_computation 'anomalib'.*Set num_neighbors to 1"),
        ({"top_share": 0.01, "num_neighbors": 1, "score_computation": "own_neighbours"}, "'own_neighbours' re-weights"),
        ({"foreground_mask": "yes"}, "must be true or false"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small("patchcore", **options)
