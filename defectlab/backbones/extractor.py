"""Extraction of features of named layers, with only the part of the network that these layers need."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.layouts import is_channels_last
from defectlab.backbones.plain_module import plain_module
from defectlab.backbones.registry import head_prefixes
from defectlab.backbones.token_networks import TokenLayers, fitting_sizes, patch_size, token_layers
from defectlab.backbones.tracing import TracedGraph
from defectlab_runtime.errors import OptionError, WeightsError, unknown_name

logger = logging.getLogger(__name__)


class FeatureExtractor(nn.Module):
    """Maps images (B, 3, H, W) to {layer: (B, C, h, w)} in the order in which `layers` were given.

    Holds its own frozen copy of the needed part of the network as `feature_extractor`, under the network's own keys
    (for ResNets those of anomalib's `TimmFeatureExtractor`). Always in eval mode, never with gradients. A layer is a
    module (`layer2`, `features.3`) or any other node of the graph; a network that torch.fx cannot trace is kept whole
    and read through hooks. The blocks of a timm transformer (`blocks.8`, and `norm`: the last one after the final norm)
    are read by its own `forward_intermediates` (`token_networks`). Layers joined by `+` (`blocks.5+blocks.8`) are one
    layer: their average. A layer that gives channels last (`is_channels_last`) is permuted. A backbone of lower
    precision runs under torch.autocast and gives float32 features.

    Raises:
        OptionError: No layer, one twice, an unknown one, one that gives several maps or no map, an average of maps of
            different shapes, or one of which it cannot be known where its channels are.
        WeightsError: A layer that depends on a tensor that the weights file did not fill.

    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        *,
        main_layers: Sequence[str] = (),
        unfilled: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        size = (256, 256)
        self.precision = "float32"
        if isinstance(network, Backbone):
            self.precision = network.spec.precision
            main_layers = main_layers or network.spec.layers
            unfilled = unfilled or network.unfilled
            network = network.network
        network = plain_module(network)
        cfg = getattr(network, "pretrained_cfg", None)
        if isinstance(cfg, dict) and cfg.get("fixed_input_size"):
            size = (int(cfg["input_size"][1]), int(cfg["input_size"][2]))
        if patch_size(network) is not None:
            size = fitting_sizes(network, size)[0]
            main_layers = token_layers(network)
        self.main_layers = tuple(main_layers)
        self.layers = _checked(layers)
        self.single_layers = list(dict.fromkeys(part for layer in self.layers for part in _parts(layer)))
        self.hooked = False
        self.token_layers = TokenLayers.of(network, self.single_layers)
        if self.token_layers is not None:
            self.token_layers.prune(network)
            _refuse_unfilled(self.single_layers[-1], sorted(unfilled & set(network.state_dict())))
            self.feature_extractor = network
        else:
            self.feature_extractor = self._traced(network, tuple(main_layers), unfilled)
        self.requires_grad_(False)
        self.train(False)
        self.channels_last: frozenset[str] = frozenset()
        if self.token_layers is None:
            self.channels_last = self._channels_last(size, getattr(network, "output_fmt", None))
        shapes = self.feature_shapes(size)
        self.out_dims: list[int] = [shape[0] for shape in shapes.values()]

    def _traced(self, network: nn.Module, main_layers: tuple[str, ...], unfilled: frozenset[str]) -> nn.Module:
        try:
            traced = TracedGraph(network)
        except Exception as error:  # tracing fails in as many ways as there are networks
            logger.info("%s cannot be traced (%s): read through hooks, kept whole", type(network).__name__, error)
            _check_hooked(network, self.single_layers, unfilled)
            self.hooked = True
            return network
        return _pruned(traced, self.single_layers, main_layers, unfilled)

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Return the module in eval mode, whatever `mode` says."""
        return super().train(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return {layer: (B, C, h, w)} for images (B, 3, H, W), layers in the user's order."""
        # Shapes are computed on the meta device, which knows no autocast.
        with torch.no_grad():
            if self.precision == "float32" or images.device.type == "meta":
                return self.read(images)
            with torch.autocast(images.device.type, dtype=getattr(torch, self.precision)):
                features = self.read(images)
            return {layer: feature.float() for layer, feature in features.items()}

    def _channels_last(self, size: tuple[int, int], output_fmt: Any) -> frozenset[str]:
        """Return the layers whose output is (B, h, w, C), told by how their shapes follow the size of the images."""
        shapes = self.feature_shapes(size)
        other = (2 * size[0], 3 * size[1])
        try:
            others = self.feature_shapes(other)
        except OptionError as error:  # a network for one size only
            logger.debug("Layouts by one size: %s", error)
            others = shapes
        last = frozenset(
            layer for layer, shape in shapes.items() if is_channels_last(layer, shape, others[layer], output_fmt)
        )
        if last:
            logger.info("Channels last, (B, h, w, C), and permuted: %s", ", ".join(sorted(last)))
        return last

    def read(self, images: Tensor) -> dict[str, Tensor]:
        """Return {layer: (B, C, h, w)} for images (B, 3, H, W), with gradients of tensors that require them."""
        if self.token_layers is not None:
            found = self.token_layers.read(self.feature_extractor, images)
        else:
            found = self._through_hooks(images) if self.hooked else self.feature_extractor(images)
        features = {layer: _average(layer, [found[part] for part in _parts(layer)]) for layer in self.layers}
        # (B, h, w, C) -> (B, C, h, w)
        return {
            layer: feature.permute(0, 3, 1, 2).contiguous() if layer in self.channels_last else feature
            for layer, feature in features.items()
        }

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Checkpoints from when Swin was traced hold its attention masks, which it computes itself.
        traced = f"{prefix}feature_extractor._tensor_constant"
        for key in [key for key in state_dict if self.token_layers and key.startswith(traced)]:
            del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _through_hooks(self, images: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def store(layer: str) -> Callable[..., None]:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                if layer in found:
                    raise OptionError(f"Layer '{layer}' runs several times on one image: take another layer.")
                # A copy: a later in-place operation of unknown code must not change what was read.
                found[layer] = output.clone() if torch.is_tensor(output) else output

            return hook

        # Hooks live for one call, so that the module can be copied and pickled.
        handles = [self.feature_extractor.get_submodule(n).register_forward_hook(store(n)) for n in self.single_layers]
        try:
            self.feature_extractor(images)
        finally:
            for handle in handles:
                handle.remove()
        missed = [layer for layer in self.single_layers if layer not in found]
        if missed:
            raise OptionError(f"{type(self.feature_extractor).__name__} does not run its layers {', '.join(missed)}.")
        return found

    def feature_shapes(self, image_size: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
        """Return {layer: (C, h, w)} for images of (height, width), computed without touching any values.

        Raises:
            OptionError: The network cannot take this size, or a layer's output is not (B, C, h, w).

        """
        outputs = self._dry_run(image_size)
        for layer, output in outputs.items():
            if not torch.is_tensor(output) or output.ndim != 4:
                shape = tuple(output.shape) if torch.is_tensor(output) else type(output).__name__
                raise OptionError(
                    f"Layer '{layer}' gives {shape}, not a feature map (B, C, h, w). Take another layer"
                    f"{': ' if self.main_layers else ''}{', '.join(self.main_layers)}."
                )
        return {layer: (out.shape[1], out.shape[2], out.shape[3]) for layer, out in outputs.items()}

    def _dry_run(self, image_size: tuple[int, int]) -> dict[str, Tensor]:
        held = dict(self.named_parameters()) | dict(self.named_buffers())
        like = next((value for value in held.values() if value.is_floating_point()), torch.empty(0))
        images = torch.zeros(1, 3, *image_size, device="meta", dtype=like.dtype)
        try:
            shapes_only = {key: value.to("meta") for key, value in held.items()}
            result = torch.func.functional_call(self, shapes_only, (images,))
        except OptionError:
            raise
        except Exception as error:  # operations without a meta kernel, tensors that are not registered
            logger.debug("Shapes by a real run on %s: %s", like.device, error)
            try:
                result = self(torch.zeros_like(images, device=like.device))
            except Exception as real:
                raise OptionError(
                    f"The backbone cannot take images of {image_size[0]} x {image_size[1]}: {real}"
                ) from real
        outputs: dict[str, Tensor] = result
        return outputs


def _checked(layers: Sequence[str]) -> list[str]:
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise OptionError("layers is empty: name at least one, for example layers=['layer2', 'layer3'].")
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise OptionError(f"layers must be names, got {wrong[0]!r}.")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise OptionError(f"layers names {', '.join(doubled)} twice: each layer once.")
    return names


def _parts(layer: str) -> list[str]:
    return [part.strip() for part in layer.split("+")]


def _average(layer: str, maps: list[Tensor]) -> Tensor:
    """Return the mean of maps (B, C, h, w) of one shape."""
    if len(maps) == 1:
        return maps[0]
    shapes = [tuple(one.shape[1:]) for one in maps]
    if len(set(shapes)) > 1:
        raise OptionError(
            f"Layer '{layer}' is an average, and its maps differ in shape ({', '.join(map(str, shapes))}): average "
            "layers of one shape, or give them as a list of layers, which joins them."
        )
    return torch.stack(maps).mean(dim=0)


def _pruned(traced: TracedGraph, layers: list[str], main: tuple[str, ...], unfilled: frozenset[str]) -> nn.Module:
    nodes = {layer: node for layer in layers if (node := traced.find(layer)) is not None}
    for layer in layers:
        if layer not in nodes:
            raise OptionError(unknown_name("layer", layer, main or traced.main_layers()))
    for layer in layers:
        results = traced.results(layer)
        if len(results) > 1:
            raise OptionError(
                f"Layer '{layer}' gives {len(results)} results that the network goes on with: take one of "
                f"{', '.join(results)}."
            )
    for layer, node in nodes.items():
        _refuse_unfilled(layer, sorted(traced.needed_tensors(node) & unfilled), main)
    return traced.pruned({layer: nodes[layer] for layer in layers})


def _check_hooked(network: nn.Module, layers: list[str], unfilled: frozenset[str]) -> None:
    names = {name for name, _ in network.named_modules() if name}
    for layer in layers:
        if layer not in names:
            raise OptionError(unknown_name("layer", layer, [name for name, _ in network.named_children()]))
        # What a layer depends on is unknown without a graph: any unfilled tensor but the classifier's counts.
        _refuse_unfilled(layer, sorted(key for key in unfilled if not key.startswith(head_prefixes(network))))


def _refuse_unfilled(layer: str, keys: list[str], main: tuple[str, ...] = ()) -> None:
    if keys:
        beyond = bool(main) and layer.partition(".")[0] not in main
        trained = f" This backbone is trained up to {main[-1]} only: take {', '.join(main)}." if beyond else ""
        raise WeightsError(
            f"Layer '{layer}' needs {len(keys)} tensors that the weights file does not hold: {', '.join(keys[:5])}"
            f"{' ...' if len(keys) > 5 else ''}."
            f"{trained or ' Take earlier layers, or a file with the whole network.'}"
        )
