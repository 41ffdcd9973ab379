"""PaDiM's statistics and distance against anomalib's."""

from collections.abc import Callable

import pytest
import torch

from defectlab.kernels.gaussian.distance import distance, prefix_distances
from defectlab.kernels.gaussian.fit import Gaussian, fit_cheapest, fit_factor, fit_gaussian, fit_low_rank
from defectlab.kernels.gaussian.sums import GaussianSums
from defectlab_runtime.errors import InputError


def features(n: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator) / channels**0.5
    latent = torch.randn(n, channels, height, width, generator=generator)
    return torch.einsum("dc,nchw->ndhw", mixing, latent).relu()


def relative(ours: torch.Tensor, plain: torch.Tensor) -> float:
    """Largest difference over the largest entry, of each position's matrix; the worst of all positions."""
    difference = (ours - plain).abs().amax((-2, -1))
    return float((difference / plain.abs().amax((-2, -1))).max())


def plain_distance(train: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    from anomalib.models.components.stats import MultiVariateGaussian
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

    return AnomalyMapGenerator.compute_distance(test, MultiVariateGaussian().fit(train))


def summed(rows: torch.Tensor) -> Gaussian:
    sums = GaussianSums()
    for batch in rows.split(7):
        sums.add(batch)
    return sums.fit()


@pytest.mark.parametrize(("n", "channels"), [(40, 12), (6, 20), (2, 3), (9, 1), (30, 80)])
def test_statistics_equal_anomalibs(n: int, channels: int) -> None:
    from anomalib.models.components.stats import MultiVariateGaussian

    rows = features(n, channels, 5, 4)
    plain_mean, plain_inverse = MultiVariateGaussian().fit(rows)
    mean, inverse = fit_gaussian(rows.flatten(2))  # (N, C, h, w) -> (N, C, h*w)
    torch.testing.assert_close(mean, plain_mean, rtol=1e-6, atol=1e-7)
    assert relative(inverse, plain_inverse) <= 2e-5
    small = fit_gaussian(rows.flatten(2), memory_budget=1)
    torch.testing.assert_close(small[1], inverse, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fit", [fit_factor, fit_low_rank, summed], ids=["factor", "low_rank", "sums"])
@pytest.mark.parametrize(("n", "channels"), [(40, 12), (12, 50), (2, 3), (60, 70)])
def test_every_form_gives_anomalibs_distances(fit: Callable[..., Gaussian], n: int, channels: int) -> None:
    train, test = features(n, channels, 5, 4), features(3, channels, 5, 4, seed=1)
    gaussian = fit(train.flatten(2))
    expected = plain_distance(train, test)
    torch.testing.assert_close(distance(test, gaussian), expected, rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(distance(test, gaussian, memory_budget=1), expected, rtol=2e-5, atol=1e-6)
    # training images lie in the span of the rows, where Woodbury's difference would cancel
    torch.testing.assert_close(distance(train, gaussian), plain_distance(train, train), rtol=2e-5, atol=1e-6)
    as_anomalib = distance(test, Gaussian(gaussian.mean, inverse=gaussian.to_inverse()))
    torch.testing.assert_close(as_anomalib, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.row("S.2")
def test_the_leading_block_of_one_factor_serves_fewer_features() -> None:
    train, test = features(40, 30, 3, 4), features(2, 30, 3, 4, seed=1)
    gaussian = fit_factor(train.flatten(2))
    sizes = [1, 7, 30]
    found = prefix_distances(test, gaussian, sizes)
    assert found.shape == (3, 2, 1, 3, 4)
    for size, distances in zip(sizes, found, strict=True):
        expected = plain_distance(train[:, :size].contiguous(), test[:, :size].contiguous())
        torch.testing.assert_close(distances, expected, rtol=2e-5, atol=1e-6)
        own = fit_factor(train[:, :size].flatten(2))
        assert gaussian.factor is not None
        assert own.factor is not None
        torch.testing.assert_close(gaussian.factor[:, :size, :size], own.factor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("images", [2, 7, 8, 11, 12, 30])
def test_the_form_that_is_kept_is_the_smaller_one(images: int) -> None:
    rows = features(images, 12, 2, 2).flatten(2)
    kept, factor, low_rank = (
        sum(part.numel() for part in (fitted.factor, fitted.rows) if part is not None)
        for fitted in (fit_cheapest(rows), fit_factor(rows), fit_low_rank(rows))
    )
    assert kept == min(factor, low_rank)


@pytest.mark.parametrize("batch", [1, 5])
def test_distance_equals_anomalibs(batch: int) -> None:
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator

    mean, inverse = fit_gaussian(features(30, 16, 6, 5).flatten(2))
    embedding = features(batch, 16, 6, 5, seed=1)
    expected = AnomalyMapGenerator.compute_distance(embedding, [mean, inverse])
    ours = distance(embedding, Gaussian(mean, inverse=inverse))
    assert ours.shape == (batch, 1, 6, 5)
    torch.testing.assert_close(ours, expected, rtol=2e-5, atol=1e-5)
    torch.testing.assert_close(
        distance(embedding, Gaussian(mean, inverse=inverse), memory_budget=1), ours, rtol=1e-5, atol=1e-5
    )


@pytest.mark.row("4.5")
def test_distance_is_that_of_numpy() -> None:
    import numpy as np

    rows = features(20, 4, 2, 3)
    embedding = features(2, 4, 2, 3, seed=2)
    at = rows[:, :, 1, 2].double().numpy()  # (N, C)
    covariance = np.cov(at, rowvar=False) + (0.01 + 1e-5) * np.eye(4)
    delta = embedding[1, :, 1, 2].double().numpy() - at.mean(0)
    expected = np.sqrt(delta @ np.linalg.inv(covariance) @ delta)
    for fit in (fit_factor, fit_low_rank, summed):
        assert distance(embedding, fit(rows.flatten(2)))[1, 0, 1, 2].item() == pytest.approx(expected, rel=1e-5)


def test_features_too_large_for_the_regularisation_fall_back_to_plain(caplog: pytest.LogCaptureFixture) -> None:
    rows = features(4, 30, 2, 2) * 1e5
    gaussian = fit_cheapest(rows.flatten(2))
    if gaussian.form == "inverse":
        assert "inverted by LU" in caplog.text
    assert bool(torch.isfinite(distance(rows, gaussian)).all())
    _, inverse = fit_gaussian(rows.flatten(2))
    assert bool(torch.isfinite(inverse).all())
    assert "inverted by LU" in caplog.text


def test_the_threads_of_a_fit_keep_inference_mode_and_raise() -> None:
    from defectlab.kernels.linalg import over_chunks

    rows = features(9, 4, 16, 16).flatten(2)
    with torch.inference_mode():
        assert fit_factor(rows).mean.is_inference()

    def work(part: slice) -> None:
        raise ValueError(f"slice {part.start}")

    with pytest.raises(ValueError, match="slice 0"):
        over_chunks(work, 10, 2, torch.device("cpu"))


@pytest.mark.parametrize("fit", [fit_gaussian, fit_factor, fit_low_rank, fit_cheapest, summed])
def test_one_image_and_nan_are_refused(fit: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(InputError, match="at least 2"):
        fit(torch.zeros(1, 3, 4))
    with pytest.raises(InputError, match="NaN"):
        fit(torch.full((3, 3, 4), torch.nan))


def test_another_size_and_other_prefixes_are_refused() -> None:
    rows = features(5, 3, 2, 2).flatten(2)
    gaussian = fit_factor(rows)
    with pytest.raises(InputError, match="2 x 3"):
        distance(torch.zeros(1, 3, 2, 3), gaussian)
    with pytest.raises(InputError, match="1 to 3"):
        prefix_distances(torch.zeros(1, 3, 2, 2), gaussian, [4])
    with pytest.raises(InputError, match="fit_factor"):
        prefix_distances(torch.zeros(1, 3, 2, 2), fit_low_rank(rows), [2])
    sums = GaussianSums()
    sums.add(rows)
    with pytest.raises(InputError, match="3 at 4"):
        sums.add(rows[:, :2])


@pytest.mark.parametrize("shift", [0.0, 20.0])
def test_sums_recovered_from_a_factor_take_more_images(shift: float):
    rows = features(60, 12, 3, 4).flatten(2) + shift
    sums = GaussianSums.of(fit_factor(rows[:50]), 50)
    sums.add(rows[50:])
    assert sums.count == 60
    queries = features(5, 12, 3, 4, seed=1) + shift
    found, expected = distance(queries, sums.fit()), distance(queries, fit_factor(rows))
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)
    with pytest.raises(ValueError, match="factor form, got low_rank"):
        GaussianSums.of(fit_low_rank(rows[:4]), 4)
