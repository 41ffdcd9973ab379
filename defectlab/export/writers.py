"""Writing of a graph as a file of each format, with the description inside."""

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from defectlab.export.graph import ExportGraph
from defectlab_runtime.description import KEY, Description
from defectlab_runtime.errors import InputError

EXAMPLE_BATCH = 2  # a graph traced with one image would be taken for one that only takes one
PROTOBUF_LIMIT = 2 * 10**9  # bytes that one ONNX file can hold
TORCH_FILE = f"{KEY}.json"


def write_onnx(graph: ExportGraph, path: Path, description: Description) -> None:
    """Write one ONNX file: weights inside, batches of any size, float32.

    Raises:
        InputError: The model is larger than one ONNX file can be.
    """
    size = graph_bytes(graph)
    if size > PROTOBUF_LIMIT:
        raise InputError(
            f"The model holds {size / 1e9:.1f} GB, and one ONNX file at most {PROTOBUF_LIMIT / 1e9:.0f} GB. Export it "
            "as openvino, or train it with a smaller coreset_sampling_ratio or fewer features."
        )
    import onnx

    model = onnx_model(graph)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, description.to_json()
    onnx.save_model(model, str(path))


def onnx_model(graph: ExportGraph) -> Any:
    """Return the graph as an `onnx.ModelProto` with a dynamic batch."""
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            graph, (example(graph),), dynamo=True, dynamic_shapes=_dynamic(), input_names=["images"],
            output_names=["score", "map"][: len(graph(example(graph)))], verbose=False, optimize=True,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        node.name = f"{_scope(node)}/{node.name}"
    return model


def _scope(node: Any) -> str:
    """Return the path of the module that a node comes from, such as `network.scores`; empty where it is not known."""
    found = [entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"]
    scopes = ast.literal_eval(found[0]) if found else []  # of modules from the outermost on, the operation's own last
    return scopes[-2] if len(scopes) > 1 else ""


def write_openvino(graph: ExportGraph, path: Path, description: Description) -> None:
    """Write an OpenVINO pair, `path` (.xml) and the weights beside it (.bin), float32, batches of any size."""
    import openvino

    if graph_bytes(graph) <= PROTOBUF_LIMIT:  # the same operations, and names of nodes, as the ONNX file's
        model = openvino.Core().read_model(onnx_model(graph).SerializeToString())
    else:
        with _silence(), torch.no_grad():
            program = torch.export.export(graph, (example(graph),), dynamic_shapes=_dynamic())
            model = openvino.convert_model(program)
        model.inputs[0].get_tensor().set_names({"images"})
        for output, name in zip(model.outputs, ("score", "map"), strict=False):
            output.get_tensor().set_names({name})
    model.set_rt_info(description.to_json(), [KEY])
    openvino.save_model(model, str(path), compress_to_fp16=False)


def write_torch(graph: ExportGraph, path: Path, description: Description) -> None:
    """Write `torch.export`'s file."""
    with _silence(), torch.no_grad():
        program = torch.export.export(graph, (example(graph),), dynamic_shapes=_dynamic())
        torch.export.save(program, path, extra_files={TORCH_FILE: description.to_json()})


def write_torchscript(graph: ExportGraph, path: Path, description: Description) -> None:
    """Write a TorchScript file by tracing."""
    with _silence(), torch.no_grad():
        traced = torch.jit.trace(graph, (example(graph),), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={TORCH_FILE: description.to_json()})


WRITERS: dict[str, Callable[[ExportGraph, Path, Description], None]] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch": write_torch,
    "torchscript": write_torchscript,
}


def example(graph: ExportGraph) -> torch.Tensor:
    """Return images (2, 3, H, W) by which the graph is traced; noise, so that no branch of equal values is taken."""
    random = np.random.default_rng(0)
    return torch.from_numpy(random.random((EXAMPLE_BATCH, 3, *graph.whole_size), dtype=np.float32))


def graph_bytes(graph: ExportGraph) -> int:
    """Return the bytes of all weights and constants of a graph, each counted once."""
    tensors = {tensor.data_ptr(): tensor for tensor in (*graph.parameters(), *graph.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def _dynamic() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1)},)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporters' progress and warnings, which say nothing to a user, off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "torch")]
    levels = [one.level for one in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for one in loggers:
            one.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)
