"""A run that another process or machine has made takes its place under this project's results."""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from defectlab.files import write_json
from defectlab.results.identity import safe_name
from defectlab.results.record import Run, locked, place_of

logger = logging.getLogger(__name__)


def adopt_run(files: Mapping[str, bytes], results: Path, model: str, dataset: str) -> Run:
    """Write a run's files, by path in its folder, to where the same experiment run here would be; return the run.

    An earlier run of the same experiment is replaced; another experiment of the same name keeps it, and this one gets a
    suffix that says what differs.
    """
    record = json.loads(files["run.json"])
    parent = results / safe_name(model) / safe_name(dataset)
    parent.mkdir(parents=True, exist_ok=True)
    with locked(parent):
        final = place_of(parent, record["name"], record["facts"], record["run_id"])
        folder = parent / f".{final.name}.rerun-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        write_json(folder / "run.json", record | {"name": final.name})
        old = parent / f".{final.name}.old-{os.getpid()}"
        if final.exists():
            final.rename(old)
        folder.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    logger.info("Run %s: %s", record["run_id"], final)
    return Run.open(final)
