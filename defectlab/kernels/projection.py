"""Sparse random projection, drawn from a single given random generator."""

import math

import torch

from defectlab_runtime.errors import OptionError


def projected_size(n_samples: int, eps: float = 0.9) -> int:
    """Return how many components keep all distances of `n_samples` rows within a factor 1 +- `eps`.

    Johnson-Lindenstrauss bound of Dasgupta and Gupta (2003), rounded down as anomalib and scikit-learn do.

    >>> projected_size(214_016)
    303
    """
    if not 0 < eps < 1:
        raise OptionError(f"projection: eps must be a number in (0, 1), got {eps!r}.")
    if n_samples < 1:
        raise OptionError(f"projection: n_samples must be at least 1, got {n_samples!r}.")
    return int(4 * math.log(n_samples) / (eps**2 / 2 - eps**3 / 3))


def sparse_projection(n_samples: int, n_features: int, *, eps: float = 0.9, generator: torch.Generator) -> torch.Tensor:
    """Draw a very sparse random projection (Li, Hastie, Church, KDD 2006) for rows of `n_features` numbers.

    Returns a dense float32 matrix (d', D) on the generator's device, to be used as `rows @ matrix.T`; d' is
    `projected_size(n_samples, eps)`. Each entry is 0, or with probability 1/sqrt(D) one of +-D**0.25 / sqrt(d').
    anomalib draws the count of a row's entries from a binomial and then their places without replacement, which
    is the same distribution as the independent draws made here; the numbers themselves differ.
    """
    if n_features < 1:
        raise OptionError(f"projection: n_features must be at least 1, got {n_features!r}.")
    size = projected_size(n_samples, eps)
    shape = (size, n_features)
    density = n_features**-0.5
    device = generator.device
    kept = torch.rand(shape, generator=generator, device=device) < density
    signs = torch.randint(0, 2, shape, generator=generator, device=device) * 2 - 1
    scale = (1 / density) ** 0.5 / max(size, 1) ** 0.5
    return (kept * signs).float() * scale
