"""Tiny exported files, written by hand: the map is the mean of the colours, the score its largest value."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from defectlab_runtime.description import KEY, Description, RunFacts
from defectlab_runtime.geometry import crop_padding
from defectlab_runtime.preprocessing import PreprocessingSettings


def description(settings: PreprocessingSettings | None = None, **changes: Any) -> Description:
    """Return the description of a model of 32 x 32 pixels with both thresholds at 0.5."""
    facts: dict[str, Any] = {
        "defectlab": "0.1.0",
        "run": RunFacts("id", "name", "Patchcore", "parts", "hash"),
        "model": "patchcore",
        "preprocessing": (settings or PreprocessingSettings(size=(32, 32))).to_dict(),
        "image_threshold": 0.5,
        "pixel_threshold": 0.5,
        "score_range": (0.0, 1.0),
        "map_range": (0.0, 1.0),
        "relative_maps": False,
        "has_maps": True,
    }
    return Description(**facts | changes)


def onnx_file(path: Path, about: Description | str | None, *, batch: int | str = "batch", maps: bool = True) -> Path:
    """Write an ONNX file with this description, or text, of its model, or with none."""
    settings = PreprocessingSettings(size=(32, 32))
    if isinstance(about, Description):
        settings = PreprocessingSettings.from_dict(about.preprocessing)
        maps = about.has_maps
    height, width = settings.whole_size
    (top, bottom), (left, right) = crop_padding(settings.whole_size, settings.crop or settings.whole_size)
    numbers = {"starts": [top, left], "ends": [height - bottom, width - right], "axes": [2, 3]}
    numbers |= {"channel": [1], "all": [1, 2, 3]}
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends", "axes"], ["seen"]),
        helper.make_node("ReduceMean", ["seen", "channel"], ["map"], keepdims=1),
        helper.make_node("ReduceMax", ["map", "all"], ["score"], keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, [batch])]
    if maps:
        outputs.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, [batch, 1, *settings.map_size]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, height, width])],
        outputs,
        [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if about is not None:
        helper.set_model_props(model, {KEY: about if isinstance(about, str) else about.to_json()})
    onnx.save(model, path)
    return path
