"""The part of a run's record on fits with a few of its training images (`data.k_shots`)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from defectlab.utils.json_object import JsonObject


@dataclass(frozen=True, kw_only=True)
class KShotRecord(JsonObject):
    """Results on the run's test images of a fit on `k` of its training images.

    Attributes:
        draw: Number of the draw, from 0; draw and `seed` decide which images it takes, in which order.
        images: Those images, as the manifest names them; empty for all, where the fit is that of the run itself.
        metrics: Values by name, None where a metric cannot be computed; `metric_reasons` says why.
        seconds: Of fit, scores and metrics; None for the run itself where a sweep shared its work.
    """

    k: int
    draw: int
    seed: int
    images: list[str] = field(default_factory=list)
    metrics: Mapping[str, float | None]
    metric_reasons: Mapping[str, str | None] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def key(self) -> tuple[int, int, int]:
        """What identifies the fit within a run: its number of images, its draw and the draw's seed."""
        return self.k, self.draw, self.seed


@dataclass(frozen=True, kw_only=True)
class KShotsRecord(JsonObject):
    """Fits with a few of the run's training images, to see how many are enough.

    Attributes:
        images: Training images that there are.
        fits: In the order in which they were made, which is that of the rows of k_shots.npy: their raw scores of the
            test images, in the order of scores.csv.
        left_out: Numbers of images that the model cannot be fitted on, with the reason.
        seconds: Of features, fits and files, without the run itself.
    """

    images: int
    fits: list[KShotRecord] = field(default_factory=list)
    left_out: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def lacks(self, wanted: Iterable[tuple[int, int, int]]) -> bool:
        """Return whether a fit of these keys is not on record."""
        return not {fit.key for fit in self.fits}.issuperset(wanted)

    def values(self, metric: str) -> dict[int, dict[int, float]]:
        """Return a metric by number of images and draw, without fits for which it has no value."""
        found: dict[int, dict[int, float]] = {}
        for fit in self.fits:
            value = fit.metrics.get(metric)
            if value is not None:
                found.setdefault(fit.k, {})[fit.draw] = value
        return found
