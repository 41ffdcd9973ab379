"""Loading of a named backbone from a local weights file, without downloads and without substitutes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from defectlab.backbones import weights_manifest
from defectlab.backbones.backbone import Backbone, tensors_sha256, weights_sha256
from defectlab.backbones.registry import (
    PRECISIONS,
    SHARED_NAMES,
    BackboneSpec,
    build,
    get_spec,
    head_prefixes,
    variants,
    warn_of_shared_name,
)
from defectlab.backbones.state_dicts import read_weights, unwrap
from defectlab.backbones.weights import WeightsInfo, check_on_record, find_weights
from defectlab.backbones.weights_conversion import fitting_weights
from defectlab.backbones.weights_matching import Match
from defectlab.utils.logs import show_log
from defectlab_runtime.errors import OptionError, unknown_name

logger = logging.getLogger(__name__)

RANDOM = "random"


def load_backbone(
    name: str,
    weights: str | Path | Mapping[str, Any] | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 42,
    precision: str = "float32",
    verify: bool = True,
) -> Backbone:
    """Return the backbone `name` with weights from a local file.

    `weights` is a file (a path from the working directory or the project root, or a name in `weights/` or
    `DEFECTLAB_WEIGHTS`), a state dict, or ``"random"``; None searches those folders for a file of this backbone.
    Mean and std come from the argument, the manifest's entry of this very file, or the architecture's default.
    `precision` "bfloat16" or "float16" runs the network under torch.autocast: faster on GPUs and on CPUs that multiply
    such numbers. Scores change by a per cent or so, more than what tells good models apart (benchmarks/README.md). It
    is on record with the run. `verify=False` does not compare a file with the hash on record and the checksums in it.

    Raises:
        OptionError: Unknown name or precision, or a mean / std that is not three numbers.
        WeightsError: No file, a damaged one, or one for another architecture.

    """
    show_log()
    if precision not in PRECISIONS:
        raise OptionError(f"load_backbone: {unknown_name('precision', str(precision), PRECISIONS)}")
    spec = get_spec(name)
    if isinstance(weights, str) and weights == RANDOM:
        return _random(_with_overrides(spec, mean, std, precision), seed)
    if isinstance(weights, Mapping):
        state = unwrap(weights, "The given state dict")
        info = WeightsInfo("a state dict", None, tensors_sha256(state), "module")
        state, found = fitting_weights(state, variants(name), "The given state dict")
        return _load_into(state, found, _with_overrides(found.spec, mean, std, precision), info)
    if weights is not None and not isinstance(weights, str | Path):
        raise OptionError(
            f"weights must be a file, a state dict, 'random' or None, got {type(weights).__name__}. "
            "A module needs no load_backbone: pass it as backbone=module."
        )
    path = find_weights(name, weights)
    state = read_verified_weights(path, verify=verify)
    state, found = fitting_weights(state, _variants_of_file(name, path), str(path))
    info = WeightsInfo(path.name if weights is None else str(weights), path, weights_manifest.file_sha256(path), "file")
    spec = _with_overrides(_with_entry(found.spec, path, info.sha256), mean, std, precision)
    if spec.architecture != get_spec(name).architecture:
        logger.info(
            "%s holds %s keys: built as %s %s with its own batch-norm epsilon and padding, layers %s",
            path.name,
            spec.library,
            spec.library,
            spec.architecture,
            ", ".join(spec.layers),
        )
    return _load_into(state, found, spec, info)


def _variants_of_file(name: str, path: Path) -> tuple[BackboneSpec, ...]:
    """Return `variants(name)`, or timm's own network of this name for a file that was imported for that one."""
    tagged = SHARED_NAMES.get(name)
    entry, _ = weights_manifest.entry_of_file(path, weights_manifest.file_sha256(path)) if tagged else (None, "")
    if tagged is None or entry is None or entry.architecture != name:
        return variants(name)
    return (replace(get_spec(tagged), name=name),)


def read_verified_weights(path: Path, *, verify: bool = True) -> dict[str, Tensor]:
    """Return the state dict of a weights file that has the hash on record for it, where there is one.

    Raises:
        WeightsError: Another content than is on record, or see `read_weights`.
    """
    if verify:
        check_on_record(path)
    return read_weights(path, verify=verify)


def _random(spec: BackboneSpec, seed: int) -> Backbone:
    logger.warning("%s has RANDOM weights (seed %d), as asked for: features mean little", spec.name, seed)
    network = build(spec, seed=seed)
    return Backbone(network, spec, WeightsInfo(f"random(seed={seed})", None, weights_sha256(network), "random"))


def _with_entry(spec: BackboneSpec, path: Path, sha256: str) -> BackboneSpec:
    """Return `spec` with the preprocessing of the file's manifest entry."""
    entry, how = weights_manifest.entry_of_file(path, sha256)
    if entry is None:
        reason = f"default of {spec.library} {spec.architecture}"
        log = logger.warning if how.startswith("named like") else logger.info
        log("%s is %s; mean %s, std %s (%s)", path.name, how, spec.mean, spec.std, reason)
        warn_of_shared_name(spec, path.name)
        return spec
    spec = replace(
        spec,
        mean=entry.mean or spec.mean,
        std=entry.std or spec.std,
        input_size=entry.input_size or spec.input_size,
        interpolation=entry.interpolation or spec.interpolation,
    )
    logger.info("%s is %s (recognised by %s); mean %s, std %s", path.name, entry.name, how, spec.mean, spec.std)
    return spec


def _with_overrides(
    spec: BackboneSpec, mean: Sequence[float] | None, std: Sequence[float] | None, precision: str
) -> BackboneSpec:
    if precision != "float32":
        logger.info("%s runs in %s: its features are rounded, scores differ a little", spec.name, precision)
        spec = replace(spec, precision=precision)
    for which, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        numbers = tuple(float(value) for value in values)
        if len(numbers) != 3 or (which == "std" and min(numbers) <= 0):
            raise OptionError(
                f"{which} must be three {'positive ' if which == 'std' else ''}numbers (RGB), got {values!r}."
            )
        spec = replace(spec, mean=numbers) if which == "mean" else replace(spec, std=numbers)
        logger.info("%s: %s %s as given", spec.name, which, numbers)
    return spec


def _load_into(state: dict[str, Tensor], found: Match, spec: BackboneSpec, info: WeightsInfo) -> Backbone:
    network = _empty_network(spec)
    zeros = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in network.state_dict().items() if k not in found.usable}
    network.load_state_dict({key: state[key] for key in found.usable} | zeros, strict=True, assign=True)
    head = head_prefixes(network)
    body = sorted(key for key in found.missing if not key.startswith(head))
    if body:
        # a file that was never meant to have its last layers is no surprise
        log = logger.debug if set(spec.layers) <= set(found.complete_layers) else logger.warning
        log(
            "%s lacks %d tensors of %s (%s ...): layers that depend on them are refused; complete: %s",
            info.source,
            len(body),
            spec.name,
            ", ".join(body[:3]),
            ", ".join(found.complete_layers),
        )
    if found.dropped_head:
        logger.info("%s: the classifier (%s) is left out", info.source, ", ".join(found.dropped_head[:3]))
    logger.info("%s: %d tensors from %s, sha256 %s", spec.name, len(found.usable), info.source, info.sha256[:12])
    return Backbone(network, spec, info, found.missing)


def _empty_network(spec: BackboneSpec) -> nn.Module:
    """Build the network that weights are loaded into, on the meta device (without memory) where possible.

    Drawing random weights only to overwrite them takes a second for EfficientNet-B7; but a buffer that is no part of
    the state dict has a value computed at construction, which only a true build gives.
    """
    network = build(spec, device="meta")
    stored = set(network.state_dict())
    return network if all(name in stored for name, _ in network.named_buffers()) else build(spec)
