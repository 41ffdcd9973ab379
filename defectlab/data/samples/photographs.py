"""The photographs that ship inside scikit-image and are used to build samples: origin, licence, hash."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectlab.utils.errors import DataError

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
        return {
            "name": self.name,
            "shows": self.shows,
            "origin": self.origin,
            "licence": self.licence,
            "file": f"skimage/data/{self.name}.png",
            "sha256": self.sha256,
        }


# Origin and licence as the docstrings of skimage.data state them.
PHOTOGRAPHS: dict[str, Photograph] = {
    photo.name: photo
    for photo in (
        Photograph(
            "gravel",
            "gravel",
            "CC0Textures, Gravel04",
            "CC0",
            "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
        ),
        Photograph(
            "brick",
            "a brick pavement",
            "CC0Textures, Bricks25",
            "CC0",
            "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
        ),
        Photograph(
            "grass",
            "a lawn",
            "DeviantArt, linolafett, Grass 01",
            "CC0",
            "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
        ),
        Photograph(
            "coins",
            "Greek coins from Pompeii",
            "Brooklyn Museum Collection, image 51611",
            "no known copyright restrictions",
            "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
        ),
        Photograph(
            "coffee",
            "a cup on a wooden table (the wood is used)",
            "Pikolo Espresso Bar, photograph by Rachel Michetti",
            "CC0",
            "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        ),
        Photograph(
            "chelsea",
            "a cat (the fur is used)",
            "photograph by Stefan van der Walt",
            "CC0",
            "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        ),
        Photograph(
            "text",
            "handwriting on lined paper",
            "Wikipedia, File:Corner.png",
            "public domain, no known copyright restrictions",
            "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
        ),
    )
}


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

    path = photograph_file(name)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != PHOTOGRAPHS[name].sha256:
        raise DataError(
            f"{path} is not the photograph that this sample is defined on (sha256 {found[:12]}..., expected "
            f"{PHOTOGRAPHS[name].sha256[:12]}...). Fix: install scikit-image 0.24 to 0.26 again."
        )
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))
