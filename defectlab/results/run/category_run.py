"""One category of a run whose model serves several, seen as a run on that category alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from defectlab.results.run.category_record import CategoryRecord
from defectlab.results.run.record import RunRecord
from defectlab.results.run.result_records import NO_THRESHOLD, Thresholds
from defectlab.results.run.run import Run
from defectlab_runtime.errors import InputError, unknown_name
from defectlab_runtime.scores import ScoreRow

NONE_CHOSEN = "no threshold was chosen for this category"


class CategoryRun(Run):
    """A category of a run: its scores, maps, masks, thresholds and metrics, read from the run's folder.

    Everything that reads records takes it for the run of a model on this category. It writes nothing; `whole` is the
    run.
    """

    def __init__(self, whole: Run, category: CategoryRecord) -> None:
        super().__init__(whole.folder, _record_alone(whole.record, category))
        self.whole = whole
        self.category = category.name
        self.record = self._with_own_rows(self.record)

    @property
    def title(self) -> str:
        """Title of this category of the run for headings: model, run name and category."""
        return f"{self.whole.title} ({self.category})"

    def scores(self, split: str | None = None) -> list[ScoreRow]:
        """Return the category's rows of scores.csv: all, or those of one split."""
        return [row for row in self.whole.scores(split) if row.category == self.category]

    def places(self, split: str) -> list[int]:
        """Return the positions of the category's rows among those of the run's split."""
        return [place for place, row in enumerate(self.whole.scores(split)) if row.category == self.category]

    def maps(self, split: str) -> np.ndarray | None:
        """Return the raw maps (n, H, W) of the category's images of a split; None without maps."""
        return self._part(self.whole.maps(split), split)

    def packed_masks(self, split: str) -> np.ndarray | None:
        """Return the category's masks as stored, packed along the width; None where the category has no masks."""
        return self._part(self.whole.packed_masks(split), split) if self.record.dataset.has_masks else None

    def update(self, **fields_: Any) -> None:
        """Refuse: the record is the run's."""
        raise InputError(f"Category {self.category} of {self.folder} is read only: change the run itself.")

    def write_scores(self, rows: Sequence[ScoreRow]) -> None:
        """Refuse: the file is the run's."""
        self.update()

    def _part(self, array: np.ndarray | None, split: str) -> np.ndarray | None:
        if array is None:
            return None
        places = self.places(split)
        if split == "test" and (kept := self._kept) is not None:
            own = frozenset(places)
            places = [position for position, place in enumerate(kept) if place in own]
        if not places:
            return array[:0]
        first, last = places[0], places[-1]
        # rows of a category lie together, so that the part stays on disk
        return array[first : last + 1] if last - first + 1 == len(places) else array[places]

    @cached_property
    def _kept(self) -> list[int] | None:
        """Test rows of the run with a map on disk, where not all have one."""
        return None if self.whole.record.maps is None else self.whole.record.maps.rows

    def _with_own_rows(self, record: RunRecord) -> RunRecord:
        """Return the record with the rows that have a map counted among the category's."""
        if record.maps is None or record.maps.rows is None:
            return record
        position = {place: number for number, place in enumerate(self.places("test"))}
        rows = [position[place] for place in record.maps.rows if place in position]
        return replace(record, maps=replace(record.maps, rows=rows))


def _record_alone(record: RunRecord, category: CategoryRecord) -> RunRecord:
    """Return a run's record as that of a run on one of its categories."""
    none = NO_THRESHOLD.replaced(reason=NONE_CHOSEN)
    thresholds = record.thresholds.categories.get(category.name, Thresholds(image=none, pixel=none))
    return replace(
        record,
        run_id=f"{record.run_id}/{category.name}",
        dataset=category.dataset,
        thresholds=thresholds,
        metrics=category.metrics,
        metric_reasons=category.metric_reasons,
        intervals=category.intervals,
        per_defect=category.per_defect,
        trivial=category.trivial,
        categories=[],
    )


def category_runs(run: Run) -> list[CategoryRun]:
    """Return each category of a run as a run of its own; none for a run on one dataset."""
    return [CategoryRun(run, one) for one in run.record.categories]


def each_alone(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with each that serves several categories replaced by its categories."""
    return [one for run in runs for one in (*category_runs(run), *([] if run.record.categories else [run]))]


def category_run(run: Run, name: str) -> Run:
    """Return a category of a run as a run of its own; a run on this dataset alone is returned as it is.

    Raises:
        InputError: The run has no such category.
    """
    if not run.record.categories:
        if run.record.dataset.name == name:
            return run
        raise InputError(f"{run.folder} is of the dataset {run.record.dataset.name} alone, not of {name}.")
    for one in category_runs(run):
        if one.category == name:
            return one
    raise InputError(unknown_name("category", name, names_of(run.record)))


def names_of(record: RunRecord) -> list[str]:
    """Return the names of the categories of a run; none for a run on one dataset."""
    return [one.name for one in record.categories]


def one_dataset(run: Run, what: str) -> Run:
    """Return the run, which must not serve several categories for `what`.

    Raises:
        InputError: It does; says how one is chosen.
    """
    if run.record.categories:
        raise InputError(
            f"{run.folder.name} is one model for {', '.join(names_of(run.record))}, each with thresholds of its own: "
            f"{what} is of one category, such as category_run(run, {run.record.categories[0].name!r}) gives."
        )
    return run


def image_thresholds(thresholds: Thresholds) -> Mapping[str | None, float | None]:
    """Return the image thresholds by category; None is the key of a run on one dataset."""
    by_category: dict[str | None, float | None] = {name: one.image.value for name, one in thresholds.categories.items()}
    return {None: thresholds.image.value, **by_category}
