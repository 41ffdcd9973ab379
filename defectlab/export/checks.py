"""Checks of an export that need neither torch nor the model, and the record of the exported files."""

from collections.abc import Sequence
from pathlib import Path

from defectlab.export.records import ExportsRecord
from defectlab.models.registry import model_info
from defectlab.results.run.run import Run
from defectlab.utils.json_files import read_json
from defectlab_runtime.errors import InputError, OptionError, unknown_name

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "torchscript": ".pt"}  # name -> ending of the file
PRECISIONS = ("float32", "float16", "int8")
REDUCED = ("onnx", "openvino")  # formats that come in other precisions than float32
FOLDER, RECORD = "exports", "export.json"


def wanted_files(formats: str | Sequence[str], precisions: str | Sequence[str]) -> list[tuple[str, str]]:
    """Return the format and the precision of each file that is asked for, without repetitions.

    Raises:
        OptionError: An unknown format or precision, or a format that does not come in a precision.
    """
    kinds = [formats] if isinstance(formats, str) else list(formats)
    each = [precisions] if isinstance(precisions, str) else list(precisions)
    for what, given, known in (("format", kinds, FORMATS), ("precision", each, PRECISIONS)):
        if not given:
            raise OptionError(f"export needs at least one {what}: {', '.join(known)}.")
        for one in given:
            if one not in known:
                raise OptionError(unknown_name(what, str(one), known))
    for kind in kinds:
        if kind not in REDUCED and set(each) != {"float32"}:
            raise OptionError(
                f"{kind} is exported in float32 only; {' and '.join(REDUCED)} come in {', '.join(PRECISIONS)}."
            )
    return [(kind, one) for kind in dict.fromkeys(kinds) for one in dict.fromkeys(each)]


def check_exportable(run: Run, formats: Sequence[str]) -> None:
    """Check that a run has scores to compare with, and that its model can be exported into formats.

    Raises:
        InputError: The run has no scores.
        OptionError: Its model cannot, with the reason.
    """
    if not run.scores():
        raise InputError(
            f"{run.folder} has no scores (status {run.status}): an export is compared with them. Test the run first."
        )
    info = model_info(run.record.experiment.model_name)
    for one in formats:
        if one not in info.exports:
            works = f" It can be exported as {', '.join(info.exports)}." if info.exports else ""
            raise OptionError(f"{info.name} cannot be exported as {one}: {info.no_export}.{works}")


def read_exports(run: Run) -> ExportsRecord:
    """Return the record of a run's exported files, empty where there are none."""
    file = run.folder / FOLDER / RECORD
    return ExportsRecord.from_dict(read_json(file)) if file.is_file() else ExportsRecord()


def exports_folder(run: Run) -> Path:
    """Return the folder of a run's exported files."""
    return run.folder / FOLDER
