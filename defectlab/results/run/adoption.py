"""Storing the files of a run that another process or machine has computed as a run of this project."""

import logging
from collections.abc import Mapping
from pathlib import Path

from defectlab.results.run.folder_lock import locked
from defectlab.results.run.location import parent_of, place_of
from defectlab.results.run.ownership import release
from defectlab.results.run.record import FILE, RunRecord, find_record
from defectlab.results.run.rerun import make_rerun_folder, replace_run
from defectlab.results.run.run import Run
from defectlab.utils.files import write_json
from defectlab.utils.json_files import parse_json

logger = logging.getLogger(__name__)


def adopt_run(files: Mapping[str, bytes], results: Path) -> Run:
    """Write a run's files, keyed by path in its folder, to the experiment's place under `results`; return the run.

    An earlier run of the same experiment is replaced; another experiment of the same name keeps it, and this one gets a
    suffix that says what differs.
    """
    record = RunRecord.from_dict(parse_json(files[FILE]))
    parent = parent_of(results, record)
    parent.mkdir(parents=True, exist_ok=True)
    with locked(parent):
        final = place_of(parent, record.name, record.facts, record.run_id)
        find_record(final)  # raises if a record of a newer version must stay
        folder = make_rerun_folder(parent, final.name)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        write_json(folder / FILE, record.replaced(name=final.name).to_dict())
        replace_run(final, folder)
        release(final)
    logger.info("Run %s: %s", record.run_id, final)
    return Run.open(final)
