"""Every model of the reference systems on three sets: run what is not on record, write the table of docs/models.md.

    make models                                    # all of it; ended before its time, the same command goes on
    python -m benchmarks.every_model --only padim stfpm --sets coins
    python -m benchmarks.every_model --table       # only the table again, from the workbook

`configs/models_coins.yaml`, `models_digits.yaml` and `models_bottle.yaml` say what is run. The samples are made where
they are absent; bottle is left out unless data/bottle or DEFECTLAB_REAL has it.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.models_table import BEGIN, END, row_for, table
from defectlab.experiment import Experiment
from defectlab.results.workbook import read_workbook, update_workbook
from defectlab.sweeps.config import SweepConfig
from defectlab.utils import paths
from defectlab.utils.files import replace_between
from defectlab.utils.logs import show_log

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "models.md"
SETS = ("digits", "coins", "bottle")  # the cheapest first
# EfficientAD's teachers, made where they are absent: of the backbone that the set's other models have.
TEACHER = {"model_size": "tiny", "teacher_out_channels": 64, "image_size": 128, "steps": 200, "batch_size": 8}


def wanted(sets: Sequence[str], models: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the experiments of some sets as plain data, in the order of their files."""
    configs = (SweepConfig.from_yaml(ROOT / "configs" / f"models_{name}.yaml") for name in sets)
    return [data for config in configs for data in config.expanded() if not models or data["model"]["name"] in models]


def run(every: Sequence[dict[str, Any]]) -> int:
    """Train and test what is not on record; return how many are missing."""
    from defectlab.sweeps.run_many import run_many

    experiments = [experiment for data in every if (experiment := experiment_at_hand(data)) is not None]
    for experiment in experiments:
        _make_teacher(experiment)
    runs = run_many(experiments)
    return len(every) - len(runs)


def experiment_at_hand(data: dict[str, Any]) -> Experiment | None:
    """Return an experiment with its images at hand; None where there are none."""
    from defectlab.data.samples import SAMPLES, make_sample

    experiment = Experiment.from_dict(data)
    root = paths.resolve(str(experiment.data.root))
    real = os.environ.get("DEFECTLAB_REAL")
    if root.name in SAMPLES:
        make_sample(root.name, root, exist_ok=True)
    elif not root.is_dir() and real and (Path(real) / f"mvtec_{root.name}_512").is_dir():
        return replace(experiment, data=replace(experiment.data, root=f"{real}/mvtec_{root.name}_512"))
    elif not root.is_dir():
        logger.warning("%s is left out: there is no %s", experiment.model["name"], paths.relative(root))
        return None
    return experiment


def _make_teacher(experiment: Experiment) -> None:
    """Distil the teacher that an EfficientAD names, from the backbone in the file's name, where it is absent."""
    from defectlab import distil_teacher, load_backbone

    file = experiment.model.get("teacher")
    if file is None or paths.resolve(file).is_file():
        return
    backbone = Path(file).stem.removeprefix("teacher_")
    logger.info("%s is not there: distilled from %s", file, backbone)
    distil_teacher(load_backbone(backbone), **TEACHER, output=file)


def write_page(every: Sequence[dict[str, Any]], page: Path = PAGE) -> int:
    """Write the table between the page's markers, from the workbook; return how many are not on record."""
    update_workbook()
    rows = read_workbook()
    replace_between(page, BEGIN, END, table(every, rows))
    return sum(row_for(one, rows) is None for one in every)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and write; the exit code is 1 where something is missing."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="Run these sets only.")
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="Run these models only.")
    parser.add_argument("--table", action="store_true", help="Run nothing: only write the table.")
    parser.add_argument("--no-table", action="store_true", help="Run only: leave docs/models.md as it is.")
    given = parser.parse_args(arguments)
    show_log()
    missing = 0 if given.table else run(wanted(given.sets, given.only))
    if not given.no_table:
        missing = write_page(wanted(SETS))
        print(f"{PAGE.relative_to(ROOT)}: {missing} not on record")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
