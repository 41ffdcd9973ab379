"""Exported torch files as graphs of the runtime; ONNX and OpenVINO files run in `defectlab_runtime.graphs`."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from defectlab.export.writers import TORCH_FILE
from defectlab_runtime.errors import InputError
from defectlab_runtime.graphs import Graph, Outputs


class TorchGraph(Graph):
    """A file of `torch.export` (.pt2) or TorchScript (.pt), opened on the CPU.

    Raises:
        InputError: The file is damaged or was not exported by DefectLab.
    """

    def __init__(self, path: Path) -> None:
        held = {TORCH_FILE: ""}
        try:
            if path.suffix == ".pt2":
                self._module = torch.export.load(path, extra_files=held).module()
            else:
                self._module = torch.jit.load(str(path), map_location="cpu", _extra_files=held)
        except (RuntimeError, OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f"{path} cannot be opened: {str(error).splitlines()[0]}. Export the run again.") from error
        self.text = held[TORCH_FILE] or None
        if self.text is None:
            raise InputError(f"{path} has no description: it was not exported by DefectLab.")

    @torch.inference_mode()
    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Return scores (B,) and maps (B, h, w); None for a graph without maps."""
        found = self._module(torch.from_numpy(images))
        return found[0].numpy(), found[1][:, 0].numpy() if len(found) > 1 else None
