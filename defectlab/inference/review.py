"""Review of predictions: a person's verdicts on predicted images, and training again with confirmed images."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from defectlab.data.folder import Folder
from defectlab.data.manifest.extension import with_training_images
from defectlab.data.manifest.manifest import Manifest
from defectlab.data.samples.store import MARKER
from defectlab.results.run.category_run import one_dataset
from defectlab.results.run.run import Run
from defectlab.utils import paths
from defectlab.utils.files import read_csv, write_csv
from defectlab_runtime.errors import InputError, did_you_mean, unknown_name
from defectlab_runtime.prediction import Prediction

logger = logging.getLogger(__name__)

VERDICTS = ("good", "anomalous", "unsure")
HEADER = ("image_path", "score", "label", "verdict", "reviewed")


def write_verdicts(found: Sequence[Prediction], verdicts: Mapping[str, str], path: str | Path) -> Path:
    """Write a person's verdicts on predicted images to a CSV; earlier rows stay unless an image gets a new verdict.

    Args:
        found: Predictions of image files.
        verdicts: Image path, or file name where it is the only one, to good, anomalous or unsure.
        path: The CSV: image_path, score (raw), label (predicted), verdict, reviewed (when).

    Raises:
        InputError: An image that was not predicted, a name that fits two, or no such verdict; nothing is written then.
    """
    target = paths.resolve(path)
    rows = {row["image_path"]: row for row in _read(target)} if target.is_file() else {}
    changed = []
    for name, verdict in verdicts.items():
        if verdict not in VERDICTS:
            raise InputError(f"{name}: {unknown_name('verdict', str(verdict), VERDICTS)}")
        one = _named(found, name)
        key = paths.relative(str(one.image_path))
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        before = rows.get(key, {}).get("verdict")
        if before and before != verdict:
            changed.append(f"{key} from {before} to {verdict}")
        rows[key] = dict(zip(HEADER, (key, repr(one.score), str(one.label), verdict, now), strict=True))
    header = list(dict.fromkeys([*HEADER, *(name for row in rows.values() for name in row)]))  # a person's too
    write_csv(target, header, ([row.get(name) for name in header] for row in rows.values()))
    if changed:
        logger.info("%d earlier verdicts are replaced: %s", len(changed), "; ".join(changed))
    return target


def sample_verdicts(found: Sequence[Prediction]) -> dict[str, str]:
    """Return the verdicts that the folders of a built-in sample give on its test images; none on any other image."""
    images = [Path(one.image_path) for one in found if one.image_path is not None]
    ours = [image for image in images if len(image.parents) > 2 and (image.parents[2] / MARKER).is_file()]
    return {str(image): "good" if image.parent.name == "good" else "anomalous" for image in ours}


def verdicts_on(found: Sequence[Prediction], path: str | Path) -> list[str]:
    """Return the verdict on each predicted image in a CSV of `write_verdicts`; empty for one without.

    Raises:
        InputError: No such file, other columns, or a verdict that does not exist.
    """
    known = {paths.resolve(row["image_path"]): row["verdict"] for row in _read(paths.resolve(path))}
    return ["" if one.image_path is None else known.get(paths.resolve(one.image_path), "") for one in found]


def confirmed(path: str | Path, verdict: str = "good") -> list[Path]:
    """Return the images with the given verdict in a CSV of `write_verdicts`, which a person may edit too.

    Raises:
        InputError: No such file, other columns, or a verdict that does not exist.
    """
    if verdict not in VERDICTS:
        raise InputError(unknown_name("verdict", verdict, VERDICTS))
    return [paths.resolve(row["image_path"]) for row in _read(paths.resolve(path)) if row["verdict"] == verdict]


class ReviewedFolder(Folder):
    """The images of a run with additional good training images; validation and test images are unchanged.

    The new run is thus tested on the same images as the old one, and `compare_runs` can compare the two.

    Args:
        run: Run folder.
        images: Good images to add, such as `confirmed("verdicts.csv")`; those it trains on already are left out.
        options: Of `Folder`, in place of the run's own: batch sizes, num_workers, augmentations.

    Raises:
        InputError: No run, or nothing to add.
        DataError: On first use: images that are in its validation or test set, unreadable ones, or images of the run
            that have changed since.
    """

    def __init__(self, run: str | Path, images: Sequence[str | Path], **options: Any) -> None:
        self.run = Run.open(run)
        self.images = [paths.resolve(image) for image in images]
        if not self.images:
            raise InputError("No images to add: nothing was confirmed as good, so training again would give the same.")
        one_dataset(self.run, "a training with reviewed images")
        own = self.run.record.experiment.data
        super().__init__(**{key: value for key, value in own.items() if not key.endswith("augmentations")} | options)

    @cached_property
    def manifest(self) -> Manifest:
        """Manifest of the run with the added images, built and checked on first use."""
        manifest = with_training_images(
            Manifest.read(self.run.folder / "manifest.json"), self.images, "confirmed in a review"
        )
        self._is_setup = True
        return manifest


def _named(found: Sequence[Prediction], name: str) -> Prediction:
    fitting = [one for one in found if one.image_path and name in (one.image_path, paths.relative(one.image_path))]
    fitting = fitting or [one for one in found if one.image_path and Path(one.image_path).name == name]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InputError(f"{name} is the name of {len(fitting)} images: give its path.")
    names = [Path(one.image_path).name for one in found if one.image_path]
    raise InputError(f"{name} is not among the images predicted.{did_you_mean(Path(name).name, names)}")


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"There is no file {path}; write_verdicts makes it.")
    header, found = read_csv(path, encoding="utf-8-sig")
    if not {"image_path", "verdict"} <= set(header):
        raise InputError(f"{path} must have the columns image_path and verdict, as write_verdicts makes it.")
    rows = [dict(zip(header, row, strict=False)) for row in found]
    wrong = [row for row in rows if row["verdict"] not in ("", *VERDICTS)]
    if wrong:
        raise InputError(f"{path}: {unknown_name('verdict', wrong[0]['verdict'], VERDICTS)}")
    return rows
