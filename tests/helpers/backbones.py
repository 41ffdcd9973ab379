"""What the tests of backbones compute with."""

import torch
from torch import nn


def shaken(network: nn.Module) -> nn.Module:
    """Give every tensor seeded values, so that a tensor left out or mixed up shows in the features."""
    generator = torch.Generator().manual_seed(7)
    for key, tensor in network.state_dict().items():
        if key.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif key.endswith("running_mean"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.copy_(1 + 0.1 * torch.randn(tensor.shape, generator=generator))
    return network.eval()


def images(size: int = 64, count: int = 2) -> torch.Tensor:
    """Seeded images (count, 3, size, size)."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))
