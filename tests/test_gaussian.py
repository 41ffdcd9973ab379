"""PaDiM's statistics and distance against anomalib's."""

import pytest
import torch

from defectlab.errors import InputError
from defectlab.kernels.gaussian import fit_gaussian, mahalanobis


def features(n: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator) / channels**0.5
    latent = torch.randn(n, channels, height, width, generator=generator)
    return torch.einsum("dc,nchw->ndhw", mixing, latent).relu()


def relative(ours: torch.Tensor, plain: torch.Tensor) -> float:
    """Largest difference over the largest entry, of each position's matrix; the worst of all positions."""
    difference = (ours - plain).abs().amax((-2, -1))
    return float((difference / plain.abs().amax((-2, -1))).max())


@pytest.mark.parametrize(("n", "channels"), [(40, 12), (6, 20), (2, 3), (9, 1)])
def test_statistics_equal_anomalibs(n: int, channels: int) -> None:
    from anomalib.models.components.stats import MultiVariateGaussian

    rows = features(n, channels, 5, 4)
    plain_mean, plain_inverse = MultiVariateGaussian().fit(rows)
    mean, inverse = fit_gaussian(rows.flatten(2))  # (N, C, h, w) -> (N, C, h*w)
    torch.testing.assert_close(mean, plain_mean, rtol=1e-6, atol=1e-7)
    assert relative(inverse, plain_inverse) <= 2e-5
    small = fit_gaussian(rows.flatten(2), memory_budget=1)
    torch.testing.assert_close(small[1], inverse, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 5])
def test_distance_equals_anomalibs(batch: int) -> None:
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

    mean, inverse = fit_gaussian(features(30, 16, 6, 5).flatten(2))
    embedding = features(batch, 16, 6, 5, seed=1)
    expected = AnomalyMapGenerator.compute_distance(embedding, [mean, inverse])
    ours = mahalanobis(embedding, mean, inverse)
    assert ours.shape == (batch, 1, 6, 5)
    torch.testing.assert_close(ours, expected, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(mahalanobis(embedding, mean, inverse, memory_budget=1), ours, rtol=1e-5, atol=1e-5)


def test_distance_is_that_of_numpy() -> None:
    import numpy as np

    mean, inverse = fit_gaussian(features(20, 4, 2, 3).flatten(2))
    embedding = features(2, 4, 2, 3, seed=2)
    delta = embedding[1, :, 1, 2].double().numpy() - mean[:, 5].double().numpy()
    expected = np.sqrt(delta @ inverse[5].double().numpy() @ delta)
    assert mahalanobis(embedding, mean, inverse)[1, 0, 1, 2].item() == pytest.approx(expected, rel=1e-5)


def test_features_too_large_for_the_regularisation_fall_back_to_plain(caplog: pytest.LogCaptureFixture) -> None:
    rows = features(4, 30, 2, 2) * 1e5
    _, inverse = fit_gaussian(rows.flatten(2))
    assert bool(torch.isfinite(inverse).all())
    assert "inverted by LU" in caplog.text


def test_one_image_wrong_size_and_nan_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2"):
        fit_gaussian(torch.zeros(1, 3, 4))
    with pytest.raises(InputError, match="NaN"):
        fit_gaussian(torch.full((3, 3, 4), torch.nan))
    mean, inverse = fit_gaussian(features(5, 3, 2, 2).flatten(2))
    with pytest.raises(InputError, match="2 x 3"):
        mahalanobis(torch.zeros(1, 3, 2, 3), mean, inverse)
