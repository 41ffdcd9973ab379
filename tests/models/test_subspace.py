"""SubspaceAD against numpy and scikit-learn, its options, and its checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers.models import data, fitted, plain_rows, small
from sklearn.decomposition import PCA

import defectlab
from defectlab import Engine
from defectlab.backbones.weights_manifest import entries_for
from defectlab.experiment import Experiment, run
from defectlab.kernels.maps import smooth_upsample
from defectlab.kernels.subspace import PatchSums
from defectlab.models.loading import restore
from defectlab.results.run.run import Run
from defectlab.utils.config_files import read_yaml
from defectlab_runtime.errors import InputError, OptionError


def embeddings(model: Any, parts: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The embeddings (N, C, h, w) of the training images and of the test images, in the manifest's order."""
    with torch.no_grad():
        train, test = (model.model.embed(model.model.features(images)) for images in plain_rows(model, parts))
    return train, test


def by_numpy(train: torch.Tensor, test: torch.Tensor, share: float) -> tuple[np.ndarray, int]:
    """Squared distances (N, h, w) to the fewest principal axes that hold a share of the variance, and their number."""
    rows, queries = (one.double().permute(0, 2, 3, 1).numpy() for one in (train, test))
    flat = rows.reshape(-1, rows.shape[-1])
    _, values, vectors = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    size = int(np.searchsorted(np.cumsum(values**2) / (values**2).sum(), share)) + 1
    centred = queries - flat.mean(0)
    return ((centred - centred @ vectors[:size].T @ vectors[:size]) ** 2).sum(-1), size


def vit_tiny_14() -> torch.nn.Module:
    """A ViT-Ti/14 of four blocks with random weights, in which every position has an embedding of its own."""
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", patch_size=14, img_size=84, depth=4).eval()
    with torch.no_grad():
        network.pos_embed.add_(torch.randn(network.pos_embed.shape) * 0.2)
    return network


@pytest.mark.parametrize("network", ["resnet18", "vit_tiny_14"])
def test_maps_and_scores_are_those_of_numpy_and_scikit_learn(parts: Path, network: str):
    options: dict[str, Any] = {}
    if network == "vit_tiny_14":
        options = {"backbone": vit_tiny_14(), "layers": ["blocks.1+blocks.2", "blocks.3"], "image_size": 84}
    model, run = fitted("subspace", parts, explained_variance=0.95, top_share=0.02, **options)
    train, test = embeddings(model, parts)
    expected, size = by_numpy(train, test, 0.95)
    assert model.model.size == size
    rows = train.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    pca = PCA(n_components=0.95, svd_solver="full").fit(rows)
    queries = test.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    theirs = ((queries - pca.inverse_transform(pca.transform(queries))) ** 2).sum(1).reshape(expected.shape)
    np.testing.assert_allclose(theirs, expected, rtol=1e-6)
    maps = smooth_upsample(torch.from_numpy(expected).unsqueeze(1), model.preprocessing.input_size).numpy()
    np.testing.assert_allclose(run.maps("test"), maps[:, 0], rtol=1e-4)
    best = np.sort(maps.reshape(len(maps), -1))[:, ::-1][:, : int(0.02 * maps[0].size)].mean(1)
    np.testing.assert_allclose([row.score for row in run.scores("test")], best, rtol=1e-4)
    assert run.record.notes["subspace"] == model.model.summary


def test_the_preset_is_the_authors_and_runs_with_a_small_network(parts: Path):
    preset = read_yaml(Path(defectlab.__file__).parents[1] / "configs/few_shot_subspace.yaml")
    blocks = "+".join(f"blocks.{number}" for number in range(22, 29))
    assert preset["model"] == {
        **{"name": "subspace", "layers": [blocks], "image_size": [672, 672]},
        **{"explained_variance": 0.99, "top_share": 0.01, "rotations": 30},
    }
    assert entries_for(preset["backbone"]["name"])
    smaller = {"layers": ["blocks.6+blocks.7+blocks.8"], "image_size": [84, 84], "rotations": 2}
    done = run(
        Experiment.from_dict({
            **preset,
            "data": {**preset["data"], "root": str(parts), "num_workers": 0},
            "backbone": {"name": "vit_small_patch14_reg4_dinov2", "weights": "random"},
            "model": {**preset["model"], **smaller},
        })
    )  # fmt: skip
    assert done.status == "finished"
    assert done.record.parameters < 22_000_000 * 10 / 12  # of the 12 blocks, those after the last one named are gone


def test_the_fit_is_that_of_all_patches_at_once(parts: Path):
    model, _ = fitted("subspace", parts)
    train, _ = embeddings(model, parts)
    whole = PatchSums.of(model.model.rows(train))
    assert model.model.sums.count == whole.count == len(train) * 16 * 16
    scatter, largest = model.model.sums.scatter, float(whole.scatter.max())
    torch.testing.assert_close(scatter, whole.scatter, rtol=1e-9, atol=1e-9 * largest)


def test_n_components_takes_so_many_directions(parts: Path, caplog: pytest.LogCaptureFixture):
    model, run = fitted("subspace", parts, n_components=5)
    assert (model.model.size, model.model.complement.shape[1]) == (5, 187)
    assert run.record.name.endswith("_0.99_5")
    assert "5 of 192 directions hold 0." in run.record.notes["subspace"]
    assert restore(run.checkpoint).model.size == 5


def test_a_checkpoint_holds_the_sums(parts: Path):
    model, run = fitted("subspace", parts)
    again = restore(run.checkpoint).model.sums
    assert again.count == model.model.sums.count
    assert torch.equal(again.mean, model.model.sums.mean)
    assert torch.equal(again.scatter, model.model.sums.scatter)


def test_the_score_is_the_mean_of_the_maps_highest_share(parts: Path):
    maps = {share: fitted("subspace", parts, top_share=share)[1] for share in (0, 1)}
    for share, done in maps.items():
        expected = [one.max() if share == 0 else one.mean() for one in done.maps("test")]
        np.testing.assert_allclose([row.score for row in done.scores("test")], expected, rtol=1e-5)


def test_rotated_images_are_summed_too(parts: Path):
    model, run = fitted("subspace", parts, rotations=2, n_components=5)
    train, _ = plain_rows(model, parts)
    with torch.no_grad():
        both = [model.model.embed(model.model.features(one)) for one in model.orientations(train)]
    whole = PatchSums.of(model.model.rows(torch.cat(both)))
    assert model.model.sums.count == whole.count == 2 * len(train) * 16 * 16
    largest = float(whole.scatter.max())
    torch.testing.assert_close(model.model.sums.scatter, whole.scatter, rtol=1e-9, atol=1e-9 * largest)
    assert run.record.experiment.model["rotations"] == 2


def test_a_subspace_of_everything_is_refused(parts: Path):
    model = small("subspace", layers=["layer1"], explained_variance=1.0)
    channels = 4
    rows = torch.randn(50, channels, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=r"explained_variance=1.0 takes all 4 directions.*Lower"):
        model.model.fit(PatchSums.of(rows))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"explained_variance": 0}, r"explained_variance must be a number in \(0, 1\]"),
        ({"explained_variance": 1.1}, "explained_variance"),
        ({"top_share": -0.1}, r"top_share must be a number in \[0, 1\]"),
        ({"n_components": 0}, "n_components must be a whole number of at least 1"),
        ({"n_components": 2.5}, "n_components must be a whole number"),
        ({"n_components": 192}, "n_components must be 1 to 191"),
        ({"explained": 0.9}, "explained_variance"),
        ({"rotations": 0}, "rotations must be a whole number of at least 1"),
        ({"layers": "layer1"}, "list"),
        ({"center_crop": 10}, "at least 17"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        small("subspace", **options)


def test_whole_numbers_are_the_same_experiment(parts: Path):
    one, other = (
        Engine().run_id(small("subspace", explained_variance=kind(1), top_share=kind(0)), data(parts))
        for kind in (int, float)
    )
    assert one == other
    patchcores = [small("patchcore", num_neighbors=1, top_share=share) for share in (1, 1.0)]
    assert len({Engine().run_id(model, data(parts)) for model in patchcores}) == 1


def test_weights_that_came_of_rotated_images_are_tested_by_a_model_without(parts: Path):
    trained = small("subspace", rotations=2)
    tested = Engine().train(model=trained, datamodule=data(parts))
    again = Engine().test(
        model=small("subspace"), datamodule=data(parts), ckpt_path=Run.open(trained.run_folder).checkpoint
    )
    assert again[0]["pixel_AUROC"] == pytest.approx(tested[0]["pixel_AUROC"])
