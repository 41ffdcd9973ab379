"""Export of a run: files of several formats and precisions, each checked against the run's scores before it exists."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from defectlab.export.calibration import training_inputs
from defectlab.export.checks import (
    FOLDER,
    FORMATS,
    RECORD,
    check_exportable,
    exports_folder,
    read_exports,
    wanted_files,
)
from defectlab.export.describe import describe
from defectlab.export.detectors import open_detector
from defectlab.export.graph import ExportGraph
from defectlab.export.parity import Levels, RescoredRun, compare, levels_of, rescored
from defectlab.export.precision import reduce_precision, stamp
from defectlab.export.records import ExportRecord, ExportsRecord, ParityRecord
from defectlab.export.writers import WRITERS
from defectlab.models.base import BaseDetector
from defectlab.models.loading import restore
from defectlab.results.evaluate import choose_thresholds
from defectlab.results.run.category_run import category_runs
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.files import sha256_of, write_json
from defectlab_runtime.description import Description
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

MAX_DROP = 0.01  # of the AUROC in a reduced precision


class ParityError(InputError):
    """An exported file does not say what its run says; it was not kept."""


def export_run(
    run: str | Path | Run,
    formats: str | Sequence[str] = "onnx",
    *,
    precision: str | Sequence[str] = "float32",
    max_drop: float = MAX_DROP,
) -> list[ExportRecord]:
    """Export a finished run's model into files that score as the run did.

    Each file is written beside its place, scores the run's validation and test images, and is moved to
    `<run>/exports/` when it agrees with the scores, maps, labels and AUROC on record. `export.json` there lists the
    files and how each agreed.

    Args:
        run: A run, or its folder.
        formats: One or several of onnx, openvino, torch, torchscript.
        precision: One or several of float32, float16, int8; the reduced ones for onnx and openvino.
        max_drop: The most that image and pixel AUROC may lose in a reduced precision.

    Returns:
        The records of the files, in the order asked for.

    Raises:
        OptionError: An unknown format or precision, or one that the format or the model does not have.
        InputError: The run has no checkpoint or no scores, or its images are gone.
        ParityError: A file disagrees with the run; those made before it, of each format float32 last, remain.
    """
    wanted = wanted_files(formats, precision)
    opened = run if isinstance(run, Run) else Run.open(run)
    check_exportable(opened, [file_format for file_format, _ in wanted])
    checkpoint = opened.checkpoint_file()
    digest = sha256_of(checkpoint)
    made: dict[tuple[str, str], ExportRecord] = {}
    for file_format in dict.fromkeys(one for one, _ in wanted):
        precisions = [each for kind, each in wanted if kind == file_format]
        with _float32_file(opened, checkpoint, digest, file_format) as (source, description):
            for each in sorted(precisions, key="float32".__eq__):  # that file is moved last: the others are made of it
                made[file_format, each] = _export_one(
                    opened, checkpoint, source, description, file_format, each, max_drop
                )
    return [made[one] for one in wanted]


def verify(file: str | Path, run: str | Path | Run | None = None) -> ParityRecord:
    """Compare an exported file with its run again, on any machine that has the run and its images.

    Args:
        file: The exported file.
        run: Its run, or the run's folder; None: the run whose folder the file lies in.

    Raises:
        InputError: The file cannot be opened, its run is not found, or it was exported from another run.
    """
    path = paths.resolve(file)
    opened = run if isinstance(run, Run) else Run.of_checkpoint(path) if run is None else Run.open(run)
    if opened is None:
        raise InputError(f"{path} lies in no run's folder: name the run that it was exported from.")
    described = open_detector(path).description
    if described.run.id != opened.record.run_id:
        raise InputError(
            f"{path} was exported from the run {described.run.name} ({described.run.id}), not from "
            f"{opened.record.name} ({opened.record.run_id})."
        )
    return _compared(opened, path, described)


@contextmanager
def _float32_file(run: Run, checkpoint: Path, digest: str, file_format: str) -> Iterator[tuple[Path, Description]]:
    """Write the float32 file of a format, and give its description; its hidden folder is removed afterwards."""
    folder = exports_folder(run) / f".{file_format}.part"
    shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
    folder.mkdir(parents=True)
    try:
        detector = restore(checkpoint)
        description = describe(run, detector, digest, file_format, "float32")
        logger.info("Exporting %s as %s", run.title, file_format)
        path = folder / f"model{FORMATS[file_format]}"
        WRITERS[file_format](ExportGraph(detector), path, description)
        yield path, description
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _export_one(
    run: Run,
    checkpoint: Path,
    source: Path,
    description: Description,
    file_format: str,
    precision: str,
    max_drop: float,
) -> ExportRecord:
    path, notes = source, []
    if precision != "float32":
        path = source.with_name(f"{source.stem}_{precision}{source.suffix}")
        detector = restore(checkpoint)
        reduce_precision(
            file_format, source, path, precision, lambda: training_inputs(run, detector.preprocessing), _has_tokens(run)
        )
        description = replace(description, precision=precision)
        parity, levels, note = _judged_by_drop(run, detector, path, description, max_drop)
        notes.append(note)
        description = _with_levels(description, levels)
        stamp(file_format, path, description)
    else:
        parity = _compared(run, path, description)
    if parity.problems:
        raise ParityError(
            f"The {precision} {file_format} file of {run.title} does not say what the run says, and was not kept: "
            f"{'; '.join(parity.problems)}."
        )
    return _put_in_place(run, path, description, file_format, parity, notes)


def _compared(run: Run, path: Path, description: Description) -> ParityRecord:
    with rescored(run, open_detector(path)) as (again, differences):
        return compare(run, again, differences, description.map_range)


def _judged_by_drop(
    run: Run, detector: BaseDetector, path: Path, description: Description, max_drop: float
) -> tuple[ParityRecord, Levels, str]:
    """Compare a file of reduced precision with the run by its AUROC, at thresholds chosen again by the run's rule."""
    with rescored(run, open_detector(path)) as (again, differences):
        levels, note = _levels_again(run, again, detector)
        parity = compare(run, again, differences, description.map_range, levels)
        problems = [
            f"{name} falls from {before:.4f} to {after:.4f}, by more than --max-drop {max_drop:g}"
            for name, before in parity.before.items()
            if before is not None and (after := parity.after.get(name)) is not None and before - after > max_drop
        ]
        return parity.replaced(problems=problems), levels, note


def _levels_again(run: Run, again: RescoredRun, detector: BaseDetector) -> tuple[Levels, str]:
    """Return thresholds by the run's own rule for other scores of its validation images, and what was done."""
    parts: dict[str, Run] = {str(one.category): one for one in category_runs(again)} or {"": again}
    sources = {part.record.thresholds.image.source for part in parts.values()}
    if run.record.earlier_thresholds or sources != {"validation"}:
        return levels_of(run), "the run's own thresholds: its training did not choose them on validation images"
    chosen = {
        name: choose_thresholds(
            part.scores("validation"), part.maps("validation"), part.packed_masks("validation"), detector.default_rule
        )
        for name, part in parts.items()
    }
    levels = {name: (image.value, pixel.value) for name, (image, pixel) in chosen.items()}
    return levels, "thresholds chosen again on this file's scores of the validation images, by the run's own rule"


def _with_levels(description: Description, levels: Levels) -> Description:
    if "" in levels:
        return replace(description, image_threshold=levels[""][0], pixel_threshold=levels[""][1])
    return replace(description, categories=levels)


def _has_tokens(run: Run) -> bool:
    spec = run.record.backbone.spec or {}
    return "vit" in str(spec.get("architecture", "")) or "swin" in str(spec.get("architecture", ""))


def _put_in_place(
    run: Run, path: Path, description: Description, file_format: str, parity: ParityRecord, notes: list[str]
) -> ExportRecord:
    """Move a file that passed to the run's exports, and add it to `export.json` in place of an earlier one."""
    final = exports_folder(run) / path.name
    for part in _files_of(path):
        part.replace(final.with_suffix(part.suffix))
    record = ExportRecord(
        file=f"{FOLDER}/{final.name}",
        format=file_format,
        precision=description.precision,
        sha256=sha256_of(final),
        bytes=sum(part.stat().st_size for part in _files_of(final)),
        exported=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=description.versions,
        thresholds={"image": description.image_threshold, "pixel": description.pixel_threshold},
        categories={name: list(values) for name, values in description.categories.items()},
        parity=parity,
        notes=notes,
    )
    others = [one for one in read_exports(run).exports if one.file != record.file]
    write_json(exports_folder(run) / RECORD, ExportsRecord(exports=[*others, record]).to_dict())
    logger.info("Exported %s (%.1f MB), which agrees with the run", paths.relative(final), record.bytes / 1e6)
    return record


def _files_of(path: Path) -> list[Path]:
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
