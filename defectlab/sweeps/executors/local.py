"""A sweep in this process, group after group."""

import logging
import time
from collections.abc import Sequence

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.sweeps.configurations import Configuration, groups_of
from defectlab.sweeps.execute import Report, run_group
from defectlab.sweeps.shared_work import SharedWork
from defectlab.sweeps.table import renew_workbook

logger = logging.getLogger(__name__)

WORKBOOK_SECONDS = 60.0  # between two writes of the workbook while a sweep runs


class LocalExecutor:
    """Runs groups of configurations one after another in this process."""

    def __init__(self, store: FeatureStore, sweep: str) -> None:
        self.shared = SharedWork([], store)
        self.sweep = sweep
        self._written = time.monotonic()

    def run(self, configurations: Sequence[Configuration], pending: Sequence[Configuration], report: Report) -> None:
        """Run what is pending of a sweep's configurations and report each outcome as it comes."""
        waiting = {one.run_id for one in pending}
        self.shared.expect(configurations)
        groups = groups_of(configurations)
        for place, group in enumerate(groups, start=1):
            its = [one for one in group if one.run_id in waiting and not one.is_placeholder]
            if not its:
                continue
            logger.info("Group %d of %d: %d configurations like %s", place, len(groups), len(its), its[0].label)
            run_group(group, its, self.shared, self.sweep, report)
            if time.monotonic() - self._written > WORKBOOK_SECONDS:
                renew_workbook()
                self._written = time.monotonic()

    def close(self) -> None:
        """Free what is in memory."""
        self.shared.forget()
