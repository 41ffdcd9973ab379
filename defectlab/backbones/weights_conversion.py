"""Weights files with their authors' own keys (DINOv2, DINOv3, CLIP, BEiT), converted by timm to its networks' keys."""

import contextlib
import importlib
import io
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from defectlab.backbones.registry import BackboneSpec, build
from defectlab.backbones.token_networks import own_resampling
from defectlab.backbones.weights_matching import Match, best_match, match
from defectlab_runtime.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

_PATCHES = ("patch_embed.proj.weight", "visual.conv1.weight", "visual.trunk.patch_embed.proj.weight")


def fitting_weights(
    state: "Mapping[str, Tensor]", specs: Sequence[BackboneSpec], where: str
) -> "tuple[dict[str, Tensor], Match]":
    """Return the state dict in the keys of the first of `specs` that it fits, and its match.

    A file with its authors' keys goes through the function by which timm converts its own downloads. timm would also
    resample patches of another size, which makes another network of it: such a file is refused.

    Raises:
        WeightsError: It fits none; names the keys and the architecture it looks like.
    """
    try:
        return dict(state), best_match(state, specs, where)
    except WeightsError:
        for spec in specs:
            converted = _converted(state, spec)
            if converted is not None and (found := match(converted, spec)).fits:
                logger.info("%s has its authors' keys: converted as timm does for %s", where, spec.architecture)
                return converted, found
        raise


def _converted(state: "Mapping[str, Tensor]", spec: BackboneSpec) -> "dict[str, Tensor] | None":
    if spec.library != "timm":
        return None
    network = build(spec, device="meta")
    convert = getattr(importlib.import_module(type(network).__module__), "checkpoint_filter_fn", None)
    own = network.state_dict().get(_PATCHES[0])
    patches = next((state[key] for key in _PATCHES if key in state), None)
    if convert is None or own is None or patches is None or patches.shape != own.shape:
        return None
    try:
        with own_resampling(), contextlib.redirect_stdout(io.StringIO()):  # timm prints keys that it looks for in vain
            return dict(convert(dict(state), network))
    except Exception as error:  # a file of another kind: timm's conversions fail in as many ways as there are files
        logger.debug("timm cannot convert it for %s: %s", spec.architecture, error)
        return None
