"""The study of a search: Optuna's ask and tell, with a journal file from which a killed search resumes."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import OptunaError
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from defectlab.sweeps.result import COMPLETE, FAILED, PRUNED, Trial
from defectlab.sweeps.search.sampler import RandomDraws, TPESampler, sample, suggest
from defectlab.sweeps.search_config import SearchConfig
from defectlab.sweeps.search_space import Space
from defectlab.sweeps.table import Outcome
from defectlab_runtime.errors import InputError

logger = logging.getLogger(__name__)

optuna.logging.set_verbosity(optuna.logging.WARNING)

JOURNAL = "study.journal"
STATES = {COMPLETE: TrialState.COMPLETE, FAILED: TrialState.FAIL, PRUNED: TrialState.PRUNED}
# Attributes of the study, and of its trials, as they stand in the journal.
SPACE, WEIGHTS = "defectlab space", "defectlab weights"
OUTCOMES, ERROR, VALUES, RETRIES = "outcomes", "error", "values", "retries"


@contextmanager
def open_study(
    folder: Path,
    config: SearchConfig,
    space: Space,
    identity: Mapping[str, Any],
    weights: list[str],
    retry_failed: bool = False,
) -> Iterator["SearchStudy"]:
    """Open or create the study of a search, locked for this process, with its journal in the sweep's folder.

    A random search needs no journal: its draws depend on no result, and what has run is on record.

    Args:
        folder: The sweep's.
        config: Strategy, number of trials, seed.
        space: Its subspaces.
        identity: What the values of its trials depend on beside the space, as plain data.
        weights: Hashes of the backbones' weights, on which they depend too.
        retry_failed: Whether trials that failed earlier are tried again, beside the others.

    Raises:
        InputError: Another process runs this search, or the folder's study is of something else.
    """
    if config.strategy == "random":
        yield SearchStudy(config, space)
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "study.lock")
    try:
        with lock.acquire(timeout=0):
            journal = folder / JOURNAL
            _repair(journal)
            study = _replayed(journal, config, space)
            study.check_same(journal, identity, weights)
            if retry_failed:
                study.enqueue_failed()
            yield study
    except Timeout as error:
        raise InputError(f"Another process runs this search now, in {folder}. Wait for it, or stop it.") from error


class SearchStudy:
    """The trials of a search, drawn from its space by its strategy.

    A draw depends on the seed, the trial's number and the completed trials, not on how often the process was ended: a
    search that was killed and taken up again draws the trials of one that never was.

    Args:
        config: Strategy, number of trials, seed.
        space: Its subspaces.
        storage: Optuna's; None keeps the trials in memory.
    """

    def __init__(
        self, config: SearchConfig, space: Space, storage: optuna.storages.JournalStorage | None = None
    ) -> None:
        self._config, self._space = config, space
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if config.pruning is not None:
            pruner = optuna.pruners.MedianPruner(
                n_startup_trials=config.pruning["startup_trials"], n_warmup_steps=config.pruning["warmup_epochs"]
            )
        self._study = optuna.create_study(
            storage=storage,
            sampler=TPESampler(config.seed),
            study_name="search",
            direction="maximize" if config.maximizes else "minimize",
            pruner=pruner,
            load_if_exists=True,
        )

    def ask(self) -> list[Trial]:
        """Return the next trials, first those that a stopped search left open; an empty list when there are enough."""
        trials = self._study.get_trials(deepcopy=False)
        opened = [optuna.Trial(self._study, one._trial_id) for one in trials if one.state == TrialState.RUNNING]
        waiting = sum(one.state == TrialState.WAITING for one in trials)
        missing = self._config.trials - sum(RETRIES not in one.user_attrs for one in trials)
        new = min(self._config.batch_size - len(opened), waiting + max(0, missing))
        return [self._sample(one) for one in [*opened, *(self._study.ask() for _ in range(max(0, new)))]]

    def tell(self, trial: Trial) -> None:
        """Store the state, value and outcomes of a trial."""
        outcomes = json.loads(json.dumps([asdict(one) for one in trial.outcomes], default=str))
        trial.optuna_trial.set_user_attr(OUTCOMES, outcomes)
        trial.optuna_trial.set_user_attr(ERROR, trial.error)
        value = trial.value if trial.state == COMPLETE else None
        self._study.tell(trial.number, value, state=STATES[trial.state])

    def completed_trials(self) -> list[Trial]:
        """Return every trial that is complete, failed or pruned."""
        names = {state: name for name, state in STATES.items()}
        return [
            Trial(
                one.number,
                one.user_attrs.get(VALUES, {}),
                names[one.state],
                one.value if one.state == TrialState.COMPLETE else None,
                [Outcome(**outcome) for outcome in one.user_attrs.get(OUTCOMES, [])],
                one.user_attrs.get(ERROR),
            )
            for one in self._study.get_trials(deepcopy=False)
            if one.state in names
        ]

    def check_same(self, journal: Path, identity: Mapping[str, Any], weights: list[str]) -> None:
        """Store the facts that a new study's values depend on; check that those of an earlier study are the same.

        Raises:
            InputError: The study's values were measured otherwise.
        """
        config = self._config
        facts = {"space": self._space, "search": [config.objective, config.maximizes, config.seed], **identity}
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
        messages = {
            SPACE: f"The study in {journal} is of another search: its space, objective, seed, settings or images "
            "differ. Give this one another `name`, or delete that file; only `trials` may grow.",
            WEIGHTS: f"The trials in {journal} were measured with other weights of the backbone than its files hold "
            "now. Give this search another `name`, or put the weights back.",
        }
        for attribute, value in ((SPACE, digest), (WEIGHTS, weights)):
            known = self._study.user_attrs.get(attribute)
            if known is None:
                self._study.set_user_attr(attribute, value)
            elif known != value:
                raise InputError(messages[attribute])

    def enqueue_failed(self) -> None:
        """Enqueue each failed trial once more, unless it has been retried already."""
        trials = self._study.get_trials(deepcopy=False)
        tried = {one.user_attrs.get(RETRIES) for one in trials}
        for one in trials:
            if one.state == TrialState.FAIL and one.number not in tried:
                self._study.enqueue_trial(dict(one.params), user_attrs={RETRIES: one.number})

    def _sample(self, trial: optuna.Trial) -> Trial:
        is_random = self._config.strategy == "random"
        draw = RandomDraws(self._config.seed, trial.number) if is_random else partial(suggest, trial)
        values = sample(self._space, draw)
        trial.set_user_attr(VALUES, json.loads(json.dumps(values)))
        return Trial(trial.number, values, optuna_trial=trial)


# What Optuna raises while it replays a journal whose entries are of another form than it writes.
_REPLAY_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, AssertionError, OptunaError)


def _replayed(journal: Path, config: SearchConfig, space: Space) -> SearchStudy:
    """Return the study of a journal, every trial of which was read once.

    Raises:
        InputError: The journal is damaged.
    """
    try:
        study = SearchStudy(config, space, optuna.storages.JournalStorage(JournalFileBackend(str(journal))))
        study.completed_trials()
    except _REPLAY_ERRORS as error:
        raise _damaged(journal, f"{type(error).__name__}: {error}") from error
    return study


def _damaged(journal: Path, what: str) -> InputError:
    return InputError(
        f"{journal} is damaged ({what}). Restore it; or delete it, and the search begins again: runs on record are "
        "taken over."
    )


def _repair(journal: Path) -> None:
    """Remove an incomplete last line and the lock that a killed process left in a journal.

    Raises:
        InputError: Another line is no entry of a journal.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        logger.warning("%s ended in half a line, which a killed process left: removed", journal.name)
        journal.write_bytes(whole)
    for number, line in enumerate(whole.splitlines()):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or type(entry.get("op_code")) is not int:
            raise _damaged(journal, f"line {number + 1} is no entry")
