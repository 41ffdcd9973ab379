"""The measured rows on file, and results.md made of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

from benchmarks.table import Row, table


def add(path: Path, row: Row, machine: Sequence[str]) -> None:
    """Put a row on file, in the place of an earlier one of its name, with its day and machine."""
    entries = read(path)
    entry = {"date": f"{date.today()}", "machine": list(machine), "row": asdict(row)}
    places = [number for number, other in enumerate(entries) if other["row"]["what"] == row.what]
    if places:
        entries[places[0]] = entry
    else:
        entries.append(entry)
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> list[dict]:
    """Return what is on file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def render(folder: Path) -> str:
    """Return results.md from the rows on file: a table for each day and machine, the plot, the limits."""
    parts = ["# Measured against plain anomalib", "", "Made by `make bench`; README.md says how.", ""]
    for title, name in (("On the CPU", "results.json"), ("On a GPU", "results_gpu.json")):
        groups: dict[str, list[Row]] = {}
        for entry in read(folder / name):
            where = "\n".join([f"Measured on {entry['date']}.", *entry["machine"]])
            groups.setdefault(where, []).append(Row(**entry["row"]))
        parts += [f"## {title}", ""] if groups else []
        for where, rows in groups.items():
            parts += [where, "", table(rows), ""]
    if (folder / "growth.png").is_file():
        parts += ["## Growth with size", "", "![Seconds over size, plain and ours](growth.png)", ""]
    limits = folder / "limits.md"
    if limits.is_file():
        parts.append(limits.read_text(encoding="utf-8"))
    return "\n".join(parts).rstrip() + "\n"
