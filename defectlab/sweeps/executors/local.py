"""The executor that runs a sweep in this process, one group after another."""

import logging
from collections.abc import Sequence

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.sweeps.configurations import Configuration, pending_groups
from defectlab.sweeps.execute import Report, run_group
from defectlab.sweeps.shared_work import SharedWork

logger = logging.getLogger(__name__)


class LocalExecutor:
    """Runs groups of configurations one after another in this process."""

    def __init__(self, store: FeatureStore, sweep: str) -> None:
        self.shared = SharedWork([], store)
        self.sweep = sweep

    def run(self, configurations: Sequence[Configuration], pending: Sequence[Configuration], report: Report) -> None:
        """Run the pending configurations of a sweep and report each outcome as soon as it is known."""
        self.shared.expect(configurations)
        groups = pending_groups(configurations, pending)
        for place, (group, its) in enumerate(groups, start=1):
            if not its:
                continue
            logger.info("Group %d of %d: %d configurations like %s", place, len(groups), len(its), its[0].label)
            run_group(group, its, self.shared, self.sweep, report)

    def close(self) -> None:
        """Release the arrays that are held in memory."""
        self.shared.forget()
