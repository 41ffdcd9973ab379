"""Other image models of anomalib by name, through the same engine and records.

Their code is anomalib's own. Here it is built without any download: where it would fetch a pretrained network, the
local backbone's tensors are filled in. What anomalib's model does with a batch it does here.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, ClassVar
from unittest import mock

import anomalib.models
import timm
import torch
import torchvision
from torch import nn

from defectlab.backbones.backbone import Backbone
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.models.base import BaseDetector
from defectlab.models.model_info import ModelInfo
from defectlab.models.shared_arguments import DEFAULTS, SharedArguments, takes_shared_arguments
from defectlab.utils.errors import OptionError
from defectlab.utils.seeds import seeded
from defectlab.utils.validation import check_flags, check_option_names

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
        elsewhere = {"self", "pre_trained", *self.info.backbone_options, *_SHARED}
        known = [*(name for name in signature if name not in elsewhere), *_SHARED]
        check_option_names(own, [*known, *(["backbone"] if self.info.backbone else [])], type(self).__name__)
        check_flags(type(self).__name__, own, signature)
        network = None
        own_arguments = own
        if self.info.backbone is not None:
            network = self.resolve_backbone(backbone or self.info.backbone, pre_trained, shared.seed)
            own_arguments = own | dict.fromkeys(self.info.backbone_options, network.spec.architecture)
        elif backbone is not None:
            raise OptionError(f"{type(self).__name__} has no backbone: leave it out.")
        initialise = functools.partial(_initialise, self, network, shared.seed, own_arguments)
        self.set_up(initialise, options=own, backbone=network, shared=shared)

    def usual_preprocessing(self, backbone: Backbone | None) -> Preprocessing:
        """Return size, crop and normalisation of anomalib's own pre-processor for this model."""
        usual = Preprocessing.from_transform(self.plain.configure_pre_processor().transform)
        return Preprocessing(usual.size, usual.crop, mean=usual.mean, std=usual.std)

    def on_train_start(self) -> None:
        """Discard an earlier fit, so that a second `fit` uses only the data of the second training."""
        super().on_train_start()
        if hasattr(self, "_is_fitted"):
            self._is_fitted = torch.tensor([False], device=self.device)


def _initialise(model: Any, backbone: Backbone | None, seed: int, own: dict[str, Any], **components: Any) -> None:
    with seeded(seed, f"{model.model_name} networks"), _no_downloads(backbone):
        model.plain.__init__(model, **own, **components)


@functools.cache
def anomalib_class(info: ModelInfo) -> type[AnomalibDetector]:
    """Return the class of one of anomalib's other models, created on first use."""
    plain = getattr(anomalib.models, info.class_name)
    doc = f"anomalib's {info.class_name}: {info.summary}."
    body = {"model_name": info.name, "info": info, "plain": plain, "__doc__": doc}
    made: type[AnomalibDetector] = type(info.class_name, (AnomalibDetector, plain), body)
    return made


@contextmanager
def _no_downloads(backbone: Backbone | None) -> Iterator[None]:
    """Prevent downloads inside the block: pretrained timm and torchvision networks get the backbone's tensors."""
    create = timm.create_model

    def local(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
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
    """Copy the backbone's tensors into a network of the same architecture, or a part of it."""
    given = {} if backbone is None else backbone.network.state_dict()
    wanted = network.state_dict()
    unfilled = frozenset() if backbone is None else backbone.unfilled
    lacking = [
        key for key, value in wanted.items()
        if key not in given or given[key].shape != value.shape or key in unfilled
    ]  # fmt: skip
    if lacking:
        raise OptionError(
            f"The backbone given cannot fill {name}: {len(lacking)} tensors are not in it ({', '.join(lacking[:3])}). "
            "Take a backbone with this architecture's own names and all of its layers."
        )
    network.load_state_dict({key: given[key] for key in wanted})
