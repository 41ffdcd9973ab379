"""Parts of a run's record known at its start: settings, images, backbone, preprocessing, machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from defectlab.data.manifest.protocol import Protocol
from defectlab.utils.json_object import JsonObject, json_key


@dataclass(frozen=True, kw_only=True)
class ExperimentRecord(JsonObject):
    """The settings of an experiment, as in its YAML file, with a section of options for each part."""

    name: str | None = None
    seed: int
    data: Mapping[str, Any]
    backbone: Mapping[str, Any]
    model: Mapping[str, Any]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any]

    @property
    def model_name(self) -> str:
        """The model's name in the registry."""
        return str(self.model.get("name"))


@dataclass(frozen=True, kw_only=True)
class ProtocolRecord(JsonObject, Protocol):
    """The protocol by which images were split, as read from a record, whose keys it keeps."""


@dataclass(frozen=True, kw_only=True)
class DatasetRecord(JsonObject):
    """The images: counts by split and kind of defect, the manifest's hash, and how they were split.

    `without_mask` names the defects left out of the pixel metrics, and `calibration` the good validation images that
    chose nothing (`data.calibration_share`), as scores.csv names them. `near_duplicates` counts pairs of copies of one
    photograph in different splits; None: not looked for.
    """

    name: str
    root: str
    counts: Mapping[str, Mapping[str, int]]
    manifest: str
    has_masks: bool
    protocol: ProtocolRecord
    without_mask: list[str] = field(default_factory=list)
    calibration: list[str] = field(default_factory=list)
    near_duplicates: int | None = None


@dataclass(frozen=True, kw_only=True)
class AdditionRecord(JsonObject):
    """The run whose fitted model good images were added to, by id and folder, and these images."""

    parent: str
    run: str
    images: list[str]


@dataclass(frozen=True, kw_only=True)
class BackboneRecord(JsonObject):
    """The backbone and its weights; `source` is the weights' file, "random(seed=42)" or a file's substitute."""

    name: str
    source: str
    sha256: str
    kind: str
    spec: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class RegionRecord(JsonObject):
    """The evaluated region of each image: left, top, right and bottom of a box, and a mask of valid pixels."""

    box: list[int] | None = None
    size: list[int] | None = None
    sha256: str | None = None
    code: str | None = None


@dataclass(frozen=True, kw_only=True)
class TilingOptions(JsonObject):
    """The size that images are resized to before they are cut into tiles, and the overlap of the tiles."""

    image_size: list[int]
    overlap: float


@dataclass(frozen=True, kw_only=True)
class PreprocessingRecord(JsonObject):
    """The preprocessing of images for the model; see `defectlab.data.transforms.preprocessing.Preprocessing`."""

    size: list[int]
    crop: list[int] | None = None
    keep_aspect: bool = False
    mean: list[float]
    std: list[float]
    interpolation: str
    region: RegionRecord | None = field(default=None, metadata=json_key("area"))
    tiling: TilingOptions | None = None
    bit_depth: int | None = None
    hash: str = ""

    def options(self) -> dict[str, Any]:
        """Return the options from which a `Preprocessing` is created."""
        return {key: value for key, value in self.to_dict().items() if key != "hash"}

    @property
    def pixels(self) -> int:
        """Number of pixels of an image that the model receives."""
        height, width = self.size if self.tiling is None else self.tiling.image_size
        return height * width


@dataclass(frozen=True, kw_only=True)
class TilesRecord(JsonObject):
    """The positions of tiles in pixels, and how an image's score is computed from the tiles."""

    tile: list[int]
    rows: list[int]
    columns: list[int]
    image_size: list[int]
    image_score: str


@dataclass(frozen=True, kw_only=True)
class MaskLossRecord(JsonObject):
    """Defects of the test masks, and those that the nearest pixel of the grid loses: see `reduce_mask`.

    Attributes:
        images: Images with a mask that marks anything.
        regions: Connected regions of these masks within the area that the model sees.
        lost_images: Images of which the nearest pixel would keep nothing.
        lost_regions: Regions of which the nearest pixel would keep nothing.
        unseen_images: Images whose mask lies outside the area that the model sees: their pixels count as good.
        nearest: Pixel metrics without a threshold on masks by the nearest pixel, as anomalib computes them.
    """

    images: int
    regions: int
    lost_images: int
    lost_regions: int
    unseen_images: int
    nearest: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(JsonObject):
    """The grid of the pixel metrics: `pixel_size` as requested, `grid` as used (None if each image has its own).

    `mask_reduction` is how masks came to the grid; records from before there was a choice are by the nearest pixel.
    """

    pixel_size: str | list[int] = "input"
    grid: list[int] | None = None
    mask_reduction: str = "nearest"
    mask_loss: MaskLossRecord | None = None


@dataclass(frozen=True, kw_only=True)
class EnvironmentRecord(JsonObject):
    """Software versions, platform, device and number of threads of a run."""

    defectlab: str
    anomalib: str
    torch: str
    torchvision: str
    lightning: str
    timm: str
    python: str
    platform: str
    device: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class GitRecord(JsonObject):
    """The state of the project's git repository; `reason` says why there is no commit."""

    commit: str | None
    branch: str | None = None
    dirty: bool | None = None
    reason: str | None = None
