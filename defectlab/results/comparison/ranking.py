"""Ranking of configurations within one dataset, split and pixel grid, with intervals and paired tests."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePath
from typing import Any

from defectlab.evaluation.intervals import Interval
from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.results.comparison.paired_test import SIGNIFICANT
from defectlab.results.comparison.repeats import Spread, spread
from defectlab.results.comparison.significance import TestScores, against_best, mean_auroc_interval
from defectlab.results.run.run import Run
from defectlab.results.workbook_row import (
    FINISHED,
    GRID,
    KEY,
    ONE_MODEL,
    RANDOM,
    RankingKey,
    Row,
    interval_columns,
    is_partial,
    number,
    ranking_key,
)

RANKED_BY = "image_AUROC"
TIE_BREAKERS = ("image_AUPR", "pixel_AUPRO", "pixel_AUROC")  # order entries with equal image AUROC
SHOWN_METRICS = (*BARE_METRICS, "image_AUPR", "pixel_AUPRO")
NOT_FINITE = "not ranked: some scores are not finite"
BEST, TIED, WORSE, UNTESTED = "best", "tied with the best", "worse", "not tested"
_SEED_SUFFIX = re.compile(r"_(weights|seed)(-\w*)?$")  # an incomplete seed part at the end of the names' common prefix


@dataclass(frozen=True)
class Entry:
    """One configuration: its rows, one for each seed, and the spread of each metric over the seeds.

    `interval` is the interval over test images of the image AUROC, or of its mean for several seeds; `p` is the
    p-value of the tests against the others, corrected for their number; `verdict` is empty without an image AUROC or
    without another entry to compare with; `images` counts the test images by label.
    """

    rows: tuple[Row, ...]
    spreads: dict[str, Spread]
    interval: Interval
    verdict: str
    p: float | None
    images: str = ""

    @property
    def name(self) -> str:
        """The run's name, or for several seeds their names' common prefix, marked where the weights are random."""
        names = [str(row.get("run", row[KEY])) for row in self.rows]
        if len(names) == 1:
            return names[0]
        alike = (len(set(letters)) == 1 for letters in zip(*names, strict=False))
        beginning = names[0][: len(list(takewhile(bool, alike)))]
        common = _SEED_SUFFIX.sub("", beginning.rstrip("_-")) or names[0]
        return f"{common}_weights-{RANDOM}" if self.weights == RANDOM else common

    @property
    def weights(self) -> str:
        """The backbone's weights: the name of their file, or `random`."""
        source = str(self.rows[0].get("weights", ""))
        return RANDOM if source.startswith(RANDOM) else PurePath(source).name

    def mean(self, column: str) -> float | None:
        """Return the mean of a column over the seeds that have a number in it."""
        values = [value for row in self.rows if (value := number(row, column)) is not None]
        return sum(values) / len(values) if values else None

    @property
    def seed_names(self) -> str:
        """The seeds of this configuration's rows, in words."""
        return ", ".join(str(row.get("seed", "?")) for row in self.rows)

    @property
    def seeds(self) -> "tuple[Entry, ...]":
        """Each seed as an entry of its own, without a verdict."""
        return tuple(Entry((row,), _spreads([row]), _interval([row], ()), "", None, self.images) for row in self.rows)

    @property
    def images_per_second(self) -> float | None:
        """Test images over the seconds of the whole test, reading them included."""
        images, seconds = self.mean("test_images"), self.mean("test_seconds")
        return images / seconds if images and seconds else None

    @property
    def note(self) -> str:
        """Warnings about the entry: oracle thresholds, selection on the test images, and states other than finished."""
        notes = []
        if any("(oracle)" in str(row.get("thresholds_from", "")) for row in self.rows):
            notes.append("threshold chosen on the test images (oracle)")
        notes += dict.fromkeys(chosen for row in self.rows if "(oracle)" in (chosen := str(row.get("chosen", ""))))
        notes += dict.fromkeys(f"one model for {row[ONE_MODEL]}" for row in self.rows if row.get(ONE_MODEL))
        notes += dict.fromkeys(str(row["state"]) for row in self.rows if row.get("state", FINISHED) != FINISHED)
        return "; ".join(notes)

    def values(self) -> dict[str, Any]:
        """Return the entry's values by table column; None for a column without a value."""
        spread = self.spreads.get(RANKED_BY)
        return {
            "verdict": self.verdict or None,
            "dataset": self.rows[0].get("dataset"),
            "test images": self.images or None,
            "model": self.rows[0].get("model"),
            "backbone": self.rows[0].get("backbone"),
            "weights": self.weights or None,
            "run": self.name,
            "seed": self.seed_names,
            "95% low": self.interval.low,
            "95% high": self.interval.high,
            "p (corrected)": self.p,
            "sd of seeds": spread and spread.deviation,
            "seeds 95% low": spread and spread.low,
            "seeds 95% high": spread and spread.high,
            **{metric: self.mean(metric) for metric in SHOWN_METRICS},
            "fit_seconds": self.mean("fit_seconds"),
            "images/s": self.images_per_second,
            "checkpoint_MB": self.mean("checkpoint_MB"),
            "note": self.note or None,
        }


@dataclass(frozen=True)
class Ranking:
    """Comparable configurations, best first, and the metrics of a trivial detector on the same test images."""

    group: RankingKey
    entries: tuple[Entry, ...]
    protocol: str
    trivial: dict[str, float]


def rank_rows(rows: Sequence[Row], runs: Mapping[str, Run], scores: Mapping[str, TestScores | None]) -> list[Ranking]:
    """Rank the rows by image AUROC within each dataset, split and pixel size; several seeds form one configuration.

    Equal image AUROCs are ordered by image AUPR, then by pixel metrics. The verdict depends on the image AUROC alone.
    Runs that have not scored all of their images are left out. One with scores that are not finite has no image AUROC:
    it comes last, with a note.

    Args:
        rows: Of the workbook.
        runs: The runs at hand by id, for the counts of their splits.
        scores: Their test scores by id; without these a row's tie with the best cannot be tested.
    """
    groups: dict[RankingKey, list[Row]] = {}
    for row in rows:
        if is_partial(row):
            continue
        known = scores.get(str(row[KEY]))
        ranked = row if known is None or known.finite else _unranked(row)
        groups.setdefault(ranking_key(row), []).append(ranked)
    return [_ranking(group, its, runs, scores) for group, its in groups.items()]


def _unranked(row: Row) -> Row:
    """Return a row without its metrics of images, which older records hold for scores that are not finite too."""
    kept = {column: value for column, value in row.items() if not column.startswith("image_")}
    return kept | {"state": NOT_FINITE}


def _ranking(
    group: RankingKey, rows: Sequence[Row], runs: Mapping[str, Run], scores: Mapping[str, TestScores | None]
) -> Ranking:
    configurations: dict[str, list[Row]] = {}
    for row in rows:
        configurations.setdefault(str(row.get("repeat_key", row[KEY])), []).append(row)
    seeds = [
        sorted(its, key=lambda row: (str(type(row.get("seed"))), row.get("seed"))) for its in configurations.values()
    ]
    means = [[_mean(_spreads(its).get(metric)) for metric in (RANKED_BY, *TIE_BREAKERS)] for its in seeds]
    order = sorted(range(len(seeds)), key=lambda place: [-mean for mean in means[place]])
    ordered = [seeds[place] for place in order]
    at_hand = [_scores_of(its, scores) for its in ordered]
    p_values = against_best(at_hand, 0)
    images = _test_images(rows, runs)
    entries = [
        Entry(tuple(its), _spreads(its), _interval(its, known), _verdict(place, len(ordered), its, p), p, images)
        for place, (its, known, p) in enumerate(zip(ordered, at_hand, p_values, strict=True))
    ]
    trivial = {
        metric: value
        for metric in ("image_F1Score", "image_AUPR")
        if (value := next((v for row in rows if (v := number(row, f"trivial {metric}")) is not None), None)) is not None
    }
    return Ranking(group, tuple(entries), _protocol(group, rows, runs), trivial)


def _spreads(rows: Sequence[Row]) -> dict[str, Spread]:
    found = {metric: [v for row in rows if (v := number(row, metric)) is not None] for metric in SHOWN_METRICS}
    return {metric: spread(values) for metric, values in found.items() if values}


def _mean(found: Spread | None) -> float:
    return -1.0 if found is None else found.mean


def _scores_of(rows: Sequence[Row], scores: Mapping[str, TestScores | None]) -> list[TestScores]:
    """Return the test scores of all rows, or an empty list if any row's scores are missing."""
    found = [known for row in rows if (known := scores.get(str(row[KEY]))) is not None]
    return found if len(found) == len(rows) else []


def _interval(rows: Sequence[Row], scores: Sequence[TestScores]) -> Interval:
    if len(rows) == 1:
        low, high = (number(rows[0], column) for column in interval_columns(RANKED_BY))
        return Interval(low, high, "on record")
    if not scores or any(not one.same_images(scores[0]) for one in scores):
        return Interval(None, None, "the scores of some seeds are not at hand")
    return mean_auroc_interval(scores)


def _verdict(place: int, count: int, rows: Sequence[Row], p: float | None) -> str:
    if count == 1 or not any(number(row, RANKED_BY) is not None for row in rows):
        return ""
    if place == 0:
        return BEST
    if p is None:
        return UNTESTED
    return TIED if p >= SIGNIFICANT else WORSE


def _protocol(group: RankingKey, rows: Sequence[Row], runs: Mapping[str, Run]) -> str:
    """Describe the images of each split, the protocol, the groups and the pixel grid that the rows were tested on."""
    run = next((runs[str(row[KEY])] for row in rows if str(row[KEY]) in runs), None)
    parts = []
    if run is not None:
        parts = [_counted(split, run.record.dataset.protocol.counts) for split in ("test", "validation", "train")]
    elif number(rows[0], "test_images") is not None:
        parts = [f"{split}: {rows[0].get(f'{split}_images', 0)} images" for split in ("test", "validation", "train")]
    parts += [str(rows[0].get("protocol", ""))]
    if copies := max((number(row, "near_duplicates") or 0 for row in rows), default=0):
        parts += [f"{copies:.0f} pairs of near-duplicates in two splits: the test knows them"]
    if rows[0].get("data.group"):
        parts += ["several photographs of one part: intervals and ties take parts, not images, as independent"]
    if "manifest" in rows[0]:
        grid = {"input": "the model's input", "original": "the images' own size"}.get(group[2], group[2])
        sizes = sorted({str(row[GRID]) for row in rows if row.get(GRID)})
        several = f" (of several sizes, not comparable in these: {', '.join(sizes)})" if len(sizes) > 1 else ""
        parts += [f"pixel metrics on {grid}{several}", f"split {group[1][:6]}"]
    return "; ".join(part for part in parts if part)


def _test_images(rows: Sequence[Row], runs: Mapping[str, Run]) -> str:
    """Return the number of test images by label, on which verdicts rest; without a record their number alone."""
    run = next((runs[str(row[KEY])] for row in rows if str(row[KEY]) in runs), None)
    if run is not None:
        counts = run.record.dataset.protocol.counts.get("test", {})
        return " + ".join(f"{count} {label}" for label, count in counts.items() if count)
    total = number(rows[0], "test_images")
    return "" if total is None else f"{total:.0f}"


def _counted(split: str, counts: Mapping[str, Mapping[str, Any]]) -> str:
    its = {label: count for label, count in counts.get(split, {}).items() if count}
    return f"{split}: " + (" and ".join(f"{count} {label}" for label, count in its.items()) or "none")
