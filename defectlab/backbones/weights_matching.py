"""Comparison of a state dict with architectures: whether it fits one, and which one it resembles if not."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from defectlab.backbones.registry import REGISTRY, BackboneSpec, build, head_prefixes
from defectlab_runtime.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

# Common architectures by a tensor of their first layer: name and shape. Compared only when a file is refused or has no
# name. Building all of them takes ten seconds and more, so only those of a tensor that the file has are built: eight at
# most, small builds first, as the search ends at the first exact fit.
_STEMS: dict[tuple[str, tuple[int, ...]], tuple[tuple[str, str], ...]] = {
    ("conv1.weight", (64, 3, 7, 7)): (
        *(("torchvision", name) for name in ("resnet18", "resnet50", "wide_resnet50_2", "resnet34", "resnet101")),
        *(("torchvision", name) for name in ("resnet152", "wide_resnet101_2", "resnext50_32x4d")),
    ),
    ("conv1.0.weight", (32, 3, 3, 3)): (("timm", "resnet50d"), ("timm", "resnet26d"), ("timm", "resnet34d")),
    ("stem.conv1.conv.weight", (64, 3, 7, 7)): (("timm", "cspresnet50"),),
    ("stem.conv1.conv.weight", (32, 3, 3, 3)): (("timm", "cspdarknet53"),),
    ("features.0.weight", (64, 3, 3, 3)): (("torchvision", "vgg16"),),
    ("features.conv0.weight", (64, 3, 7, 7)): (("torchvision", "densenet121"),),
    ("features.0.0.weight", (96, 3, 4, 4)): (("torchvision", "convnext_tiny"),),
    ("stem.0.weight", (96, 3, 4, 4)): (("timm", "convnext_tiny"),),
    ("features.0.0.weight", (16, 3, 3, 3)): (("torchvision", "mobilenet_v3_large"),),
    ("conv_stem.weight", (16, 3, 3, 3)): (("timm", "mobilenetv3_large_100"),),
    ("features.0.0.weight", (32, 3, 3, 3)): (
        *(("torchvision", name) for name in ("mobilenet_v2", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2")),
    ),
    ("features.0.0.weight", (40, 3, 3, 3)): (("torchvision", "efficientnet_b3"),),
    ("features.0.0.weight", (48, 3, 3, 3)): (("torchvision", "efficientnet_b5"), ("torchvision", "efficientnet_b4")),
    ("features.0.0.weight", (56, 3, 3, 3)): (("torchvision", "efficientnet_b6"),),
    ("features.0.0.weight", (64, 3, 3, 3)): (("torchvision", "efficientnet_b7"),),
    ("conv_stem.weight", (32, 3, 3, 3)): (
        *(("timm", "mobilenetv2_100"), ("timm", "tf_efficientnet_b0"), ("timm", "tf_efficientnet_b1")),
        ("timm", "tf_efficientnet_b2"),
        *(("timm", f"tf_efficientnet_lite{number}") for number in (0, 2)),
    ),
    ("conv_stem.weight", (40, 3, 3, 3)): (("timm", "tf_efficientnet_b3"),),
    ("conv_stem.weight", (48, 3, 3, 3)): (("timm", "tf_efficientnet_b4"), ("timm", "tf_efficientnet_b5")),
    ("conv_stem.weight", (56, 3, 3, 3)): (("timm", "tf_efficientnet_b6"),),
    ("conv_stem.weight", (64, 3, 3, 3)): (("timm", "tf_efficientnet_b7"),),
    ("blocks.0.attn.qkv.weight", (1152, 384)): (("timm", "vit_small_patch16_224"),),
    ("blocks.0.attn.qkv.weight", (2304, 768)): (("timm", "vit_base_patch16_224"),),
    ("patch_embed.proj.weight", (96, 3, 4, 4)): (("timm", "swin_tiny_patch4_window7_224"),),
}


@dataclass(frozen=True)
class Match:
    """Match of a state dict with one architecture. Keys of the classifier are never `unexpected` or `reshaped`."""

    spec: BackboneSpec
    usable: frozenset[str]
    missing: frozenset[str]  # of the architecture, the classifier included
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    complete_layers: tuple[str, ...]
    dropped_head: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the file was made for this architecture (a file that holds only its first layers was)."""
        enough = bool(self.complete_layers) if self.spec.layers else len(self.usable) >= len(self.missing)
        return not self.unexpected and not self.reshaped and enough


@functools.lru_cache(maxsize=64)
def shapes_of(library: str, architecture: str) -> tuple[Shapes, tuple[str, ...]]:
    """Return the shape of each key of an architecture's state dict, and the key prefixes of its classifier."""
    network = build(BackboneSpec(architecture, library, architecture, ()), device="meta")
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}, head_prefixes(network)


def match(state: "Mapping[str, Tensor]", spec: BackboneSpec) -> Match:
    """Compare a state dict with an architecture, key by key."""
    shapes, head = shapes_of(spec.library, spec.architecture)
    given = {key: tuple(value.shape) for key, value in state.items()}
    usable = frozenset(key for key, shape in given.items() if shapes.get(key) == shape)
    missing = frozenset(key for key in shapes if key not in usable and not key.endswith("num_batches_tracked"))
    others = [key for key in given if key not in usable]
    body = [key for key in others if not key.startswith(head)] if head else others
    return Match(
        spec=spec,
        usable=usable,
        missing=missing,
        unexpected=tuple(key for key in body if key not in shapes),
        reshaped=tuple(f"{key} {given[key]} instead of {shapes[key]}" for key in body if key in shapes),
        complete_layers=tuple(layer for layer in spec.layers if _complete(layer, shapes, missing)),
        dropped_head=tuple(key for key in others if key not in body),
    )


def _complete(layer: str, shapes: Shapes, missing: frozenset[str]) -> bool:
    keys = [key for key in shapes if key.startswith(f"{layer}.")]
    return bool(keys) and not any(key in missing for key in keys)


def best_match(state: "Mapping[str, Tensor]", specs: Iterable[BackboneSpec], where: str) -> Match:
    """Return the match of `state` with the first of `specs` that it fits.

    Raises:
        WeightsError: It fits none; names the keys and the architecture it looks like.

    """
    matches = [match(state, spec) for spec in specs]
    for found in matches:
        if found.fits:
            return found
    raise WeightsError(_refusal(max(matches, key=lambda m: len(m.usable)), state, where))


def _refusal(found: Match, state: "Mapping[str, Tensor]", where: str) -> str:
    lines = [f"{where} does not fit {found.spec.name} ({found.spec.library} {found.spec.architecture})."]
    for title, keys in (("Unexpected keys", found.unexpected), ("Wrong shapes", found.reshaped)):
        if keys:
            lines.append(f"{title}: {_some(keys)}")
    if not found.unexpected and not found.reshaped:
        lines.append(
            f"Too few tensors: {len(found.usable)} fit; no layer is complete. Missing: {_some(sorted(found.missing))}"
        )
    alike = looks_like(state)
    if alike:
        names = " or ".join(f"{spec.architecture} ({spec.library})" for spec in alike)
        if alike[0].library == "timm" or alike[0].architecture in REGISTRY:
            fix = f'load_backbone("{alike[0].name}", ...)'
        else:
            fix = f"torchvision.models.{alike[0].architecture}() with load_state_dict, and pass backbone=module"
        lines.append(f"It looks like {names}: use {fix}.")
    else:
        lines.append(
            "It looks like no architecture that DefectLab compares with; pass your own module: backbone=module."
        )
    return "\n".join(lines)


def _some(keys: Iterable[str], count: int = 5) -> str:
    keys = list(keys)
    more = f" and {len(keys) - count} more" if len(keys) > count else ""
    return ", ".join(keys[:count]) + more


def looks_like(state: "Mapping[str, Tensor]") -> list[BackboneSpec]:
    """Return the best covered of the common architectures that contain at least 90 % of the file's tensors.

    Only those whose first layer the file has are built, so that an odd file is answered at once.
    """
    scored: list[tuple[float, BackboneSpec]] = []
    for spec in _candidates(state):
        shapes, head = shapes_of(spec.library, spec.architecture)
        body = {k: tuple(v.shape) for k, v in state.items() if not (head and k.startswith(head))}
        needed = [k for k in shapes if not (head and k.startswith(head)) and not k.endswith("num_batches_tracked")]
        common = sum(shapes.get(key) == shape for key, shape in body.items())
        if body and common >= 0.9 * len(body):
            scored.append((sum(body.get(key) == shapes[key] for key in needed) / len(needed), spec))
            if scored[-1][0] == 1.0 and common == len(body):
                break
    best = max((score for score, _ in scored), default=0.0)
    return [spec for score, spec in scored if score == best and score > 0.1]


def _candidates(state: "Mapping[str, Tensor]") -> Iterable[BackboneSpec]:
    """Yield the architectures that have a tensor of this name and shape in their first layer."""
    for (key, shape), architectures in _STEMS.items():
        if key in state and tuple(state[key].shape) == shape:
            for library, architecture in architectures:
                registered = REGISTRY.get(architecture)
                known = registered is not None and registered.library == library
                yield registered if known and registered else BackboneSpec(architecture, library, architecture, ())
