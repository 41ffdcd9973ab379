"""The plain float32 module on the CPU that a user's network is, out of wrappers, lower precisions and devices."""

import copy
import logging

import torch
from torch import nn

from defectlab_runtime.errors import OptionError

logger = logging.getLogger(__name__)


def plain_module(module: nn.Module) -> nn.Module:
    """Return a copy of a network as it is used here: float32 on the CPU, without DataParallel or torch.compile.

    Each change is logged. Lightning moves the copy to the device of a training.

    Raises:
        OptionError: A scripted or traced module, or one without values (on the meta device).
    """
    inner = _unwrapped(module)
    scripted = next(
        (name or "it" for name, part in inner.named_modules() if isinstance(part, torch.jit.ScriptModule)), ""
    )
    if scripted:
        raise OptionError(
            f"The backbone is scripted ({scripted} is a {torch.jit.ScriptModule.__name__}): its layers cannot be read "
            "by name. Give the nn.Module that it was scripted or traced from."
        )
    tensors = {**dict(inner.named_parameters()), **dict(inner.named_buffers())}
    empty = next((name for name, tensor in tensors.items() if tensor.is_meta), None)
    if empty:
        raise OptionError(
            f"The backbone has no values: {empty} is on the meta device. Build it on the CPU, with weights."
        )
    found = copy.deepcopy(inner)
    kinds = sorted({str(value.dtype) for value in tensors.values() if value.is_floating_point()} - {"torch.float32"})
    if kinds:
        logger.warning(
            "The backbone's tensors are %s: cast to float32 (for half precision on a GPU: precision='float16')",
            ", ".join(kinds),
        )
        found = found.float()
    devices = sorted({str(value.device) for value in tensors.values()} - {"cpu"})
    if devices:
        logger.info("The backbone is on %s: copied to the CPU; the engine chooses the device", ", ".join(devices))
        found = found.to("cpu")
    return found


def _unwrapped(module: nn.Module) -> nn.Module:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    inner = module.module if isinstance(module, wrappers) else getattr(module, "_orig_mod", module)
    if inner is module:
        return module
    logger.info("The backbone is taken out of its %s", type(module).__name__)
    return _unwrapped(inner)
