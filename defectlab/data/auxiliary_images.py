"""Auxiliary images that some models use in training beside the dataset's images: a user's folder or a generated set.

The generated set is computed from formulas (`defectlab.data.samples.procedural`), without photographs or downloads.
"""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from defectlab.data.samples.procedural import KINDS, procedural_image
from defectlab.utils import paths
from defectlab.utils.progress import progress_bar
from defectlab_runtime.errors import DataError
from defectlab_runtime.image_files import list_images

logger = logging.getLogger(__name__)

IMAGES_PER_KIND = 40
IMAGE_SIZE = 256
IMAGE_SEED = 42


@dataclass(frozen=True)
class AuxiliaryImages:
    """A folder of images, or None for the generated set; `summary` describes the images in a run's record."""

    folder: Path | None
    summary: str

    def files(self) -> list[Path]:
        """Return the image files, sorted, after generating the set if it is needed and missing."""
        return list_images(self.folder or generated_folder())


def find_auxiliary_images(
    folder: str | Path | None, *, option: str, fetch: str, loses: str, extensions: Iterable[str] | None = None
) -> AuxiliaryImages:
    """Return the images of a folder at any depth, or the generated set for None, without decoding or generating any.

    Args:
        folder: Of images, or None.
        option: The option's name, for messages, such as `Draem: dtd_dir`.
        fetch: What the folder is meant to hold and where it can be had.
        loses: What the method loses with the generated set.
        extensions: Endings to take; default is every image.

    Raises:
        DataError: No folder, or none of its files can be used.
    """
    if folder is None:
        count = IMAGES_PER_KIND * len(KINDS)
        summary = f"{count} generated surfaces of {IMAGE_SIZE} px, seed {IMAGE_SEED}"
        logger.info("%s: none given, so %s are used: %s", option, summary, loses)
        return AuxiliaryImages(None, summary)
    path = paths.resolve(folder)
    if not path.is_dir():
        raise DataError(
            f"{option}: there is no folder {path}. {fetch} Any folder of images will do. Without one "
            f"({option.split()[-1]}=None) generated surfaces are used: {loses}."
        )
    found = list_images(path, extensions)
    if not found:
        kinds = f" ({', '.join(extensions)})" if extensions else ""
        raise DataError(f"{option}: no images{kinds} in {path}. {fetch}")
    listing = "\n".join(f"{file.relative_to(path).as_posix()} {file.stat().st_size}" for file in found)
    digest = hashlib.sha256(listing.encode()).hexdigest()[:12]
    return AuxiliaryImages(path, f"{len(found)} images of {paths.relative(path)}, listing sha256 {digest}")


def generated_folder() -> Path:
    """Return the folder of the generated set under data/, creating it once in about a quarter of a minute."""
    name = f"surfaces_{IMAGES_PER_KIND * len(KINDS)}_{IMAGE_SIZE}px_seed{IMAGE_SEED}"
    folder = paths.resolve("data") / "generated" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    logger.info("Making %d generated surfaces in %s", IMAGES_PER_KIND * len(KINDS), folder)
    making = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        with progress_bar("Generated surfaces", IMAGES_PER_KIND * len(KINDS)) as progress:
            done = 0
            for kind in KINDS:
                (making / kind).mkdir()
                for index in range(IMAGES_PER_KIND):
                    picture = procedural_image(kind, index, seed=IMAGE_SEED, size=IMAGE_SIZE)
                    Image.fromarray(picture).save(making / kind / f"{index:03d}.png")
                    done += 1
                    progress(done, IMAGES_PER_KIND * len(KINDS))
        making.chmod(0o755)
        try:
            making.rename(folder)
        except OSError:  # another process was faster: equal files
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder
