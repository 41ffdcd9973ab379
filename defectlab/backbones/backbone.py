"""A network together with its specification, the origin of its weights and the tensors without weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from defectlab.backbones.registry import BackboneSpec
from defectlab.backbones.weights import WeightsInfo
from defectlab_runtime.errors import WeightsError


class Backbone(nn.Module):
    """A frozen network in eval mode that carries its specification, its weights' origin and its unfilled tensors.

    `unfilled` are keys of the network's state dict that no file has filled (zeros stand there): a `FeatureExtractor`
    refuses a layer that depends on one. `train()` has no effect.
    """

    def __init__(
        self, network: nn.Module, spec: BackboneSpec, weights: WeightsInfo, unfilled: frozenset[str] = frozenset()
    ) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.weights = weights
        self.unfilled = unfilled
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Backbone":
        """Return the module in eval mode, whatever `mode` says."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's own output for (B, 3, H, W); refused while tensors are unfilled."""
        if self.unfilled:
            raise WeightsError(
                f"{self.spec.name} cannot run to its end: {len(self.unfilled)} tensors are not in "
                f"{self.weights.source} ({', '.join(sorted(self.unfilled)[:3])}). Take layers with FeatureExtractor."
            )
        with torch.no_grad():
            output: Tensor = self.network(images)
        return output

    def extra_repr(self) -> str:
        """Return the backbone's name and the source of its weights, for printing."""
        return f"{self.spec.name}, weights={self.weights.source}"


def weights_sha256(module: nn.Module) -> str:
    """Return a hex sha256 over the tensors of a module: names, types, shapes and bytes, in the order of the names.

    Two modules with equal tensors under equal names have equal hashes, on any device.
    """
    return tensors_sha256((module.network if isinstance(module, Backbone) else module).state_dict())


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the same hex sha256 as `weights_sha256`, computed from a state dict."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # reshape: a 0-d tensor cannot be viewed as bytes; any shape -> (N,)
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
