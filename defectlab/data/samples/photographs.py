"""The photographs that ship inside scikit-image and are used to build samples: origin, licence, hash."""

import hashlib
import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectlab_runtime.errors import DataError

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Photograph:
    """Where a photograph comes from; `sha256` is that of the file in scikit-image 0.24 to 0.26."""

    name: str
    shows: str
    origin: str
    licence: str
    sha256: str

    def record(self) -> dict[str, str]:
        """Return what `sample.json` says about the photograph."""
        facts = asdict(self)
        sha256 = facts.pop("sha256")
        return {**facts, "file": f"skimage/data/{self.name}.png", "sha256": sha256}


# Origin and licence as the docstrings of skimage.data state them.
_TABLE = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
PHOTOGRAPHS = {facts["name"]: Photograph(**facts) for facts in _TABLE["photographs"]}


def photograph_file(name: str) -> Path:
    """Return the file of a photograph inside the installed scikit-image, without importing it.

    `skimage.data.<name>()` is not used: with pooch installed it may write to a cache folder in the home directory.

    Raises:
        DataError: scikit-image or the photograph is not installed.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "The sample is built from photographs of scikit-image, which is missing. Fix: pip install scikit-image"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / "data" / f"{name}.png"
    if not path.is_file():
        raise DataError(
            f"scikit-image does not hold the photograph '{name}' (looked for {path}). "
            "Fix: install scikit-image 0.24 or newer again."
        )
    return path


def load_photograph(name: str) -> Grey:
    """Return a photograph as grey values (H, W), 0 .. 255.

    Raises:
        DataError: It is missing, or not the file that the sample is defined on.
    """
    from PIL import Image

    from defectlab_runtime.image_decoding import FORMATS

    path = photograph_file(name)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != PHOTOGRAPHS[name].sha256:
        raise DataError(
            f"{path} is not the photograph that this sample is defined on (sha256 {found[:12]}..., expected "
            f"{PHOTOGRAPHS[name].sha256[:12]}...). Fix: install scikit-image 0.24 to 0.26 again."
        )
    with Image.open(path, formats=FORMATS) as image:
        return np.asarray(image.convert("L"))
