"""Upsampling and blur as one linear map against anomalib's map generators."""

import pytest
import torch

from defectlab.kernels.maps import smooth_upsample
from defectlab_runtime.errors import InputError, OptionError


def scores(height: int, width: int, batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(0)) * 30


SIZES = [((32, 32), (256, 256)), ((28, 20), (224, 161)), ((7, 9), (17, 50)), ((64, 64), (64, 64)), ((50, 50), (30, 40))]


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("sigma", [4, 1.5])
def test_equals_anomalib(mode: str, source: tuple[int, int], target: tuple[int, int], sigma: float) -> None:
    from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator as Padim
    from anomalib.models.image.patchcore.anomaly_map import AnomalyMapGenerator as Patchcore

    patch_scores = scores(*source)
    generator = Padim(sigma=sigma) if mode == "bilinear" else Patchcore(sigma=sigma)
    if mode == "bilinear":
        upsampled = generator.up_sample(patch_scores, target)
    else:
        upsampled = torch.nn.functional.interpolate(patch_scores, size=target)
    ours = smooth_upsample(patch_scores, target, sigma=sigma, mode=mode)
    assert ours.shape == (3, 1, *target)
    # In float32 plain adds up to 1089 products one by one and is itself off by some 3e-6: ours must be nearer than
    # that to its own blur run in float64.
    torch.testing.assert_close(ours, generator.blur(upsampled), rtol=5e-6, atol=0)
    torch.testing.assert_close(ours.double(), generator.double().blur(upsampled.double()), rtol=1e-6, atol=0)


def test_constant_stays_constant_and_one_patch_fills_the_map() -> None:
    torch.testing.assert_close(
        smooth_upsample(torch.full((1, 1, 1, 1), 5.0), (40, 30)), torch.full((1, 1, 40, 30), 5.0)
    )


def test_too_small_for_the_border_is_refused_as_by_anomalib() -> None:
    from anomalib.models.image.patchcore.anomaly_map import AnomalyMapGenerator

    with pytest.raises(RuntimeError, match=r"[Pp]adding"):
        AnomalyMapGenerator(sigma=4)(scores(4, 4), (16, 40))
    with pytest.raises(InputError, match="at least 17"):
        smooth_upsample(scores(4, 4), (16, 40))


def test_bad_options_are_refused() -> None:
    with pytest.raises(OptionError, match="sigma"):
        smooth_upsample(scores(4, 4), (40, 40), sigma=0)
    with pytest.raises(OptionError, match="mode"):
        smooth_upsample(scores(4, 4), (40, 40), mode="cubic")


def test_matrices_made_under_inference_mode_serve_training_too() -> None:
    with torch.inference_mode():
        smooth_upsample(scores(5, 6), (33, 34))
    leaf = scores(5, 6).requires_grad_()
    smooth_upsample(leaf, (33, 34)).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.sum().item() == pytest.approx(3 * 33 * 34, rel=1e-4)
