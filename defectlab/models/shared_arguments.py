"""The arguments that every model takes beside its own, declared once."""

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from torch import nn

from defectlab.backbones.registry import REGISTRY, usual_layers
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.models.processors import RecordedPreProcessor
from defectlab.utils.validation import check_flags, check_option_names
from defectlab_runtime.errors import OptionError
from defectlab_runtime.preprocessing import height_width

logger = logging.getLogger(__name__)

Size = int | Sequence[int] | None


@dataclass(frozen=True, kw_only=True)
class SharedArguments:
    """Arguments of every model. The first four are anomalib's.

    Args:
        pre_processor: True makes one from `image_size`, `center_crop` and `keep_aspect`; anomalib's own is taken too.
        post_processor: True keeps scores and maps raw and decides at the run's thresholds.
        evaluator: True or False; DefectLab computes metrics from the record.
        visualizer: True or False; DefectLab draws pictures from the record.
        image_size: (height, width) or one number; None is 256 x 256, or what the model's own documentation says.
        center_crop: (height, width) cut out after resizing.
        keep_aspect: Fit the image into `image_size` and pad instead of stretching it.
        interpolation: nearest, bilinear or bicubic resizing; None is bilinear, or what anomalib's own model takes.
        seed: Of every random choice that the model makes.
    """

    pre_processor: nn.Module | bool = True
    post_processor: nn.Module | bool = True
    evaluator: Any = True
    visualizer: Any = True
    image_size: Size = None
    center_crop: Size = None
    keep_aspect: bool = False
    interpolation: str | None = None
    seed: int = 42

    def preprocessing(self, usual: Preprocessing) -> Preprocessing:
        """Return how images become the model's input: as the pre-processor does, or `usual` at the size asked for.

        Raises:
            OptionError: A size or a pre-processor that cannot work.
        """
        if self.pre_processor is False:
            raise OptionError("pre_processor=False cannot work: images of many sizes need resizing and normalisation.")
        if self.pre_processor is True:
            size = None if self.image_size is None else height_width("image_size", self.image_size)
            crop = None if self.center_crop is None else height_width("center_crop", self.center_crop)
            usual_crop = usual.crop if size is None else None
            mode = usual.interpolation if self.interpolation is None else self.interpolation
            return replace(
                usual,
                size=size or usual.size,
                crop=crop or usual_crop,
                keep_aspect=self.keep_aspect,
                interpolation=mode,
            )
        if self.image_size or self.center_crop or self.keep_aspect:
            raise OptionError("Give either pre_processor or image_size / center_crop / keep_aspect, not both.")
        if isinstance(self.pre_processor, RecordedPreProcessor):
            found = self.pre_processor.preprocessing
        else:
            found = Preprocessing.from_transform(getattr(self.pre_processor, "transform", None))
        if self.interpolation not in (None, found.interpolation):
            raise OptionError(f"pre_processor resizes {found.interpolation}: leave out interpolation.")
        return found


DEFAULTS = SharedArguments()


def takes_shared_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap a constructor: the fields of `SharedArguments` stand in place of its parameter `shared`, which gets them.

    Before the constructor runs, an unknown keyword is refused with the closest known one (unless the constructor takes
    any, and checks them itself), and so is anything but true and false for an argument that is annotated `bool`.
    """
    own = inspect.signature(init).parameters
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=field.default, annotation=field.type
        )
        for field in fields(SharedArguments)
    ]
    merged = [each for name, one in own.items() for each in (shared if name == "shared" else [one])]
    signature = inspect.Signature(merged)
    any_keyword = next((one.name for one in merged if one.kind is one.VAR_KEYWORD), None)

    @functools.wraps(init)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        model, owner = args[0], type(args[0]).__name__
        if any_keyword is None:
            check_option_names(kwargs, [one.name for one in merged[1:]], owner)
        check_flags(owner, kwargs, signature.parameters)
        given = signature.bind(*args, **kwargs).arguments
        more = given.pop(any_keyword, {}) if any_keyword else {}
        if "layers" in own and "layers" not in given:
            given["layers"] = layers_where_none_given(
                owner, given.get("backbone", own["backbone"].default), own["layers"].default
            )
        values = {one.name: given.pop(one.name) for one in shared if one.name in given}
        init(**given, **more, shared=SharedArguments(**values))
        model.save_options()  # not inside: Lightning expects a constructor's variables to be those of its signature

    # On the wrapped function: there `inspect.signature` finds it, while Lightning, which looks at the wrapper itself,
    # passes all that a checkpoint holds, so that an option this version does not know is refused and not dropped.
    cast(Any, init).__signature__ = signature
    wrapper.__doc__ = f"Take the model's own arguments, and those of every model.\n\n{inspect.getdoc(SharedArguments)}"
    return wrapper


def layers_where_none_given(owner: str, backbone: Any, layers: Sequence[str]) -> tuple[str, ...]:
    """Return a constructor's default layers, which are a ResNet's, for the backbone that it got."""
    spec = getattr(backbone, "spec", REGISTRY.get(backbone) if isinstance(backbone, str) else None)
    usual = tuple(layers) if spec is None else usual_layers(spec, layers)
    if spec is not None and usual != tuple(layers):
        logger.info("%s: layers %s of %s, where a ResNet has %s", owner, list(usual), spec.name, list(layers))
    return usual
