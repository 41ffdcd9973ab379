"""The plan of a sweep, made before it starts: its steps, how many configurations use each, and estimated costs."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.feature_cache.extraction import BATCH
from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.kernels.coreset.cost import coreset_size, estimate
from defectlab.kernels.linalg import measured_product_rate
from defectlab.kernels.projection import projected_size
from defectlab.results.run.run import Run
from defectlab.sweeps.checkpoints import checkpoint_bytes
from defectlab.sweeps.configurations import PREFIX, Configuration, Refused, groups_of
from defectlab.sweeps.durations import Durations
from defectlab.sweeps.shared_work import SharedWork, scored_entries
from defectlab.utils.progress import clock
from defectlab.utils.table import Column, Table, numbers, print_line, print_table

# Assumed, not measured:
SECONDS_PER_IMAGE = 0.02  # to read, decode and resize one
SECONDS_PER_TEST_IMAGE = 0.03  # of metrics, intervals and files
SECONDS_PER_CHECKPOINT = 1.0  # to fit again from features
WRITTEN_BYTES_PER_SECOND = 2e8
FEATURES = "features of"  # prefix of the steps whose results the cache may have


@dataclass(frozen=True)
class PlanStep:
    """One step of a plan: name, number of configurations using it, seconds (None: not estimated), bytes of memory."""

    what: str
    uses: int
    seconds: float | None
    bytes: int = 0
    cached: bool = False


@dataclass(frozen=True)
class Plan:
    """The plan of a sweep before it starts.

    Attributes:
        configurations: Everything that can run.
        refused: What cannot, with the reason.
        earlier: Runs on record of these configurations, by run id.
        pending: What will run now.
        steps: What will be computed.
    """

    configurations: Sequence[Configuration]
    refused: Sequence[Refused]
    earlier: Mapping[str, Run]
    pending: Sequence[Configuration]
    steps: Sequence[PlanStep] = field(default=())

    @property
    def seconds(self) -> float:
        """Sum of the estimated seconds of all steps that have an estimate."""
        return sum(step.seconds or 0.0 for step in self.steps)

    @property
    def extracts(self) -> bool:
        """Whether features are computed that the cache does not have."""
        return any(step.what.startswith(FEATURES) and not step.cached for step in self.steps)

    def print(self) -> None:
        """Print the steps that the sweep will compute."""
        done = sum(run.status == "finished" for run in self.earlier.values())
        failed = len(self.configurations) - len(self.pending) - done
        rows = []
        for step in self.steps:
            cost = "in the cache" if step.cached else "?" if step.seconds is None else clock(step.seconds)
            rows.append([step.what, step.uses, cost, f"{step.bytes / 1e9:.1f} GB" if step.bytes else ""])
        columns = [Column("piece", wrap=True), *numbers("used by", "about", "memory", wrap=True)]
        title = f"{len(self.configurations)} configurations, {len(self.pending)} to run"
        print_table(Table(columns, rows), title=title)
        parts = [f"About {clock(self.seconds)} in all"]
        parts += ["trainings with '?' not counted"] if any(step.seconds is None for step in self.steps) else []
        parts += [f"{done} finished already"] if done else []
        parts += [f"{failed} failed earlier (tried again with retry_failed)"] if failed else []
        parts += [f"{len(self.refused)} cannot work"] if self.refused else []
        print_line("; ".join(parts))


def make_plan(
    configurations: Sequence[Configuration],
    refused: Sequence[Refused],
    earlier: Mapping[str, Run],
    store: FeatureStore,
    *,
    retry_failed: bool = False,
    checkpoints: str = "none",
) -> Plan:
    """Return the plan: which configurations run now, and estimates of its steps. Takes about a second for timing."""
    pending = [one for one in configurations if is_pending(earlier.get(one.run_id), retry_failed)]
    steps = [*_feature_steps(configurations, pending, store), *_group_steps(configurations, pending)]
    if pending:
        images = sum(len(one.datamodule.manifest.split("test")) for one in pending)
        steps.append(PlanStep("metrics, intervals, pictures", len(pending), SECONDS_PER_TEST_IMAGE * images))
    steps += _checkpoint_steps(configurations, checkpoints)
    return Plan(configurations, refused, earlier, pending, steps)


def is_pending(run: Run | None, retry_failed: bool) -> bool:
    """Whether a configuration runs now: not if finished; a failed one with `retry_failed` or if interrupted."""
    if run is None or run.status not in ("finished", "failed"):
        return True
    interrupted = (run.record.error_summary or "").startswith("KeyboardInterrupt")
    return run.status == "failed" and (retry_failed or interrupted)


def _feature_steps(
    configurations: Iterable[Configuration], pending: Sequence[Configuration], store: FeatureStore
) -> list[PlanStep]:
    steps = []
    shared = SharedWork(configurations, store)
    firsts = {one.feature_key: one for one in reversed(pending) if one.takes_features}
    for key, one in reversed(firsts.items()):
        assert one.backbone is not None
        layers, input_size, count = (
            sorted(shared.layers[key]),
            one.model.preprocessing.input_size,
            len(one.datamodule.manifest.entries),
        )
        extractor = FeatureExtractor(one.backbone, layers)
        shapes = extractor.feature_shapes(input_size)
        size = np.dtype(store.dtype).itemsize * count * sum(torch.Size(shape).numel() for shape in shapes.values())
        source = shared.feature_source(one)
        cached = all(store.has({**source, "layer": layer}) for layer in layers)
        begin = time.perf_counter()
        if not cached:
            extractor(torch.zeros(BATCH, 3, *input_size))
        seconds = 0.0 if cached else count * ((time.perf_counter() - begin) / BATCH + SECONDS_PER_IMAGE)
        what = f"{FEATURES} {count} images of {one.datamodule.name}, {one.backbone.spec.name} {', '.join(layers)}"
        uses = sum(other.feature_key == key for other in pending)
        steps.append(PlanStep(f"{what} ({size / 1e9:.1f} GB on disk)", uses, seconds, cached=cached))
    return steps


def _group_steps(configurations: Iterable[Configuration], pending: Sequence[Configuration]) -> list[PlanStep]:
    steps, rate, durations = [], measured_product_rate(1024, 512, 1024, torch.device("cpu")), Durations()
    waiting = {one.run_id for one in pending}
    for group in groups_of(configurations):
        one, uses = group[0], sum(one.run_id in waiting for one in group)
        if uses and one.shares:
            steps += _shared_steps(group, uses, rate)
        elif uses:
            seconds, source = durations.seconds(one)
            on = "cached features of " if one.takes_features else ""
            steps.append(PlanStep(f"training: {one.label} on {on}{one.datamodule.name}{source}", uses, seconds))
    return steps


def memory_of(group: Sequence[Configuration]) -> int:
    """Return the bytes of memory of a group's largest shared computation; 0 for a group that shares none."""
    return max(step.bytes for step in _shared_steps(group, 1, 1.0)) if group[0].shares else 0


def _checkpoint_steps(configurations: Sequence[Configuration], policy: str) -> list[PlanStep]:
    """Return the plan step of the checkpoints that are kept; for `best` the largest of each dataset is assumed."""
    sizes: dict[str, list[int]] = {}
    for one in configurations:
        sizes.setdefault(one.datamodule.name, []).append(checkpoint_bytes(one))
    if policy == "none":
        return []
    chosen = [size for its in sizes.values() for size in ([max(its)] if policy == "best" else its)]
    what = "checkpoint of the best on each dataset, at most" if policy == "best" else "checkpoints of all"
    seconds = sum(SECONDS_PER_CHECKPOINT + size / WRITTEN_BYTES_PER_SECOND for size in chosen)
    return [PlanStep(f"{what} ({sum(chosen) / 1e9:.1f} GB on disk)", len(chosen), seconds, max(chosen))]


def _shared_steps(group: Sequence[Configuration], uses: int, rate: float) -> list[PlanStep]:
    """Return the steps that a group computes once, estimated at `rate` floating-point operations per second."""
    one, (channels, height, width) = group[0], group[0].grid
    prefix = PREFIX[one.model.model_name]
    sizes = sorted({other.model.options[prefix] for other in group})
    images, positions = len(one.datamodule.manifest.split("train")), height * width
    queries = len(scored_entries(one.datamodule.manifest))
    name, shown = f"{one.datamodule.name}, {'+'.join(one.model.options['layers'])}", ", ".join(map(str, sizes))
    if one.model.model_name == "padim":
        largest = sizes[-1]
        products = positions * (largest**2 * (2.0 * images + largest / 3 + 2 * queries))
        what = f"Gaussians of {name}: n_features {shown} from one factor"
        return [PlanStep(what, uses, 3 * products / rate, 4 * positions * largest * (largest + images))]
    if one.model.model_name == "subspace":
        products = channels**2 * (2.0 * positions * (images + queries) + 10 * channels)
        what = f"subspaces of {name}: explained_variance {shown} from one decomposition"
        return [PlanStep(what, uses, products / rate, 8 * 3 * channels**2)]
    rows, patches = images * positions, queries * positions
    largest = coreset_size(rows, sizes[-1])
    cost = estimate(rows, min(projected_size(rows), channels), largest, device=str(one.engine.device))
    bank = 4 * channels * (rows + largest)
    seconds, memory = 2.0 * patches * largest * channels / rate, 4 * channels * (largest + patches)
    search = PlanStep(f"nearest patches of {name}: ratios {shown} in one pass", uses, seconds, memory)
    if coreset_size(rows, sizes[0]) == rows:  # every bank keeps all patches: there is nothing to pick
        return [search]
    order = PlanStep(f"coreset order of {name}: {largest} of {rows} patches", uses, cost.seconds, cost.bytes + bank)
    return [order, search]
