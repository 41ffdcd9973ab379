"""Exported graphs, opened by the library that runs them: ONNX Runtime or OpenVINO."""

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectlab_runtime.description import KEY
from defectlab_runtime.errors import DescriptionError, InputError, unknown_name

logger = logging.getLogger("defectlab.runtime")  # one logger, "defectlab", for runtime and toolkit

DEVICES = ("auto", "cpu", "cuda")
Outputs = tuple[NDArray[np.float32], NDArray[np.float32] | None]
Shape = tuple[int | None, ...]  # None is a dynamic side


class Graph(ABC):
    """An exported graph: `images` (B, 3, H, W) float32 in [0, 1] -> `score` (B,) and `map` (B, 1, h, w), both raw."""

    text: str | None  # of the description that the file carries
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]

    @abstractmethod
    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Return scores (B,) and maps (B, h, w); None for a graph without maps."""


class OnnxGraph(Graph):
    """A graph of an ONNX file in ONNX Runtime."""

    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; they are raised too
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = _providers(device)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's own classes, which it does not make public
            raise _unusable(path, "ONNX", error) from error
        self.text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self.inputs = {one.name: _shape(one.shape) for one in self._session.get_inputs()}
        self.outputs = {one.name: _shape(one.shape) for one in self._session.get_outputs()}

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Return scores (B,) and maps (B, h, w); None for a graph without maps."""
        names = list(self.outputs)
        found = dict(zip(names, self._session.run(names, {"images": images}), strict=True))
        return _outputs(found["score"], found.get("map"))


class OpenVinoGraph(Graph):
    """A graph of OpenVINO's pair of files. It computes in float32, whatever this processor would like better."""

    def __init__(self, path: Path, device: str, threads: int | None) -> None:
        try:
            import openvino
        except ImportError:
            raise InputError(
                f"{path} is OpenVINO's: install it with pip install 'defectlab-runtime[openvino]', or export ONNX."
            ) from None
        if device == "cuda":
            raise InputError("OpenVINO does not run on CUDA: give auto or cpu, or export ONNX.")
        if not path.with_suffix(".bin").is_file():
            raise InputError(f"{path.with_suffix('.bin')} is missing: an OpenVINO model is the pair of .xml and .bin.")
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            model = core.read_model(path)
            self.text = str(model.get_rt_info(KEY).value) if model.has_rt_info(KEY) else None
            self._model = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise _unusable(path, "OpenVINO", error) from error
        self.inputs = {one.any_name: _partial_shape(one) for one in model.inputs}
        self.outputs = {one.any_name: _partial_shape(one) for one in model.outputs}

    def run(self, images: NDArray[np.float32]) -> Outputs:
        """Return scores (B,) and maps (B, h, w); None for a graph without maps."""
        found = self._model({"images": images})
        return _outputs(found["score"], found["map"] if "map" in self.outputs else None)


GRAPHS = {".onnx": OnnxGraph, ".xml": OpenVinoGraph}


def open_graph(path: Path, device: str = "auto", threads: int | None = None) -> Graph:
    """Open an exported file by its ending and check that it is one of DefectLab.

    Args:
        path: An .onnx file, or the .xml of an OpenVINO pair.
        device: One of `DEVICES`; "auto" takes a GPU where ONNX Runtime is built for it.
        threads: Of the arithmetic; None leaves it to the library.

    Raises:
        InputError: No such file, another ending, damaged, or a missing library.
        DescriptionError: A model that DefectLab did not export.
    """
    if device not in DEVICES:
        raise InputError(unknown_name("device", device, DEVICES))
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a whole number of at least 1, got {threads!r}.")
    if path.suffix.lower() not in GRAPHS:
        raise InputError(f"{path} is no exported file that is read here; known are {', '.join(GRAPHS)}.")
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    graph = GRAPHS[path.suffix.lower()](path, device, threads)
    if graph.text is None:
        raise DescriptionError(
            f"{path} carries no description under {KEY!r}: DefectLab did not export it, or another program wrote it "
            "anew. Export the run with `defectlab export`."
        )
    return graph


def _providers(device: str) -> list[Any]:
    import onnxruntime

    available = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not available:
        raise InputError("This ONNX Runtime has no CUDA: install onnxruntime-gpu, or give auto or cpu.")
    if device == "cpu" or not available:
        return ["CPUExecutionProvider"]
    logger.info("Detector runs on cuda")
    return [("CUDAExecutionProvider", {"use_tf32": 0}), "CPUExecutionProvider"]  # TF32 would change scores by 1e-3


def _outputs(score: NDArray[Any], anomaly_map: NDArray[Any] | None) -> Outputs:
    scores = np.asarray(score, np.float32).reshape(-1)
    if anomaly_map is None:
        return scores, None
    return scores, np.asarray(anomaly_map, np.float32).reshape(len(scores), *anomaly_map.shape[-2:])  # (B, 1, h, w)


def _shape(sides: list[Any]) -> Shape:
    return tuple(side if isinstance(side, int) else None for side in sides)


def _partial_shape(port: Any) -> Shape:
    return tuple(side.get_length() if side.is_static else None for side in port.get_partial_shape())


def _unusable(path: Path, kind: str, error: Exception) -> InputError:
    """Return the error for a file that a library cannot open, with the last line of its message."""
    reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return InputError(
        f"{path} cannot be opened as an {kind} model: {reason[0][:300].rstrip('. ')}. Export the run again."
    )
