"""Other image models of anomalib by name, through the same engine and records.

Their code is anomalib's own. Here it is built without any download: where it would fetch a pretrained network, the
local backbone's tensors are filled in. What anomalib's model does with a batch it does here.
"""

import functools
import importlib
import inspect
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, ClassVar
from unittest import mock

import anomalib.models
import timm
import torch
import torchvision
from anomalib.models.components.feature_extractors.timm import TimmFeatureExtractor
from torch import nn
from torchvision.transforms.v2 import Compose

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.registry import head_prefixes
from defectlab.backbones.token_networks import own_resampling
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.models.base import BaseDetector
from defectlab.models.model_info import ModelInfo
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, layers_where_none_given, takes_shared_arguments
from defectlab.utils import paths
from defectlab.utils.seeds import seeded
from defectlab.utils.validation import check_flags, check_option_names
from defectlab_runtime.errors import OptionError, unknown_name
from defectlab_runtime.imagenet import IMAGENET_MEAN, IMAGENET_STD

logger = logging.getLogger(__name__)

_MeanStd = tuple[tuple[float, ...], tuple[float, ...]]

_SHARED = [field.name for field in fields(SharedArguments)]


class AnomalibDetector(BaseDetector):
    """Mixin before one of anomalib's classes, with anomalib's options for the model and those of every model."""

    tiled_by: ClassVar[str | None] = None  # what each does with a batch of tiles is not known
    info: ClassVar[ModelInfo]
    plain: ClassVar[Any]  # anomalib's class

    @takes_shared_arguments
    def __init__(
        self,
        backbone: str | nn.Module | None = None,
        pre_trained: bool = True,
        shared: SharedArguments = DEFAULTS,
        **own: Any,
    ) -> None:
        signature = inspect.signature(self.plain.__init__).parameters
        elsewhere = {"self", "pre_trained", *self.info.backbone_options, *_SHARED, *_OF_SIZE.get(self.info.name, {})}
        known = [*(name for name in signature if name not in elsewhere), *_SHARED]
        check_option_names(own, [*known, *(["backbone"] if self.info.backbone else [])], type(self).__name__)
        check_flags(type(self).__name__, own, signature)
        network = None
        own_arguments = own
        if self.info.backbone is not None:
            network = self.resolve_backbone(backbone or self.info.backbone, pre_trained, shared.seed)
            name = _name_for_anomalib(self.info.name, network.spec.architecture)
            if not own.keys() & {"layer", "layers"}:
                own |= _usual_layers(type(self).__name__, network, signature)
            own_arguments = own | dict.fromkeys(self.info.backbone_options, name)
        elif backbone is not None:
            raise OptionError(f"{type(self).__name__} has no backbone: leave it out.")
        if "anomaly_source_path" in own:
            own_arguments = own_arguments | {"anomaly_source_path": _folder(own["anomaly_source_path"])}
        initialise = functools.partial(_initialise, self, network, shared.seed, own_arguments)
        self.set_up(initialise, options=own, backbone=network, shared=shared)

    def usual_preprocessing(self, backbone: Backbone | None) -> Preprocessing:
        """Return size, crop and interpolation of anomalib's own pre-processor for this model.

        anomalib always normalises by ImageNet's mean and std; images get those that the backbone was trained with.
        """
        transform = self.plain.configure_pre_processor().transform
        # L2BT first pads to a square with the colours of the edge: its images are stretched, or `keep_aspect` pads.
        kept = [part for part in getattr(transform, "transforms", [transform]) if type(part).__name__ != "SquarePad"]
        usual = Preprocessing.from_transform(Compose(kept))
        usual = Preprocessing(usual.size, usual.crop, mean=usual.mean, std=usual.std, interpolation=usual.interpolation)
        if backbone is None:
            return usual
        own = super().usual_preprocessing(backbone)
        if (own.mean, own.std) != (usual.mean, usual.std):
            logger.info("%s: mean %s and std %s of %s, where anomalib has %s and %s",
                        self.name, own.mean, own.std, backbone.spec.name, usual.mean, usual.std)  # fmt: skip
        return replace(usual, mean=own.mean, std=own.std)

    def check_training(self, datamodule: Any) -> None:
        """Check, before long work, layers, and that textures that were asked for are there; a trained model needs none.

        Raises:
            OptionError: An unknown layer, which anomalib would leave out; there is no such folder.
        """
        super().check_training(datamodule)
        self._check_layers()
        textures = self.options.get("anomaly_source_path")
        if textures is not None and _folder(textures) is None:
            raise OptionError(
                f"{self.name}: there is no folder {paths.resolve(textures)} (anomaly_source_path) with textures."
            )

    def _check_layers(self) -> None:
        for extractor in self.model.modules():
            if isinstance(extractor, TimmFeatureExtractor) and isinstance(extractor.backbone, str):
                asked = self.options.get("layers") or [self.options.get("layer")]
                for layer in asked:
                    if isinstance(layer, str) and layer not in extractor.layers:
                        network: Any = timm.create_model(extractor.backbone, features_only=True)
                        known = network.feature_info.module_name()
                        raise OptionError(f"{self.name}: {unknown_name('layer', layer, known)}")

    def on_train_start(self) -> None:
        """Discard an earlier fit, so that a second `fit` uses only the data of the second training."""
        super().on_train_start()
        if hasattr(self, "_is_fitted"):
            self._is_fitted = torch.tensor([False], device=self.device)
        if self.model_name == "super_add":  # it deletes the one and fills the other in place
            self.model.embedding_store = defaultdict(list)
            self.model.memory_bank = torch.empty(0, device=self.device)


# Models whose networks are built for a size of images, and what anomalib calls it: a side of a square, or both.
_OF_SIZE: dict[str, dict[str, Callable[[tuple[int, int]], Any]]] = {
    "foundad": {"image_size": lambda size: size[0]},
    "glass": {"input_shape": lambda size: size},
}
_SQUARE = ("foundad", "general_ad")


def _usual_layers(owner: str, backbone: Backbone, signature: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Return anomalib's default `layers` or `layer`, a ResNet's, as those of a backbone that calls them otherwise."""
    if "layer" in signature:
        usual = layers_where_none_given(owner, backbone, [signature["layer"].default])
        return {} if usual[0] == signature["layer"].default else {"layer": usual[0]}
    default = signature["layers"].default if "layers" in signature else ()
    if default is None:  # GLASS's
        default = ("layer2", "layer3")
    if not all(isinstance(layer, str) for layer in default):
        return {}
    usual = layers_where_none_given(owner, backbone, default)
    return {} if usual == tuple(default) else {"layers": list(usual)}


def _initialise(model: Any, backbone: Backbone | None, seed: int, own: dict[str, Any], **components: Any) -> None:
    size = components["pre_processor"].preprocessing.input_size
    if model.model_name in _SQUARE and size[0] != size[1]:
        raise OptionError(f"{type(model).__name__} takes square images only, not {size[0]} x {size[1]}: image_size.")
    own = own | {key: of(size) for key, of in _OF_SIZE.get(model.model_name, {}).items()}
    with (
        seeded(seed, f"{model.model_name} networks"),
        _no_downloads(backbone, anywhere=not model.info.backbone_options),
    ):
        try:
            model.plain.__init__(model, **own, **components)
        except OptionError:
            raise
        except (ValueError, KeyError, AssertionError) as error:
            raise OptionError(f"{type(model).__name__}: {error}") from error
    if model.model_name == "foundad":
        _renormalise_augmentations(model, components["pre_processor"].preprocessing)
    if model.model_name in ("dinomaly", "inp_former"):
        _check_fusion(type(model).__name__, model.model)


def _renormalise_augmentations(model: Any, preprocessing: Preprocessing) -> None:
    """Give FoundAD's augmentations, which take images for normalised by ImageNet's mean and std, such images."""
    if (preprocessing.mean, preprocessing.std) == (IMAGENET_MEAN, IMAGENET_STD):
        return
    to_imagenet = _Renormalize((preprocessing.mean, preprocessing.std), (IMAGENET_MEAN, IMAGENET_STD))
    back = _Renormalize((IMAGENET_MEAN, IMAGENET_STD), (preprocessing.mean, preprocessing.std))
    for name in ("cutpaste", "few_shot_augment"):
        if (augment := getattr(model, name)) is not None:
            setattr(model, name, Compose([to_imagenet, augment, back]))


class _Renormalize:
    """Bring images (B, 3, H, W) from one mean and std to another."""

    def __init__(self, before: _MeanStd, after: _MeanStd) -> None:
        mean, std, new_mean, new_std = (torch.tensor(values).view(3, 1, 1) for values in (*before, *after))
        self._scale, self._shift = std / new_std, (mean - new_mean) / new_std

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images * self._scale.to(images) + self._shift.to(images)


def _check_fusion(name: str, network: Any) -> None:
    """Check that the blocks that Dinomaly or INP-Former fuse are there, which else its first batch shows.

    Raises:
        OptionError: With the option and what it needs.
    """
    for option, count, fused in (
        ("target_layers", len(network.target_layers), "fuse_layer_encoder"),
        ("decoder_depth", len(network.decoder), "fuse_layer_decoder"),
    ):
        groups = getattr(network, fused, None)
        if groups is None:
            raise OptionError(f"{name}: anomalib's code loses {fused} where it is given: leave it out.")
        needed = 1 + max(index for group in groups for index in group)
        if count < needed:
            raise OptionError(f"{name}: {option} gives {count} blocks, and {fused} names {needed}: give {needed}.")


def _name_for_anomalib(model: str, architecture: str) -> str:
    """Return what anomalib's model calls an architecture of timm.

    Raises:
        OptionError: The model takes others only.
    """
    if model != "foundad":
        return architecture
    from anomalib.models.image.foundad.components.encoder_loader import TIMM_MODEL_NAMES

    names = {timm_name.partition(".")[0]: name for name, timm_name in TIMM_MODEL_NAMES.items()}
    if architecture not in names:
        raise OptionError(f"FoundAD: {unknown_name('backbone', architecture, names)}")
    return names[architecture]


def _folder(path: Any) -> str | None:
    """Return the folder of GLASS's textures, or None if it is not there: anomalib would download them into it."""
    folder = None if path is None else paths.resolve(path)
    return str(folder) if folder is not None and folder.is_dir() else None


@functools.cache
def anomalib_class(info: ModelInfo) -> type[AnomalibDetector]:
    """Return the class of one of anomalib's other models, created on first use."""
    plain = getattr(anomalib.models, info.class_name)
    doc = f"anomalib's {info.class_name}: {info.summary}."
    body = {"model_name": info.name, "info": info, "plain": plain, "__doc__": doc}
    made: type[AnomalibDetector] = type(info.class_name, (AnomalibDetector, plain), body)
    return made


@contextmanager
def _no_downloads(backbone: Backbone | None, *, anywhere: bool = False) -> Iterator[None]:
    """Prevent downloads inside the block: pretrained timm and torchvision networks get the backbone's tensors.

    `anywhere`: the backbone's architecture takes the place of any that is asked for.
    """
    create = timm.create_model

    def local(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        name = backbone.spec.architecture if anywhere and pretrained and backbone is not None else name
        network = create(name, pretrained=False, **options)
        if pretrained:
            _fill(network, backbone, name)
        return network

    def state_dict(*_args: Any, **_kwargs: Any) -> Any:
        assert backbone is not None
        return backbone.network.state_dict()

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (timm, "create_model", local),
        (torchvision.models._api, "load_state_dict_from_url", state_dict),
    ]
    with mock.patch.object(*replaced[0]), mock.patch.object(*replaced[1]):
        yield


def _fill(network: nn.Module, backbone: Backbone | None, name: str) -> None:
    """Copy the backbone's tensors into a network of the same architecture, or a part of it.

    A transformer for images of another size gets its position embeddings resampled as timm does with a download.
    """
    given = {} if backbone is None else dict(backbone.network.state_dict())
    wanted = network.state_dict()
    key = "pos_embed"
    if key in wanted and key in given and given[key].shape != wanted[key].shape:
        convert: Any = getattr(importlib.import_module(type(network).__module__), "checkpoint_filter_fn", dict)
        with own_resampling():
            given = dict(convert(given, network))
    unfilled = frozenset() if backbone is None else backbone.unfilled
    head = head_prefixes(network)
    lacking = [
        key for key, value in wanted.items()
        if key not in given or given[key].shape != value.shape or key in unfilled
    ]  # fmt: skip
    needed = [key for key in lacking if not key.startswith(head)]
    if needed:
        raise OptionError(
            f"The backbone given cannot fill {name}: {len(needed)} tensors are not in it ({', '.join(needed[:3])}). "
            "Take a backbone with this architecture's own names and all of its layers."
        )
    network.load_state_dict({key: value if key in lacking else given[key] for key, value in wanted.items()})
