"""Options of a search: number of trials, sampler and objective. Imports neither torch nor Optuna."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from defectlab.evaluation.metric_names import LOWER_IS_BETTER, METRICS
from defectlab.utils.validation import check_integer, check_option_names, check_types, section_options
from defectlab_runtime.errors import OptionError, unknown_name

STRATEGIES = ("optuna", "random")
DIRECTIONS = ("maximize", "minimize")
OBJECTIVES = tuple(sorted(name for name in METRICS if name.startswith(("image_", "pixel_"))))
PRUNING = {"startup_trials": 5, "warmup_epochs": 0}  # as Optuna's MedianPruner has them


@dataclass(frozen=True)
class SearchConfig:
    """Options of section `search` of a sweep: the grid is then a space from which trials are drawn.

    Attributes:
        strategy: optuna (TPE: later trials are drawn where earlier ones were good) or random.
        trials: How many, those on record included; a search is made longer by a larger number.
        seed: Of the draws; the same seed draws the same trials, however often the search was ended and taken up.
        objective: A metric, measured on validation images: of a run's raw scores, at the run's own thresholds.
        direction: maximize or minimize; default is what is better of the metric.
        batch: Trials that are drawn before the first of them is judged: more of them share work and can run at once,
            fewer learn from one another. Default is 1 for optuna; random draws all at once.
        pruning: Whether trainings that are worse than the median of earlier ones at the same epoch are ended; a
            mapping with `startup_trials` and `warmup_epochs` says when it begins.
    """

    strategy: str = "optuna"
    trials: int = 20
    seed: int = 0
    objective: str = "image_AUROC"
    direction: str = ""
    batch: int = 0
    pruning: dict[str, int] | None = None

    @classmethod
    def from_dict(cls, data: Any) -> "SearchConfig":
        """Build the search options from the plain data of the section `search`.

        Raises:
            OptionError: An option that does not exist or cannot work.
        """
        given = section_options("search", data, cls, "{strategy: optuna, trials: 50}")
        check_types(cls, {key: value for key, value in given.items() if key != "pruning"}, "search")
        given["pruning"] = _pruning(given.get("pruning", False))
        config = cls(**given)
        config.check()
        return config

    def check(self) -> None:
        """Check the options of the search.

        Raises:
            OptionError: The first that cannot work.
        """
        for name, value, allowed in (
            ("strategy", self.strategy, STRATEGIES),
            ("objective", self.objective, OBJECTIVES),
            ("direction", self.direction or DIRECTIONS[0], DIRECTIONS),
        ):
            if value not in allowed:
                raise OptionError(f"search: {unknown_name(name, str(value), allowed)}")
        check_integer("search", "trials", self.trials, low=1)
        check_integer("search", "seed", self.seed, low=0)
        check_integer("search", "batch", self.batch, low=0)
        if self.pruning is not None and self.strategy != "optuna":
            raise OptionError("search: pruning compares a training with earlier ones, which strategy optuna does.")

    @property
    def maximizes(self) -> bool:
        """Whether a larger value of the objective is better."""
        if self.direction:
            return self.direction == "maximize"
        return self.objective not in LOWER_IS_BETTER

    @property
    def batch_size(self) -> int:
        """Number of trials that are drawn together."""
        return self.batch or (1 if self.strategy == "optuna" else self.trials)


def _pruning(value: Any) -> dict[str, int] | None:
    if value is False:
        return None
    given = {} if value is True else value
    if not isinstance(given, Mapping):
        raise OptionError(f"search: pruning is true, false or a mapping with {' and '.join(PRUNING)}, got {value!r}.")
    check_option_names(given, PRUNING, "search.pruning")
    for name, number in given.items():
        check_integer("search.pruning", name, number, low=0)
    return PRUNING | dict(given)
