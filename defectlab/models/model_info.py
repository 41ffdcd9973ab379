"""Facts about a model by name, available before the model's module is imported."""

from dataclasses import dataclass

EXPORTS = ("onnx", "openvino", "torch", "torchscript")


@dataclass(frozen=True)
class ModelInfo:
    """One model as users name it: `name` in YAML and on the command line, `class_name` in Python.

    `module` is where its class is, within `defectlab.models`. `backbone` is the one taken where none is named; None:
    the model has none. `epochs` is a fixed number, or None where the user chooses (`default_epochs` where nothing is
    given). `files`: what training takes beside it. `relative_maps`: its heat maps are shown relative to the threshold
    instead of on the range of the validation maps. `exports`: the formats that `defectlab export` writes it in, and
    `no_export` why it cannot in the others. `maps`: whether it gives maps at all, or image scores only. `adds_images`:
    whether images can be added to a fitted one. `backbone_options`: what anomalib calls its backbone; empty: its code
    names one, and takes the one given instead.
    """

    name: str
    class_name: str
    module: str
    summary: str
    backbone: str | None = "resnet18"
    epochs: int | None = None
    default_epochs: int = 30
    relative_maps: bool = False
    files: str = ""
    maps: bool = True
    exports: tuple[str, ...] = ()
    no_export: str = ""
    adds_images: bool = False
    backbone_options: tuple[str, ...] = ("backbone",)
