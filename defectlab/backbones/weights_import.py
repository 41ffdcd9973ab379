"""Implementation of `defectlab weights import`: copy a user's weights file to where backbones are loaded from."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from defectlab.backbones import weights_manifest
from defectlab.backbones.registry import REGISTRY, variants, warn_of_shared_name
from defectlab.backbones.state_dicts import read_weights
from defectlab.backbones.weights import SUFFIXES
from defectlab.backbones.weights_conversion import fitting_weights
from defectlab.backbones.weights_manifest import WeightsEntry
from defectlab.backbones.weights_matching import looks_like
from defectlab.utils import paths
from defectlab.utils.files import replacing
from defectlab_runtime.errors import WeightsError

logger = logging.getLogger(__name__)


def import_file(
    path: str | Path,
    name: str | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    licence: str | None = None,
    source: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Check that a file fits backbone `name`, copy it into `weights/`, record it.

    `name` None is the backbone that the file's hash says, else the one that its tensors look like. The copy is called
    `<name>.<suffix>`, or keeps its name if it is a file of the manifest, so that `load_backbone(name)` finds it.
    `source` is where it came from (default: the path as given); mean and std default to the manifest's for this
    content, then to the architecture's.

    Raises:
        WeightsError: Missing or damaged, fits no architecture, or another file has this name already.

    """
    file = Path(path).expanduser()
    file = file if file.is_file() else paths.resolve(file)
    if not file.is_file():
        raise WeightsError(f"No file '{path}' (from the working directory or the project root).")
    if file.suffix not in SUFFIXES:
        raise WeightsError(f"{file} has suffix '{file.suffix}'; weights files end in {', '.join(SUFFIXES)}.")
    state = read_weights(file)
    sha256 = weights_manifest.file_sha256(file)
    known, how = weights_manifest.entry_of_file(file, sha256)
    if name is None and known is not None and known.expected:
        name = known.name.partition(".")[0]
        logger.info("%s is %s (recognised by %s)", file.name, known.name, how)
    if name is None:
        alike = [spec.name for spec in looks_like(state) if spec.name in REGISTRY or spec.library == "timm"]
        if not alike:
            raise WeightsError(f"{file} looks like no backbone that loads by name. Say which: --name resnet18.")
        name = alike[0]
        logger.info("%s looks like %s", file.name, " or ".join(alike))
    _, found = fitting_weights(state, variants(name), str(file))
    if known is None:
        warn_of_shared_name(found.spec, file.name)
    target = paths.weights_dirs()[0] / _target_name(file, name, known)
    _copy(file, target, sha256, overwrite)
    base = known or WeightsEntry(target.name, "", "", "")
    entry = WeightsEntry(
        file=target.name,
        name=f"{name}.imported",
        architecture=found.spec.architecture,
        library=found.spec.library,
        url=base.url,
        licence=licence or base.licence,
        sha256=sha256,
        mean=tuple(mean) if mean else base.mean or found.spec.mean,
        std=tuple(std) if std else base.std or found.spec.std,
        input_size=base.input_size or found.spec.input_size,
        interpolation=base.interpolation or found.spec.interpolation,
        description=base.description or f"imported from {file.name}",
        source=source or str(path),
    )
    weights_manifest.record(entry, target.parent)
    logger.info("%s imported as %s (%s, sha256 %s)", path, target, found.spec.architecture, sha256)
    return target


def _target_name(file: Path, name: str, known: WeightsEntry | None) -> str:
    published = known is not None and known.file == file.name and not known.name.endswith(".imported")
    return file.name if published else f"{name}{file.suffix}"


def _copy(file: Path, target: Path, sha256: str, overwrite: bool) -> None:
    if target.is_file():
        if target.samefile(file) or weights_manifest.file_sha256(target) == sha256:
            return
        if not overwrite:
            raise WeightsError(f"{target} exists with other content. Move it away, or import with --overwrite.")
    with replacing(target) as partial:
        shutil.copyfile(file, partial)
