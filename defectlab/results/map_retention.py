"""Retention of a finished run's anomaly maps on disk by the option `keep_maps`."""

import numpy as np

from defectlab.results.curves import where_it_fails
from defectlab.results.run.category_run import category_runs
from defectlab.results.run.ownership import check_claim
from defectlab.results.run.result_records import MapRetentionRecord
from defectlab.results.run.run import Run
from defectlab.utils.files import replacing
from defectlab_runtime.errors import OptionError
from defectlab_runtime.scores import ScoreRow

KEEP_MAPS = ("all", "worst", "none")
WORST = 10


def check_keep_maps(keep_maps: str) -> str:
    """Validate the option `keep_maps` and return it.

    Raises:
        OptionError: It is none of the three.
    """
    if keep_maps not in KEEP_MAPS:
        raise OptionError(f"keep_maps must be one of {', '.join(KEEP_MAPS)}, got {keep_maps!r}.")
    return keep_maps


def drop_maps(run: Run, keep_maps: str) -> MapRetentionRecord:
    """Delete the maps that `keep_maps` does not retain, after the metrics are computed.

    "worst" keeps, of the test, the ten highest-scoring good images, the ten lowest-scoring anomalous ones and the ten
    closest to the threshold; so many of each category, where the run serves several.

    Returns:
        The policy, the positions of the test's rows in scores.csv that have a map, and what is not available then.
    """
    if keep_maps == "all":
        return MapRetentionRecord(policy="all")
    check_claim(run.folder)
    maps = run.maps("test")
    rows = _worst_of(run) if keep_maps == "worst" else []
    for path in (run.maps_path("test"), run.masks_path("test")):
        if rows and maps is not None and path.is_file():
            chosen = np.load(path, mmap_mode="r")[rows]
            with replacing(path) as partial, partial.open("wb") as file:
                np.save(file, chosen)
        else:
            path.unlink(missing_ok=True)
    for path in (run.maps_path("validation"), run.masks_path("validation"), *run.grid_paths("test")):
        path.unlink(missing_ok=True)
    unavailable = "pixel metrics and pixel thresholds cannot be computed again from this record"
    return MapRetentionRecord(policy=keep_maps, rows=rows, unavailable=unavailable)


def _worst_of(run: Run) -> list[int]:
    """Return the positions of the worst test rows of a run, of each of its categories where it serves several."""
    if run.record.categories:
        each = ((one.places("test"), _worst_of(one)) for one in category_runs(run))
        return sorted(places[row] for places, rows in each for row in rows)
    return worst_rows(run.scores("test"), run.record.thresholds.image.value)


def worst_rows(rows: list[ScoreRow], threshold: float | None, count: int = WORST) -> list[int]:
    """Return in ascending order the positions of the rows with the model's worst or closest decisions."""
    return sorted({index for indices in where_it_fails(rows, threshold, count).values() for index in indices})
