"""The command `export`."""

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser

from defectlab.cli.command import Command
from defectlab_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from defectlab.export.records import ExportRecord


def export(run: str, format: list[str], precision: list[str], max_drop: float, verify: str | None) -> int:
    """Write a run's model as files for other runtimes, each checked against the run's own scores."""
    from defectlab.export.checks import check_exportable, wanted_files
    from defectlab.results.run.run import Run

    opened = Run.open(run)
    if verify is not None:
        from defectlab.export.export import verify as verify_file

        parity = verify_file(verify, opened)
        print(f"{verify}: {parity.words}")
        return 1 if parity.problems else 0
    wanted = wanted_files(format, precision)  # before the seconds that torch takes to load
    if not 0 <= max_drop <= 1:
        raise InputError(f"--max-drop is a share of the AUROC from 0 to 1, not {max_drop:g}.")
    check_exportable(opened, [file_format for file_format, _ in wanted])
    from defectlab.export.export import export_run

    print(exports_table(export_run(run, format, precision=precision, max_drop=max_drop)))
    return 0


def exports_table(records: "Sequence[ExportRecord]") -> str:
    """Return a table of exported files: size, and how each agrees with its run."""
    lines = [f"{'file':<32}{'MB':>8}  agreement with the run"]
    for record in records:
        lines.append(f"{record.file:<32}{record.bytes / 1e6:>8.1f}  {record.parity.words}")
        lines += [f"{'':<42}{note}" for note in record.notes]
    return "\n".join(lines)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="A run's folder.")
    parser.add_argument(
        "--format", type=str, nargs="+", default=["onnx"], help="One or several of onnx, openvino, torch, torchscript."
    )
    parser.add_argument(
        "--precision",
        type=str,
        nargs="+",
        default=["float32"],
        help="One or several of float32, float16, int8; the last two for onnx and openvino.",
    )
    parser.add_argument(
        "--max-drop", type=float, default=0.01, help="The most that an AUROC may lose in a reduced precision."
    )
    parser.add_argument("--verify", type=str, help="Compare this exported file with the run again, and export nothing.")


EXPORT = Command(export, _arguments)
