"""Exact recognition of a plain torch module's architecture, so that a checkpoint can rebuild the module."""

import logging
from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from defectlab.backbones.backbone import Backbone, weights_sha256
from defectlab.backbones.plain_module import plain_module
from defectlab.backbones.registry import REGISTRY, BackboneSpec, build, head_prefixes, with_timm_cfg
from defectlab.backbones.weights import WeightsInfo

logger = logging.getLogger(__name__)


def recognise(module: nn.Module) -> BackboneSpec | None:
    """Return the specification that rebuilds `module` (its classifier aside), or None.

    A module is recognised if it is of torchvision's or timm's own class and its every part, from class and settings
    (epsilon, stride, padding) to keys and shapes, equals that of the architecture built anew.
    """
    for spec in _candidates(module):
        if _same(module, build(spec, device="meta")):
            return spec
    return None


def as_backbone(module: nn.Module) -> Backbone:
    """Return `module` as a `Backbone`: itself if it is one, else a frozen copy with the specification of its kind.

    It is float32 on the CPU, out of its wrappers (`plain_module`). A module of unknown code gets
    `spec.library == "unknown"`: it works, but no checkpoint can rebuild it.
    """
    if isinstance(module, Backbone):
        return module
    module = plain_module(module)
    kind = type(module).__name__
    spec = recognise(module)
    if spec is None:
        spec = BackboneSpec(type(module).__qualname__, "unknown", f"{type(module).__module__}.{kind}", ())
        logger.warning(
            "%s is no architecture that can be rebuilt by name: reloading a checkpoint will need backbone=module; "
            "mean %s, std %s (ImageNet's)",
            spec.architecture,
            spec.mean,
            spec.std,
        )
    else:
        logger.info(
            "%s recognised as %s %s; mean %s, std %s (its defaults)",
            kind,
            spec.library,
            spec.architecture,
            spec.mean,
            spec.std,
        )
    return Backbone(module, spec, WeightsInfo(f"module {kind}", None, weights_sha256(module), "module"))


def _candidates(module: nn.Module) -> Iterable[BackboneSpec]:
    home = type(module).__module__
    if home.startswith("timm.models."):
        cfg = getattr(module, "pretrained_cfg", None)
        architecture = cfg.get("architecture") if isinstance(cfg, dict) else None
        if isinstance(cfg, dict) and architecture:
            from timm import is_model

            if is_model(architecture):
                yield with_timm_cfg(_named("timm", architecture, module), cfg)
    elif home.startswith("torchvision.models."):
        from torchvision.models import list_models

        registered = [spec.architecture for spec in REGISTRY.values() if spec.library == "torchvision"]
        for architecture in dict.fromkeys([*registered, *list_models()]):
            if _builder_home(architecture) == home:
                yield _named("torchvision", architecture, module)


def _builder_home(architecture: str) -> str:
    from torchvision.models import get_model_builder

    return str(get_model_builder(architecture).__module__)


def _named(library: str, architecture: str, module: nn.Module) -> BackboneSpec:
    registered = REGISTRY.get(architecture)
    if registered is not None and (registered.library, registered.architecture) == (library, architecture):
        return registered
    if library == "timm":
        layers = tuple(str(info["module"]) for info in getattr(module, "feature_info", None) or [])
    else:
        from defectlab.backbones.tracing import TracedGraph

        layers = tuple(TracedGraph(module).main_layers())
    return replace(BackboneSpec(architecture, library, architecture, ()), layers=layers)


def _same(module: nn.Module, rebuilt: nn.Module) -> bool:
    head = head_prefixes(rebuilt)
    return _shapes(module, head) == _shapes(rebuilt, head) and _modules(module, head) == _modules(rebuilt, head)


def _shapes(module: nn.Module, head: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(v.shape) for key, v in module.state_dict().items() if not (head and key.startswith(head))}


def _modules(module: nn.Module, head: tuple[str, ...]) -> list[tuple[str, type, str, bool]]:
    """Return name, class, settings and whether it was altered (own forward, hooks) of each non-classifier module."""
    found = []
    for name, child in module.named_modules():
        if head and f"{name}.".startswith(head):
            continue
        # An own `forward` or a hook changes what is computed without any trace in the structure.
        altered = "forward" in vars(child) or bool(child._forward_hooks) or bool(child._forward_pre_hooks)
        found.append((name, type(child), child.extra_repr(), altered))
    return found
