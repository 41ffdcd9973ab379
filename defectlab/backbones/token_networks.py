"""Transformers of timm as backbones: tokens to feature maps, and images of other sizes than they were trained on.

timm's own `forward_intermediates` drops the prefix tokens (class, distillation, registers) and lays the others out on
the grid of patches; channels-last maps (Swin) come out as (B, C, h, w). A network takes any multiple of its patch: one
built for a fixed size is adapted by timm's own `set_input_size`, which resamples position embeddings (bicubic,
antialiased) and tables of relative positions. The tensors of the network itself stay as its weights file has them.
"""

import copy
import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from timm.layers import Format, PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import vision_transformer
from torch import Tensor, nn

from defectlab_runtime.errors import OptionError

NORM = "norm"  # the last block's output after the network's final norm


@dataclass(frozen=True)
class TokenLayers:
    """Layers of a timm transformer, read through its `forward_intermediates`.

    `indices` maps each layer to its position among the network's intermediates; `norm` has that of the last one.
    """

    indices: dict[str, int]

    @classmethod
    def of(cls, network: nn.Module, layers: Sequence[str]) -> "TokenLayers | None":
        """Return how to read `layers` of a network; None: it is no transformer of timm, or they are inner nodes."""
        if not _is_transformer(network):
            return None
        last = len(_blocks(network)) - 1
        known = {name: min(index, last) for index, name in enumerate(token_layers(network))}
        return cls({layer: known[layer] for layer in layers}) if all(layer in known for layer in layers) else None

    def prune(self, network: Any) -> None:
        """Remove from the network, in place, all that the layers do not need: later blocks, final norm, classifier.

        A plain ViT is switched to any size of images, as timm builds it with `dynamic_img_size`.
        """
        network.prune_intermediate_layers(sorted(self._taken), prune_norm=NORM not in self.indices, prune_head=True)
        if isinstance(network, vision_transformer.VisionTransformer) and type(network.patch_embed) is PatchEmbed:
            setattr(network, "dynamic_img_size", True)  # noqa: B010 - final for TorchScript only
            network.patch_embed.strict_img_size = False
            network.patch_embed.flatten, network.patch_embed.output_fmt = False, Format.NHWC

    def read(self, network: Any, images: Tensor) -> dict[str, Tensor]:
        """Return {layer: (B, C, h, w)} for images (B, 3, H, W).

        Raises:
            OptionError: Images of a size that the network cannot take.
        """
        size = (images.shape[-2], images.shape[-1])
        check_image_size(network, size)
        taken = sorted(self._taken)
        with own_resampling():
            maps = at_size(network, size).forward_intermediates(images, indices=taken, intermediates_only=True)
        found = {}
        for layer, index in self.indices.items():
            features = maps[taken.index(index)]
            if layer == NORM:  # (B, C, h, w) -> (B, h, w, C) and back: the norm is over channels
                features = network.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()
            found[layer] = features
        return found

    @property
    def _taken(self) -> set[int]:
        return set(self.indices.values())


@contextmanager
def own_resampling() -> Iterator[None]:
    """Resample position embeddings inside the block as timm does, antialiased.

    anomalib's extractor switches antialiasing off in timm itself when it is built for a transformer, for the whole
    process: numbers would depend on what else had been built.
    """
    with mock.patch.object(vision_transformer, "resample_abs_pos_embed", resample_abs_pos_embed):
        yield


def token_layers(network: nn.Module) -> list[str]:
    """Return the layers of a timm transformer that are feature maps, in network order, its final norm last."""
    return [*_blocks(network), *([NORM] if isinstance(getattr(network, NORM, None), nn.Module) else [])]


def _blocks(network: Any) -> list[str]:
    return [str(info["module"]) for info in network.feature_info]


def _is_transformer(network: nn.Module) -> bool:
    readable = hasattr(network, "forward_intermediates") and hasattr(network, "prune_intermediate_layers")
    return readable and (hasattr(network, "num_prefix_tokens") or hasattr(network, "dynamic_img_size"))


def at_size(network: Any, size: tuple[int, int]) -> Any:
    """Return the network for images of (height, width): itself, or a copy for this size that shares its tensors."""
    patches = getattr(network, "patch_embed", None)
    if getattr(network, "dynamic_img_size", False) or getattr(patches, "img_size", size) in (size, None):
        return network
    if not hasattr(network, "set_input_size"):
        return network
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    adapted = copy.deepcopy(network, shared)
    logging.getLogger("timm.layers.pos_embed").setLevel(logging.WARNING)  # else it says so with every batch
    windows = "window_size" in inspect.signature(adapted.set_input_size).parameters
    # Swin keeps its windows, as its authors do for larger images; timm would let them grow with the image.
    adapted.set_input_size(img_size=size, **({"window_size": network._ref_window_sizes} if windows else {}))
    return adapted


def check_image_size(network: Any, size: tuple[int, int]) -> None:
    """Check that a network takes images of (height, width), as far as its patches tell.

    Raises:
        OptionError: With the nearest sizes that it takes.
    """
    fitting = fitting_sizes(network, size)
    if size not in fitting:
        sizes = " or ".join(f"{height} x {width}" for height, width in fitting)
        name = (getattr(network, "pretrained_cfg", None) or {}).get("architecture") or type(network).__name__
        raise OptionError(
            f"{name} cannot take images of {size[0]} x {size[1]}: {_rule(network)}. The nearest that fits: image_size "
            f"{sizes}."
        )


def fitting_sizes(network: Any, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the image sizes nearest to (height, width) that a network takes: `size` alone if it does itself.

    Both sides are rounded down, and both up, to multiples of the patch.
    """
    patch = patch_size(network)
    if patch is None:
        return [size]
    fixed = _only_size(network)
    if fixed is not None:
        return [fixed]
    lower, upper = (
        (max(side // step, 1) * step, -(-side // step) * step) for side, step in zip(size, patch, strict=True)
    )
    return list(dict.fromkeys(zip(lower, upper, strict=True)))


def nearest_size(network: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Return the one of `fitting_sizes` that is nearest to (height, width); the smaller of two as near."""
    return min(fitting_sizes(network, size), key=lambda fitting: abs(fitting[0] - size[0]) + abs(fitting[1] - size[1]))


def patch_size(network: nn.Module) -> tuple[int, int] | None:
    """Return height and width of the patches that a timm transformer cuts images into; None for other networks."""
    patches = getattr(network, "patch_embed", None)
    if not _is_transformer(network) or patches is None:
        return None
    feat_ratio = getattr(patches, "feat_ratio", None)
    sides: Any = feat_ratio(as_scalar=False) if feat_ratio else getattr(patches, "patch_size", None)
    return (sides, sides) if isinstance(sides, int) else sides


def _only_size(network: Any) -> tuple[int, int] | None:
    """Return the one size that a network takes; None: it takes others."""
    strict = getattr(network.patch_embed, "strict_img_size", False) and not hasattr(network, "set_input_size")
    return network.patch_embed.img_size if strict else None


def _rule(network: Any) -> str:
    if _only_size(network) is not None:
        return "it takes one size only"
    height, width = patch_size(network) or (1, 1)
    return f"sides must be multiples of its patches of {height} x {width} pixels"
