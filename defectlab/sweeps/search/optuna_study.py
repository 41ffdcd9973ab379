"""Optuna as the ledger of a search: ask and tell, with a journal file that survives being killed."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from defectlab.sweeps.result import COMPLETE, FAILED, PRUNED, Trial
from defectlab.sweeps.search.sampler import rounded, sample
from defectlab.sweeps.search_config import SearchConfig
from defectlab.sweeps.search_space import Choices, Options, Range, Space
from defectlab.sweeps.table import Outcome
from defectlab.utils.errors import InputError

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

JOURNAL = "study.journal"
SPACE, WEIGHTS, OUTCOMES, ERROR, VALUES, RETRIES = (
    "defectlab space",
    "defectlab weights",
    "outcomes",
    "error",
    "values",
    "retries",
)


def import_optuna() -> Any:
    """Return the package.

    Raises:
        InputError: It is not installed; says how to get it.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "strategy optuna needs the package optuna: `pip install 'defectlab[search]'`; or take strategy random, "
            "which needs nothing."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@contextmanager
def open_study(
    folder: Path,
    search: SearchConfig,
    space: Space,
    identity: Mapping[str, Any],
    weights: list[str],
    retry_failed: bool = False,
) -> Iterator["OptunaStudy"]:
    """Open, or begin, the study of a search in its folder, for this process alone.

    Args:
        folder: The sweep's.
        search: Strategy, number of trials, seed.
        space: Parts of the space.
        identity: What the values of its trials depend on beside the space, as plain data.
        weights: Hashes of the backbones' weights, on which they depend too.
        retry_failed: Whether trials that failed earlier are tried again, beside the others.

    Raises:
        InputError: Optuna is missing, another process runs this search, or the folder's study is of something else.
    """
    import_optuna()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "study.lock")
    try:
        with lock.acquire(timeout=0):
            yield OptunaStudy(folder / JOURNAL, search, space, identity, weights, retry_failed)
    except Timeout as error:
        raise InputError(f"Another process runs this search now, in {folder}. Wait for it, or stop it.") from error


class OptunaStudy:
    """Trials drawn by TPE from what earlier ones gave.

    A draw depends on the seed, the trial's number and what was told before, not on how often the process was ended:
    a search that was killed and taken up again draws the trials of one that never was.
    """

    def __init__(
        self,
        journal: Path,
        search: SearchConfig,
        space: Space,
        identity: Mapping[str, Any],
        weights: list[str],
        retry_failed: bool,
    ) -> None:
        optuna = import_optuna()
        self._optuna, self._search, self._space = optuna, search, space
        _mend(journal)
        backend = optuna.storages.journal.JournalFileBackend(str(journal))
        pruner = optuna.pruners.NopPruner()
        if search.pruning is not None:
            pruner = optuna.pruners.MedianPruner(
                n_startup_trials=search.pruning["startup_trials"], n_warmup_steps=search.pruning["warmup_epochs"]
            )
        self._study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name="search",
            direction="maximize" if search.maximizes else "minimize",
            pruner=pruner,
            load_if_exists=True,
        )
        self._check_same(journal, identity, weights)
        if retry_failed:
            self._enqueue_failed()

    def ask(self) -> list[Trial]:
        """Return the next trials, those that an ended search left open first; none when there are enough."""
        trials = self._study.get_trials(deepcopy=False)
        states = self._optuna.trial.TrialState
        opened = [self._optuna.Trial(self._study, one._trial_id) for one in trials if one.state == states.RUNNING]
        waiting = sum(one.state == states.WAITING for one in trials)
        missing = self._search.trials - sum(RETRIES not in one.user_attrs for one in trials)
        new = min(self._search.batch_size - len(opened), waiting + max(0, missing))
        return [self._drawn(one) for one in [*opened, *(self._study.ask() for _ in range(max(0, new)))]]

    def tell(self, trial: Trial) -> None:
        """Take the state, value and outcomes of a trial."""
        states = self._optuna.trial.TrialState
        state = {COMPLETE: states.COMPLETE, FAILED: states.FAIL, PRUNED: states.PRUNED}[trial.state]
        trial.watch.set_user_attr(
            OUTCOMES, json.loads(json.dumps([asdict(one) for one in trial.outcomes], default=str))
        )
        trial.watch.set_user_attr(ERROR, trial.error)
        self._study.tell(trial.number, trial.value if trial.state == COMPLETE else None, state=state)

    def told(self) -> list[Trial]:
        """Return every trial whose state is known."""
        states = self._optuna.trial.TrialState
        names = {states.COMPLETE: COMPLETE, states.FAIL: FAILED, states.PRUNED: PRUNED}
        return [
            Trial(
                one.number,
                one.user_attrs.get(VALUES, {}),
                names[one.state],
                one.value if one.state == states.COMPLETE else None,
                [Outcome(**outcome) for outcome in one.user_attrs.get(OUTCOMES, [])],
                one.user_attrs.get(ERROR),
            )
            for one in self._study.get_trials(deepcopy=False)
            if one.state in names
        ]

    def _drawn(self, trial: "optuna.Trial") -> Trial:
        values = sample(self._space, _Asked(trial, self._search.seed))
        trial.set_user_attr(VALUES, json.loads(json.dumps(values)))
        return Trial(trial.number, values, watch=trial)

    def _check_same(self, journal: Path, identity: Mapping[str, Any], weights: list[str]) -> None:
        """Refuse to go on with a study whose values were measured otherwise."""
        facts = {"space": self._space, "search": [self._search.objective, self._search.maximizes, self._search.seed]}
        text = json.dumps({**facts, **identity}, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._keep_or_refuse(
            SPACE,
            digest,
            f"The study in {journal} is of another search: its space, objective, seed, settings or images differ. "
            "Give this one another `name`, or delete that file; only `trials` may grow.",
        )
        self._keep_or_refuse(
            WEIGHTS,
            weights,
            f"The trials in {journal} were measured with other weights of the backbone than its files hold now. "
            "Give this search another `name`, or put the weights back.",
        )

    def _keep_or_refuse(self, attribute: str, value: Any, complaint: str) -> None:
        """Note a fact in a new study; in an earlier one it must be the same."""
        known = self._study.user_attrs.get(attribute)
        if known is None:
            self._study.set_user_attr(attribute, value)
        elif known != value:
            raise InputError(complaint)

    def _enqueue_failed(self) -> None:
        """Put trials that failed back to the end, once each."""
        trials = self._study.get_trials(deepcopy=False)
        tried = {one.user_attrs.get(RETRIES) for one in trials}
        for one in trials:
            if one.state == self._optuna.trial.TrialState.FAIL and one.number not in tried:
                self._study.enqueue_trial(dict(one.params), user_attrs={RETRIES: one.number})


class _Asked:
    """Draws options through an Optuna trial; what it has drawn before it gives again."""

    def __init__(self, trial: "optuna.Trial", seed: int) -> None:
        self._trial, self._seed = trial, seed

    def draw(self, name: str, options: Options) -> Any:
        """Return one of the options."""
        optuna = import_optuna()
        self._trial.study.sampler = optuna.samplers.TPESampler(
            seed=_seed(self._seed, self._trial.number, name), multivariate=False
        )
        if isinstance(options, Choices):
            texts = {json.dumps(value): value for value in options.values}
            return texts[str(self._trial.suggest_categorical(name, list(texts)))]
        if isinstance(options, Range) and options.whole:
            return self._trial.suggest_int(
                name, int(options.low), int(options.values[-1]), step=int(options.step), log=options.log
            )
        if isinstance(options, Range):
            value = self._trial.suggest_float(name, options.low, options.values[-1], step=options.step)
            return min(options.values, key=lambda other: abs(other - value))
        return rounded(self._trial.suggest_float(name, options.low, options.high, log=options.log), options)


def _seed(seed: int, number: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed} {number} {name}".encode()).digest()
    return int(np.frombuffer(digest[:4], dtype=np.uint32)[0])


def _mend(journal: Path) -> None:
    """Take away what a killed process left: half a line at the end, and its lock. No other process is at it now."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        logger.warning("%s ended in half a line, which a killed process left: removed", journal.name)
        journal.write_bytes(whole)
