"""Names of an EfficientNet-Lite's tensors: from those of the code it was published with to timm's."""

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

_MARK = "_conv_stem.weight"
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# timm counts the layers of a block without an expansion, the network's first, from one again.
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_EXPANDING_BLOCK = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
}


def with_timm_names(state: "dict[str, Tensor]", where: str) -> "dict[str, Tensor]":
    """Return a state dict under timm's names if it has those of `efficientnet_pytorch`, else as it is.

    There the blocks are numbered through; timm numbers stages, and blocks within a stage. A stage ends where the
    number of output channels changes, as it does between any two stages of an EfficientNet. What has a name that an
    EfficientNet-Lite does not have (squeeze and excitation) leaves the state dict as it is.
    """
    if _MARK not in state:
        return state
    stages = _stages(state)
    renamed = {}
    for key, tensor in state.items():
        new = _timm_name(key, stages, state)
        if new is None:
            logger.debug("%s: '%s' is of no EfficientNet-Lite, names left as they are", where, key)
            return state
        renamed[new] = tensor
    logger.info("%s: %d tensors renamed from efficientnet_pytorch's names to timm's", where, len(renamed))
    return renamed


def _stages(state: "Mapping[str, Tensor]") -> dict[int, str]:
    """Return timm's `stage.block` for each block's number."""
    stages: dict[int, str] = {}
    stage, within, before = -1, 0, None
    number = 0
    while (projection := state.get(f"_blocks.{number}._project_conv.weight")) is not None:
        channels = int(projection.shape[0])
        stage, within = (stage, within + 1) if channels == before else (stage + 1, 0)
        stages[number] = f"{stage}.{within}"
        before = channels
        number += 1
    return stages


def _timm_name(key: str, stages: Mapping[int, str], state: "Mapping[str, Tensor]") -> str | None:
    block = _BLOCK.fullmatch(key)
    if block is None:
        part, _, kind = key.partition(".")
        return f"{_OUTER[part]}.{kind}" if part in _OUTER else None
    number = int(block[1])
    names = _EXPANDING_BLOCK if f"_blocks.{number}._expand_conv.weight" in state else _FIRST_BLOCK
    if number not in stages or block[2] not in names:
        return None
    return f"blocks.{stages[number]}.{names[block[2]]}.{block[3]}"
