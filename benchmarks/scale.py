"""How far a distributed sweep goes: a coreset merged across shards, measured, and a cluster's day, simulated.

    python -m benchmarks.scale shards       # radius and bound of merged coresets, on bottle where DEFECTLAB_REAL has it
    python -m benchmarks.scale cluster      # makespan, bytes and the bottleneck, from measured costs of one category
    python -m benchmarks.scale lean         # the same if one process prepared next to nothing and records had no maps
    python -m benchmarks.scale prepare      # seconds to build and check one configuration, which one process does

The tables are those of docs/scale.md.
"""

import heapq
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field, replace

import torch

from benchmarks import inputs
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.kernels.coreset.greedy import k_center_greedy
from defectlab.kernels.neighbours import nearest_neighbours

IMAGES, SIZE, RATIO = 48, 128, 0.01  # patches of the shards' table: 48 images of 128 px, 16 x 16 patches each
SHARDS = (1, 2, 4, 8, 16)
MEGA = 1e6


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes of one category's forty configurations (configs/sweep_40.yaml), on a machine of two cores.

    Seconds are those that a sweep of bottle (292 images, ResNet-18, 256 px) had on record, with other work beside it.
    """

    features: float = 11.4
    order: tuple[float, float] = (10.0, 73.1)  # layers 2-3, layers 1-2-3
    search: tuple[float, float] = (4.2, 42.8)
    gaussians: tuple[float, float] = (2.3, 14.7)
    embed: tuple[float, float] = (1.1, 8.0)  # rows and patches, made anew in every task that needs them
    score: float = 0.89  # a configuration: scores, metrics, intervals, record
    prepare: float = 0.2  # a configuration: built and checked, by the one process that starts the sweep
    feature_bytes: tuple[float, float] = (230 * MEGA, 536 * MEGA)
    search_bytes: tuple[float, float] = (4 * MEGA, 16 * MEGA)
    record_bytes: float = 23 * MEGA
    link: float = 1.25e9  # bytes a second of every machine's network, 10 Gbit/s
    disk: float = 0.5e9  # bytes a second that the starting process writes
    together: int = 4


@dataclass
class Task:
    """One task: seconds of work, tasks before it by place, bytes it reads of the features and of other results."""

    seconds: float
    after: tuple[int, ...]
    features: float = 0.0
    small: float = 0.0
    records: int = 0


def category(costs: Costs) -> list[Task]:
    """Return the tasks of one category as the executor submits them."""
    tasks = [Task(costs.features, ())]
    for place in range(2):
        read = costs.feature_bytes[place]
        order = len(tasks)
        tasks.append(Task(costs.order[place] + costs.embed[place], (0,), read))
        tasks.append(Task(costs.search[place] + 2 * costs.embed[place], (order,), read))
        for _ in range(16 // costs.together):
            seconds = 2 * costs.embed[place] + costs.score * costs.together
            tasks.append(Task(seconds, (order + 1,), read, costs.search_bytes[place], costs.together))
        gaussians = len(tasks)
        tasks.append(Task(costs.gaussians[place] + 2 * costs.embed[place], (0,), read))
        tasks.append(Task(costs.score * 4, (gaussians,), 0, 5 * MEGA, 4))
    return tasks


@dataclass
class Cluster:
    """A list scheduler: a free machine takes a waiting task of a category whose features it holds, else the oldest."""

    machines: int
    categories: int
    costs: Costs
    moved: float = 0.0
    busy: float = 0.0
    driver_free: float = 0.0
    ready: dict[int, deque[int]] = field(default_factory=dict)

    def run(self, starts: float = 0.0) -> float:
        """Return the seconds until the last record is in its place; `starts` is when tasks can first be submitted."""
        plan = category(self.costs)
        self.ready = {number: deque([0]) for number in range(self.categories)}
        left = {number: [len(task.after) for task in plan] for number in range(self.categories)}
        holds: list[dict[int, float]] = [{} for _ in range(self.machines)]
        free = list(range(self.machines))
        events: list[tuple[float, int, int, int]] = []  # (time, machine, category, task)
        now = starts
        self.driver_free = starts
        while True:
            idle = []
            for machine in free:
                chosen = self._next(holds[machine])
                if chosen is None:
                    idle.append(machine)
                    continue
                number, place = chosen
                seconds = self._seconds(plan[place], number, holds[machine], place)
                self.busy += seconds
                heapq.heappush(events, (now + seconds, machine, number, place))
            free = idle
            if not events:
                return max(now, self.driver_free)
            now, machine, number, place = heapq.heappop(events)
            free.append(machine)
            self._done(plan, left[number], number, place, now)

    def _next(self, held: dict[int, float]) -> tuple[int, int] | None:
        for number in held:
            if self.ready.get(number):
                return number, self._take(number)
        for number in self.ready:
            return number, self._take(number)
        return None

    def _take(self, number: int) -> int:
        place = self.ready[number].popleft()
        if not self.ready[number]:
            del self.ready[number]
        return place

    def _seconds(self, task: Task, number: int, held: dict[int, float], place: int) -> float:
        have = held.get(number, 0.0)
        missing = max(0.0, task.features - have)
        if place == 0:
            held[number] = self.costs.feature_bytes[1]
        elif missing:
            held[number] = task.features
        while len(held) > 8:  # an object store holds so many categories' features: 4.3 GB
            del held[next(iter(held))]
        self.moved += missing + task.small
        return task.seconds + (missing + task.small) / self.costs.link

    def _done(self, plan: list[Task], left: list[int], number: int, place: int, now: float) -> None:
        for later, task in enumerate(plan):
            if place in task.after:
                left[later] -= 1
                if not left[later]:
                    self.ready.setdefault(number, deque()).append(later)
        size = plan[place].records * self.costs.record_bytes
        self.moved += size
        if size:
            self.driver_free = max(self.driver_free, now) + size / min(self.costs.link, self.costs.disk)


def cluster_table(costs: Costs) -> None:
    """Print makespan, bytes and what each part would take alone."""
    print(
        "| machines | categories | configurations | hours | preparing | work / machines | records | TB moved | busy |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for machines, categories in ((1, 15), (10, 15), (10, 100), (100, 1000), (1000, 1000), (1000, 5000)):
        count = 40 * categories
        prepare = count * costs.prepare
        cluster = Cluster(machines, categories, costs)
        total = cluster.run(prepare)
        records = count * costs.record_bytes / min(costs.link, costs.disk)
        work = cluster.busy / machines
        cells = [f"{value / 3600:.2f}" for value in (total, prepare, work, records)]
        share = cluster.busy / machines / (total - prepare)
        moved = f"{cluster.moved / 1e12:.2f}"
        print(f"| {machines} | {categories} | {count} | {' | '.join(cells)} | {moved} | {share:.0%} |")


def patches() -> torch.Tensor:
    """Patches (N, C) of layers 2 and 3 as PatchCore makes them: averaged over 3 x 3, the deeper one enlarged."""
    extractor = FeatureExtractor(inputs.resnet18(), ["layer2", "layer3"])
    with torch.no_grad():
        maps = [torch.nn.functional.avg_pool2d(one, 3, 1, 1) for one in extractor(inputs.images(IMAGES, SIZE)).values()]
    deep = torch.nn.functional.interpolate(maps[1], size=maps[0].shape[-2:], mode="bilinear")
    return torch.cat([maps[0], deep], 1).permute(0, 2, 3, 1).flatten(0, 2).contiguous()  # (N, C, h, w) -> (N*h*w, C)


def radius(rows: torch.Tensor, centres: torch.Tensor) -> float:
    """Largest distance of a row to its nearest centre."""
    return float(nearest_neighbours(rows, centres, 1)[0].max())


def merged(rows: torch.Tensor, k: int, shards: int) -> tuple[torch.Tensor, float, float]:
    """Return `k` centres picked from those of all shards, the largest radius within a shard, and that of the merge.

    Every shard picks `k` of its own rows; `k` are then picked from the union. A row lies within its shard's radius of a
    centre there, and that within the merge's radius of a centre that stays: their sum bounds the whole.
    """
    parts = [part[k_center_greedy(part, min(k, len(part)), first=0)] for part in rows.chunk(shards)]
    inner = max(radius(part, centres) for part, centres in zip(rows.chunk(shards), parts, strict=True))
    union = torch.cat(parts)
    centres = union[k_center_greedy(union, k, first=0)]
    return centres, inner, radius(union, centres)


def shards_table() -> None:
    """Print radius, bound and bytes of coresets merged across shards."""
    rows = patches()
    k = int(RATIO * len(rows))
    single = radius(rows, rows[k_center_greedy(rows, k, first=0)])
    lowest = single / 2  # no k centres do better: k + 1 rows of the greedy order are `single` apart from one another
    print(f"{len(rows)} patches of {rows.shape[1]} numbers, {SIZE} px; {k} picks; from one machine: {single:.4f}\n")
    print("| shards | radius | to one machine's | bound | bound to least possible | MB to merge |")
    print("|--:|--:|--:|--:|--:|--:|")
    for shards in SHARDS:
        centres, inner, outer = merged(rows, k, shards)
        found, bound = radius(rows, centres), inner + outer
        assert found <= bound * (1 + 1e-5), "the bound does not hold"
        assert bound <= 4 * single * (1 + 1e-5), "more than four times what one machine's picks give"
        print(
            f"| {shards} | {found:.4f} | {found / single:.3f} | {bound:.4f} | {bound / lowest:.2f} "
            f"| {shards * k * rows.shape[1] * 4 / MEGA:.1f} |"
        )


def prepare_seconds() -> None:
    """Print the seconds to build and check one configuration of configs/sweep_40.yaml on a built-in sample."""
    from defectlab.data.samples import make_sample
    from defectlab.sweeps.config import SweepConfig
    from defectlab.sweeps.configurations import prepare

    with tempfile.TemporaryDirectory() as folder:
        root = make_sample("coins", f"{folder}/coins")
        overrides = {"data.root": str(root), "backbone.weights": "random"}
        config = SweepConfig.from_yaml("configs/sweep_40.yaml", overrides)
        prepare(list(config.expanded())[:1])
        begin = time.perf_counter()
        ready, _ = prepare(config.expanded())
        seconds = time.perf_counter() - begin
    print(f"{seconds / len(ready):.3f} s for each of {len(ready)} configurations")


if __name__ == "__main__":
    asked = sys.argv[1:] or ["shards", "cluster"]
    for what in asked:
        {
            "shards": shards_table,
            "cluster": lambda: cluster_table(Costs()),
            "lean": lambda: cluster_table(replace(Costs(), record_bytes=1 * MEGA, prepare=0.01)),
            "prepare": prepare_seconds,
        }[what]()
