"""`Description`, what an exported file says of its model, to and from the JSON text that the file carries."""

import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from defectlab_runtime.errors import DescriptionError
from defectlab_runtime.image_limits import max_pixels
from defectlab_runtime.preprocessing import PreprocessingSettings

FORMAT = 1
KEY = "defectlab"  # ONNX: metadata_props; OpenVINO: rt_info; torch's files: extra file `defectlab.json`
PRECISIONS = ("float32", "float16", "int8")

# JSON has no such numbers; as text they survive in every reader
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Range = tuple[float, float]


@dataclass(frozen=True)
class RunFacts:
    """The run that was exported: its id, its name, the class of its model, its dataset, and a hash of its record."""

    id: str
    name: str
    model: str
    dataset: str
    hash: str


@dataclass(frozen=True)
class BackboneFacts:
    """The backbone whose weights are in the file; `licence` and `sha256` are None where they are not known."""

    name: str
    licence: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Description:
    """All that is needed to score images with an exported file, and where the file comes from.

    Attributes:
        defectlab: Version of DefectLab that exported the file.
        run: The run that was exported.
        model: Name of the model in the registry, such as `patchcore`.
        preprocessing: Plain data of `PreprocessingSettings`, as their `to_dict` gives it.
        image_threshold: Raw threshold of scores with every digit; None where the run has none.
        pixel_threshold: The same of maps.
        score_range: Smallest and largest raw score of the validation images; not finite where there were none.
        map_range: The same of maps.
        relative_maps: Whether heat maps range from 0 to twice the pixel threshold (`heat_range`).
        has_maps: Whether the model has maps; without them the graph has the output `score` alone.
        classes: Names of the labels 0 and 1.
        backbone: None for a model without one.
        precision: One of `PRECISIONS`.
        versions: Package -> version, of what exported the file.
        categories: Image and pixel threshold of each category by name, for a model that serves several.
    """

    defectlab: str
    run: RunFacts
    model: str
    preprocessing: Mapping[str, Any]
    image_threshold: float | None
    pixel_threshold: float | None
    score_range: Range
    map_range: Range
    relative_maps: bool
    has_maps: bool
    classes: tuple[str, ...] = ("good", "anomalous")
    backbone: BackboneFacts | None = None
    precision: str = "float32"
    versions: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the JSON text for the file, which `from_json` reads back with every digit.

        NaN and infinite numbers are written as the texts "NaN", "Infinity" and "-Infinity".
        """
        return json.dumps({"format": FORMAT, **_plain(vars(self))}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes, what: str = "the file") -> "Description":
        """Read the JSON text of an exported file; keys that this version does not know are left out.

        Args:
            text: The text under `KEY`.
            what: Name of the file for messages.

        Raises:
            DescriptionError: The text is damaged, of another format or of something else; names everything that is
                wrong.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DescriptionError(f"The description in {what} is damaged: {error}. Export the run again.") from None
        if not isinstance(data, dict):
            raise DescriptionError(f"The description in {what} is damaged: no JSON object. Export the run again.")
        _check_format(data, what)
        reader = _Reader(data)
        found = _read(cls, reader)
        if reader.problems:
            listed = "".join(f"\n  {problem}" for problem in reader.problems)
            raise DescriptionError(f"The description in {what} is damaged:{listed}\nExport the run again.")
        assert found is not None
        return found


def _check_format(data: Mapping[str, Any], what: str) -> None:
    given = data.get("format")
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise DescriptionError(
            f"The description in {what} is damaged: format is {given!r}, not a whole number from 1 on. "
            "Export the run again."
        )
    if given > FORMAT:
        version = data.get("defectlab")
        raise DescriptionError(
            f"The description in {what} has format {given}, from DefectLab {version}, and this runtime reads formats "
            f"up to {FORMAT}: update defectlab-runtime."
        )


class _Reader:
    """Reads typed values of a JSON object and collects what is wrong with them, by the path of the key."""

    def __init__(self, data: Mapping[str, Any], path: str = "", problems: list[str] | None = None) -> None:
        self.data = data
        self.path = path
        self.problems: list[str] = [] if problems is None else problems

    def get(self, key: str, expected: str, read: Callable[[Any], Any]) -> Any:
        """Return what `read` makes of a key's value; where that is not what is `expected`, note it and return None."""
        if key not in self.data:
            self.problems.append(f"{self.path}{key} is missing")
            return None
        try:
            return read(self.data[key])
        except (TypeError, ValueError, OverflowError):
            given = json.dumps(self.data[key])
            shown = given if len(given) <= 60 else f"{given[:60]}..."
            self.problems.append(f"{self.path}{key} is {shown}, not {expected}")
            return None

    def part(self, key: str) -> "_Reader | None":
        """Return the reader of an object below this one; None, and it is noted, where it is none."""
        data = self.get(key, "an object", _object)
        return None if data is None else _Reader(data, f"{self.path}{key}.", self.problems)


def _read(cls: type[Description], reader: _Reader) -> Description | None:
    text, optional_text = ("text", _text), ("text or null", _optional(_text))
    run, backbone = reader.part("run"), None
    facts = None
    if run is not None:
        facts = RunFacts(*(run.get(key, *text) for key in ("id", "name", "model", "dataset", "hash")))
    if reader.data.get("backbone") is not None and (part := reader.part("backbone")):
        name, licence, sha256 = part.get("name", *text), *(part.get(k, *optional_text) for k in ("licence", "sha256"))
        backbone = BackboneFacts(name, licence, sha256)
    number = ("a number or null", _optional(_number))
    numbers = ("two numbers, the first not above the second", _range)
    flag = ("true or false", _flag)
    values = {
        "defectlab": reader.get("defectlab", *text),
        "model": reader.get("model", *text),
        "preprocessing": _preprocessing(reader),
        "image_threshold": reader.get("image_threshold", *number),
        "pixel_threshold": reader.get("pixel_threshold", *number),
        "score_range": reader.get("score_range", *numbers),
        "map_range": reader.get("map_range", *numbers),
        "relative_maps": reader.get("relative_maps", *flag),
        "has_maps": reader.get("has_maps", *flag),
        "classes": reader.get("classes", "two texts", _classes),
        "precision": reader.get("precision", f"one of {', '.join(PRECISIONS)}", _precision),
        "versions": reader.get("versions", "an object of texts", _versions),
    }
    if "categories" in reader.data:
        values["categories"] = reader.get("categories", "an object of image and pixel thresholds", _categories)
    return None if facts is None else cls(run=facts, backbone=backbone, **values)


def _preprocessing(reader: _Reader) -> Mapping[str, Any]:
    """Return the plain settings, after building them and unpacking their mask, which names what cannot work."""
    data: Mapping[str, Any] = reader.get("preprocessing", "an object", _object) or {}
    try:
        region = PreprocessingSettings.from_dict(data).region
        if region is not None and region.size is not None and math.prod(region.size) > max_pixels():
            raise ValueError(f"the valid area of {region.size} has more than {max_pixels()} pixels")
        _ = None if region is None else region.mask
    except (TypeError, ValueError, KeyError, AttributeError, zlib.error) as error:
        reader.problems.append(f"preprocessing cannot be used: {error}")
    return data


def _plain(value: Any) -> Any:
    """Return plain JSON data of dataclasses, mappings, sequences and numbers that need not be finite."""
    if isinstance(value, RunFacts | BackboneFacts):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _number(value: Any) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _range(value: Any) -> Range:
    low, high = map(_number, value if isinstance(value, list) else ())
    if low > high and not (low == math.inf and high == -math.inf):  # no validation images: nothing seen yet
        raise ValueError
    return low, high


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _classes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError
    return tuple(map(_text, value))


def _precision(value: Any) -> str:
    if value not in PRECISIONS:
        raise ValueError
    return str(value)


def _versions(value: Any) -> Mapping[str, str]:
    return {key: _text(item) for key, item in _object(value).items()}


def _categories(value: Any) -> Mapping[str, tuple[float | None, float | None]]:
    found = {}
    for name, (image, pixel) in _object(value).items():
        found[name] = (_optional(_number)(image), _optional(_number)(pixel))
    return found
