"""Reading and writing of checkpoint files, and their record of a model, without building the model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from anomalib.utils.serialization import anomalib_safe_globals

from defectlab.backbones.backbone import Backbone
from defectlab.backbones.registry import BackboneSpec, build
from defectlab.backbones.state_dicts import tensor_problem
from defectlab.backbones.weights import WeightsInfo
from defectlab.utils.json_object import short_repr
from defectlab.utils.memory import is_out_of_memory
from defectlab.utils.tensor_archive import add_digest, check_archive
from defectlab.utils.version import __version__
from defectlab_runtime.errors import InputError, OptionError

CHECKPOINT_KEY = "defectlab"
CHECKPOINT_FORMAT = 1


def read_checkpoint(checkpoint_path: str | Path, *, verify: bool = True) -> dict[str, Any]:
    """Return the content of a checkpoint of DefectLab, tensors memory-mapped, its record checked.

    The file is first compared with its digest (`utils.tensor_archive`), once as long as it is unchanged.

    Args:
        checkpoint_path: The file.
        verify: False leaves the digest out.

    Raises:
        InputError: The file is missing, damaged, unreadable or not written by DefectLab.
    """
    path = Path(checkpoint_path)
    if not path.is_file():
        raise InputError(f"There is no checkpoint at {path}. Give the path of a model.ckpt or of a run folder.")
    if verify:
        check_archive(path)
    try:
        with anomalib_safe_globals():
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises a dozen unrelated types for a damaged file
        raise InputError(
            f"{path} cannot be read as a checkpoint with weights_only=True ({type(error).__name__}: "
            f"{_beginning(error)}). It may be damaged, or written by plain anomalib with a live module inside: "
            "train it again with defectlab."
        ) from error
    record = checkpoint.get(CHECKPOINT_KEY) if isinstance(checkpoint, dict) else None
    if not record:
        raise InputError(
            f"{path} was not written by DefectLab: it has no '{CHECKPOINT_KEY}' record. Load it with anomalib."
        )
    problem = _problem(checkpoint, record)
    if problem:
        raise InputError(f"{path} is no whole checkpoint: {problem}. Copy it again, or train again.")
    if record["format"] > CHECKPOINT_FORMAT:
        raise InputError(f"{path} was written by DefectLab {record['version']}, newer than this one; update defectlab.")
    return checkpoint


def read_checkpoint_record(checkpoint_path: str | Path, *, verify: bool = True) -> dict[str, Any]:
    """Return the record of the model in a checkpoint, without building the model.

    Raises:
        InputError: See `read_checkpoint`.
    """
    checkpoint = read_checkpoint(checkpoint_path, verify=verify)
    record: dict[str, Any] = checkpoint[CHECKPOINT_KEY]
    return record | {"epoch": checkpoint.get("epoch")}


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint with its digest; equal content gives equal bytes, whatever the file is called.

    Raises:
        OSError, RuntimeError: It cannot be written; half a file may be there (see `utils.files.replacing`).
    """
    with path.open("wb") as file:  # torch writes the name of a file given as a path into it
        torch.save(content, file)
    add_digest(path)


# Fields of a checkpoint and of its record: their types. Fields of later versions may stand beside them.
_CONTENT: dict[str, Any] = {"state_dict": Mapping, "hyper_parameters": Mapping}
_RECORD: dict[str, Any] = {
    **{"format": int, "version": str, "model": str},
    **{"options": Mapping, "backbone": Mapping, "preprocessing": Mapping, "thresholds": Mapping},
}
_BACKBONE: dict[str, Any] = {"name": str, "source": str, "sha256": str, "kind": str, "spec": Mapping | None}
_THRESHOLDS: dict[str, Any] = {"image": int | float | None, "pixel": int | float | None}


def _problem(checkpoint: Mapping[str, Any], record: Any) -> str | None:
    """Return what is missing in a checkpoint or of a type that it cannot have; None for a whole one."""
    if not isinstance(record, Mapping):
        return f"'{CHECKPOINT_KEY}' is no mapping but {type(record).__name__}"
    for where, found, fields in (("", checkpoint, _CONTENT), (f"{CHECKPOINT_KEY}.", record, _RECORD),
                                 (f"{CHECKPOINT_KEY}.backbone.", record.get("backbone"), _BACKBONE),
                                 (f"{CHECKPOINT_KEY}.thresholds.", record.get("thresholds"), _THRESHOLDS)):  # fmt: skip
        for key, kind in fields.items():
            if not isinstance(found, Mapping) or key not in found:
                return f"it has no '{where}{key}'"
            if not isinstance(found[key], kind):
                return f"'{where}{key}' is {type(found[key]).__name__}, which it cannot be"
    categories = record["thresholds"].get("categories", {})
    if not isinstance(categories, Mapping) or not all(map(_are_thresholds, categories.values())):
        return f"'{CHECKPOINT_KEY}.thresholds.categories' is no image and pixel threshold by name"
    for key, value in checkpoint["state_dict"].items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            return f"'state_dict' holds something other than tensors by name ({short_repr(key)})"
        if problem := tensor_problem(value):
            return f"the tensor {short_repr(key)} {problem}"
    return None


def _are_thresholds(found: Any) -> bool:
    if not isinstance(found, Mapping) or not _THRESHOLDS.keys() <= found.keys():
        return False
    return all(isinstance(found[key], kind) for key, kind in _THRESHOLDS.items())


@contextmanager
def building_from(checkpoint_path: str | Path, record: Mapping[str, Any]) -> Iterator[None]:
    """Explain an error of building a model from a checkpoint's content: settings or tensors that do not fit together.

    Raises:
        InputError: Instead of the errors that torch and constructors raise; memory that ran out stays what it is.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        a_setting = isinstance(error, OptionError) and str(checkpoint_path) not in str(error)
        if (isinstance(error, InputError) and not a_setting) or is_out_of_memory(error):
            raise
        kind = OptionError if a_setting else InputError
        raise kind(
            f"No {record['model']} can be built from {checkpoint_path} ({type(error).__name__}: {_beginning(error)}). "
            f"It was changed by other code, or DefectLab {record['version']}, which wrote it, differs too much from "
            f"this one, {__version__}. Copy it again, load it with that version, or train again."
        ) from error


def skeleton_backbone(record: Mapping[str, Any]) -> Backbone | None:
    """Return the backbone of a checkpoint's record, untrained: the checkpoint's tensors fill it. None: it has none.

    Raises:
        InputError: The backbone is of unknown code.
    """
    backbone = record["backbone"]
    if backbone["spec"] is None:
        return None
    spec = BackboneSpec.from_dict(backbone["spec"])
    if spec.library == "unknown":
        raise InputError(
            f"This model was trained with a backbone of unknown code ({spec.name}), which a checkpoint cannot rebuild: "
            "pass the same module as backbone=..."
        )
    weights = WeightsInfo(source=backbone["source"], path=None, sha256=backbone["sha256"], kind=backbone["kind"])
    return Backbone(build(spec), spec, weights)


def _beginning(error: Exception) -> str:
    """Return the beginning of an error's message: torch lists each key that does not fit on a line of its own."""
    return " ".join(str(error).split())[:300]
