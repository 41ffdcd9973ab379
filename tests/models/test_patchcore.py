"""PatchCore's other samplings and scores, and its compressed bank, against independent computations."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import data, small

from defectlab import Engine
from defectlab.kernels.coreset.approximate import approximate_greedy
from defectlab.kernels.coreset.cost import coreset_size
from defectlab.kernels.projection import sparse_projection
from defectlab.models.convert import to_anomalib
from defectlab.models.loading import restore
from defectlab.models.patchcore.scores import mean_distances, own_neighbours
from defectlab.results.run.run import Run
from defectlab.utils.errors import InputError, OptionError
from defectlab.utils.seeds import generator


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


def test_approximate_greedy_is_the_plain_loop():
    rows = draw(60, 4)
    picks = approximate_greedy(rows, 20, generator=torch.Generator().manual_seed(7))
    points = rows.double().numpy()
    starts = torch.randperm(60, generator=torch.Generator().manual_seed(7))[:10].numpy()
    bound = np.linalg.norm(points[:, None] - points[starts][None], axis=2).mean(axis=1)
    expected = []
    for _ in range(20):
        expected.append(int(bound.argmax()))
        bound = np.minimum(bound, np.linalg.norm(points - points[expected[-1]], axis=1))
    assert picks.tolist() == expected
    twice = approximate_greedy(rows[:3].repeat(4, 1), 12, generator=torch.Generator().manual_seed(7))
    assert sorted(twice.tolist()) == list(range(12))  # copies are picked once each
    with pytest.raises(OptionError, match="1 to 60"):
        approximate_greedy(rows, 61, generator=torch.Generator())


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


def test_unknown_choices_are_named():
    with pytest.raises(OptionError, match="Did you mean 'amazon'"):
        small("patchcore", score_computation="amazn")
    with pytest.raises(OptionError, match="compress_memory_bank must be true or false"):
        small("patchcore", compress_memory_bank="no")
