"""Paired tests of each configuration against the best on the same test images, for one or several seeds.

The AUROC is a mean of placements (DeLong et al., 1988), so the mean AUROC over seeds is the mean of the placements
averaged over seeds: the paired test and the interval of one run apply unchanged. Seeds are treated as fixed and images
as the sample; where parts have several photographs (`data.group`), parts are the sample.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectlab.evaluation.delong import Groups, Indices, group_indices, is_unvaried, placement_variance, placements
from defectlab.evaluation.intervals import CONFIDENCE, Interval, auroc_interval, interval_from_placements
from defectlab.evaluation.multiple_comparisons import compare_auroc
from defectlab.evaluation.paired_tests import delong_test
from defectlab.evaluation.ranks import average_ranks
from defectlab.results.groups import groups_of_paths, paths_below_root
from defectlab.results.run.run import Run
from defectlab.results.run.scores import LABELS, damaged_scores, score_table
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TestScores:
    """A run's test images in the order of their paths: paths and defects (n,), labels (n,) and raw scores (n,).

    Paths are relative to the dataset's root, so that they match between runs with the dataset in different places.

    `groups` (n,) are the names of the parts that the images show, for a run with `data.group`.
    """

    __test__ = False  # not a test class, although pytest collects classes with such a name

    paths: tuple[str, ...]
    defects: tuple[str, ...]
    labels: NDArray[np.int64]
    scores: Floats
    groups: tuple[str, ...] | None = None

    @property
    def units(self) -> Indices:
        """Index (n,) of each image's independent unit: the part that the image shows, else the image itself."""
        return np.arange(self.labels.size) if self.groups is None else group_indices(self.groups, self.labels.size)

    @property
    def testable(self) -> bool:
        """Whether a paired test is possible: two images (or parts) of each class or more, finite scores."""
        counts = [np.unique(self.units[self.labels == label]).size for label in (0, 1)]
        return min(counts) >= 2 and self.finite

    @property
    def finite(self) -> bool:
        """Whether the score of every labelled image is a number; else the model has failed on some of them."""
        return bool(np.isfinite(self.scores[self.labels >= 0]).all())

    @property
    def labelled(self) -> "TestScores":
        """The scores of the images with a known label."""
        if (self.labels >= 0).all():
            return self
        at = np.flatnonzero(self.labels >= 0).tolist()
        paths, defects = (tuple(names[place] for place in at) for names in (self.paths, self.defects))
        groups = None if self.groups is None else tuple(self.groups[place] for place in at)
        return TestScores(paths, defects, self.labels[at], self.scores[at], groups)

    def same_images(self, other: "TestScores") -> bool:
        """Return whether both objects have the same labelled images with the same parts and labels."""
        one, two = self.labelled, other.labelled
        same = one.paths == two.paths and one.groups == two.groups
        return same and bool((one.labels == two.labels).all())


def read_test_scores(run: Run) -> TestScores | None:
    """Read the test rows of a run's scores.csv as columns; None if the run has no test scores.

    Raises:
        InputError: The file is damaged.
    """
    path = run.folder / "scores.csv"
    if not path.is_file():
        return None
    at, table = score_table(path)
    rows = [row for row in table if row[at["split"]] == "test"]
    if run.category is not None:
        rows = [row for row in rows if row[at["category"]] == run.category]
    if not rows:
        return None
    names = paths_below_root(run.record, [row[at["image_path"]] for row in rows])
    ordered = sorted(zip(names, rows, strict=True), key=lambda pair: pair[0])
    columns = list(zip(*(row for _, row in ordered), strict=True))
    groups = groups_of_paths(run.record, columns[at["image_path"]])
    try:
        labels = np.array([LABELS[label] for label in columns[at["label"]]], dtype=np.int64)
        scores = np.array(columns[at["score"]], dtype=np.float64)
    except (ValueError, KeyError) as error:
        raise damaged_scores(path, error) from None
    paths = tuple(name for name, _ in ordered)
    return TestScores(paths, columns[at["defect"]], labels, scores, None if groups is None else tuple(groups))


def find_test_scores(run: Run) -> TestScores | None:
    """Return a run's test scores among those of others; None, with a warning, where its file is damaged."""
    try:
        return read_test_scores(run)
    except InputError as error:
        logger.warning("Unreadable scores: %s (%s: its ties are not tested)", error, run.folder.name)
        return None


def mean_auroc_interval(seeds: Sequence[TestScores], confidence: float = CONFIDENCE) -> Interval:
    """Return the interval over images of the mean AUROC over seeds; for one seed that of `auroc_interval`."""
    seeds = [one.labelled for one in seeds]
    first = seeds[0]
    found = [auroc_interval(one.scores, one.labels, confidence, one.groups) for one in seeds]
    unknown = next((one for one in found if one.low is None), None)
    if len(seeds) == 1 or unknown is not None:
        return unknown or found[0]
    above, below = _placed(seeds)
    note = f", mean of {len(seeds)} seeds"
    return interval_from_placements(
        float(above.mean()), above, below, _groups_by_class(first), confidence=confidence, note=note
    )


def against_best(entries: Sequence[Sequence[TestScores]], best: int) -> list[float | None]:
    """Return each entry's p-value, corrected for all comparisons, for an image AUROC not below that of any other.

    Two entries are compared by DeLong's paired test, more by `compare_auroc`: that the best was picked on these very
    images then counts.

    Args:
        entries: Of each configuration the scores of its seeds; none where they are not at hand.
        best: Position of the best one.

    Returns:
        None for the best itself and for what cannot be tested: no scores, other images, or too few of a class.
    """
    entries = [[one.labelled for one in seeds] for seeds in entries]
    usable = [bool(seeds) and all(one.testable for one in seeds) for seeds in entries]
    compared = [
        place
        for place, seeds in enumerate(entries)
        if usable[place] and usable[best] and all(one.same_images(entries[best][0]) for one in (*seeds, *entries[best]))
    ]
    others = [place for place in compared if place != best]
    if len(others) < 2:
        return [_p_of_difference(entries[best], its) if n in others else None for n, its in enumerate(entries)]
    first = entries[best][0]
    scores = [np.stack([one.scores for one in entries[place]]) for place in compared]
    p_values = dict(zip(compared, compare_auroc(scores, first.labels, first.units).tolist(), strict=True))
    return [p_values[place] if place in others else None for place in range(len(entries))]


def _p_of_difference(first: Sequence[TestScores], second: Sequence[TestScores]) -> float:
    """Return the two-sided p-value for equal mean AUROC over seeds, by DeLong's paired test."""
    (top, bottom), (other_top, other_bottom) = _placed(first), _placed(second)
    top, bottom = top - other_top, bottom - other_bottom
    if not top.any() and not bottom.any():
        return 1.0  # all placements are equal
    variance = placement_variance(top, bottom, _groups_by_class(first[0]))
    if variance == 0 or is_unvaried(top, bottom) or len(first) == len(second) == 1:
        return delong_test(_mean_ranks(first), _mean_ranks(second), first[0].labels, groups=first[0].groups).p
    return math.erfc(abs(float(top.mean())) / math.sqrt(2 * variance))


def _groups_by_class(images: TestScores) -> Groups | None:
    if images.groups is None:
        return None
    return images.units[images.labels == 1], images.units[images.labels == 0]


def _placed(seeds: Sequence[TestScores]) -> tuple[Floats, Floats]:
    """Return the placements of the anomalous and of the good images, averaged over the seeds."""
    found = [placements(one.scores[one.labels == 1], one.scores[one.labels == 0]) for one in seeds]
    return np.mean([top for top, _ in found], axis=0), np.mean([bottom for _, bottom in found], axis=0)


def _mean_ranks(seeds: Sequence[TestScores]) -> Floats:
    """Return each image's mean rank over the seeds; for one seed the scores themselves, which have the same order."""
    return seeds[0].scores if len(seeds) == 1 else np.mean([average_ranks(one.scores) for one in seeds], axis=0)
