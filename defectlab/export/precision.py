"""Files of reduced precision, made from the float32 file of the same format."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectlab.export.calibration import MAX_IMAGES
from defectlab_runtime.description import KEY, Description

SCORES_SCOPE = "network.scores"  # of nodes: distances and likelihoods stay float32 in every precision
BACKBONE_SCOPE = "backbone"

Inputs = Iterable[NDArray[np.float32]]


def reduce_precision(
    file_format: str, source: Path, target: Path, precision: str, calibration: Callable[[], Inputs], tokens: bool
) -> None:
    """Write a float32 file again in another precision; its description is copied (`stamp` replaces it).

    Args:
        file_format: "onnx" or "openvino".
        source: The float32 file.
        target: The file to write.
        precision: "float16" or "int8".
        calibration: Called for int8: the graph's inputs (1, 3, H, W) of training images.
        tokens: Whether the backbone is a transformer, whose attention NNCF treats in another way.
    """
    {"onnx": _reduce_onnx, "openvino": _reduce_openvino}[file_format](source, target, precision, calibration, tokens)


def _reduce_onnx(source: Path, target: Path, precision: str, calibration: Callable[[], Inputs], tokens: bool) -> None:
    import onnx

    model = onnx.load(str(source))
    kept = [node.name for node in model.graph.node if _stays_float(node.name, node.op_type, tokens)]
    if precision == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        reduced = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    else:
        reduced = _quantized(model, calibration(), tokens, kept)
        described = {entry.key: entry.value for entry in model.metadata_props}
        del reduced.metadata_props[:]
        onnx.helper.set_model_props(reduced, described)
    onnx.save_model(reduced, str(target))


def _reduce_openvino(
    source: Path, target: Path, precision: str, calibration: Callable[[], Inputs], tokens: bool
) -> None:
    import openvino

    model = openvino.Core().read_model(str(source))
    if precision == "float16":
        openvino.save_model(model, str(target), compress_to_fp16=True)
        return
    described = model.get_rt_info([KEY]).astype(str)
    operations = [(node.get_friendly_name(), node.get_type_name()) for node in model.get_ops()]
    kept = [name for name, kind in operations if _stays_float(name, kind, tokens)]
    reduced = _quantized(model, calibration(), tokens, kept)
    reduced.set_rt_info(described, [KEY])
    openvino.save_model(reduced, str(target), compress_to_fp16=False)


def _quantized(model: Any, inputs: Inputs, tokens: bool, ignored: list[str]) -> Any:
    import nncf

    dataset = nncf.Dataset([{"images": one} for one in inputs])
    return nncf.quantize(
        model,
        dataset,
        subset_size=MAX_IMAGES,
        model_type=nncf.ModelType.TRANSFORMER if tokens else None,
        ignored_scope=nncf.IgnoredScope(names=ignored, validate=False) if ignored else None,
    )


def _stays_float(name: str, kind: str, tokens: bool) -> bool:
    """Return whether a node computes scores or maps rather than features: products of those lose what they measure.

    In convolutional networks these are all matrix products.
    """
    return name.startswith(SCORES_SCOPE) or (kind == "MatMul" and not (tokens and BACKBONE_SCOPE in name))


def stamp(file_format: str, path: Path, description: Description) -> None:
    """Replace the description in a file of a reduced precision, in place."""
    if file_format == "onnx":
        import onnx

        model = onnx.load(str(path))
        others = {entry.key: entry.value for entry in model.metadata_props if entry.key != KEY}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {**others, KEY: description.to_json()})
        onnx.save_model(model, str(path))
        return
    import openvino

    model = openvino.Core().read_model(str(path))
    model.set_rt_info(description.to_json(), [KEY])
    copy = path.with_name(f"copy of {path.name}")  # the model's weights are mapped from the file that it replaces
    openvino.save_model(model, str(copy), compress_to_fp16=False)
    del model
    for suffix in (".xml", ".bin"):
        copy.with_suffix(suffix).replace(path.with_suffix(suffix))
