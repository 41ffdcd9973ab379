"""The fitted Gaussians of PaDiM as a module that saves and loads any form of covariance."""

from typing import Any

import torch
from torch import nn

from defectlab.kernels.gaussian.fit import Gaussian

BUFFERS = {"mean": "mean", "inverse": "inv_covariance", "factor": "factor", "rows": "rows"}  # field: state-dict key


class PositionGaussians(nn.Module):
    """One Gaussian per position. `mean` and `inv_covariance` are anomalib's keys; the latter is empty in other forms.

    `defectlab convert --to anomalib` writes a checkpoint with anomalib's form alone.
    """

    mean: torch.Tensor
    inv_covariance: torch.Tensor
    factor: torch.Tensor
    rows: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in BUFFERS.values():
            self.register_buffer(name, torch.empty(0))

    def set(self, gaussian: Gaussian) -> None:
        """Set fitted Gaussians as the statistics of this module."""
        for field, name in BUFFERS.items():
            value = getattr(gaussian, field)
            setattr(self, name, gaussian.mean.new_empty(0) if value is None else value)

    @property
    def value(self) -> Gaussian:
        """The fitted Gaussians whose tensors this module holds."""
        return Gaussian(
            self.mean,
            factor=self.factor if self.factor.numel() else None,
            rows=self.rows if self.rows.numel() else None,
            inverse=self.inv_covariance if self.inv_covariance.numel() else None,
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Give the buffers the shapes of the loaded tensors; keys missing for a form of covariance become empty."""
        for name in BUFFERS.values():
            given = state_dict.setdefault(prefix + name, torch.empty(0))
            setattr(self, name, torch.empty(given.shape, dtype=given.dtype, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def in_anomalibs_form(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Return a state dict with the Gaussians under `prefix` converted to anomalib's `mean` and `inv_covariance`."""
    found = PositionGaussians()
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    found.load_state_dict(own)
    rest = {key: value for key, value in state.items() if not key.startswith(prefix)}
    return rest | {f"{prefix}mean": found.mean, f"{prefix}inv_covariance": found.value.to_inverse()}
