"""Means of each configuration's metrics over several datasets, and the dataset with the lowest image AUROC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from defectlab.data.manifest.categories import named_groups
from defectlab.results.comparison.ranking import RANKED_BY, SHOWN_METRICS, Entry, Ranking
from defectlab.results.workbook_row import RankingKey

ALL = "all"
_SETTINGS = ("model.", "trainer.", "evaluation.", "data.")
# Options for where images are stored, how fast they are read and how they are split; none changes how they are used.
_PLACES = ("data.root", "data.name", "data.seed", "data.num_workers", "data.eval_batch_size", "data.valid_area_mask")


@dataclass(frozen=True)
class DatasetMeans:
    """One configuration's entries by dataset, and the mean over datasets of each metric that any entry has.

    Attributes:
        entries: The entry on each dataset.
        means: By metric.
        sets: Which split and pixel grid of each dataset the entries are of: only means over the same are comparable.
        rank: Place among the configurations with the same `sets` and `over`, from 1.
        over: Name of the group of the datasets; `all` means every dataset that the configuration was run on.
        left_out: Splits of these datasets that the configuration was run on too, in words.
    """

    entries: dict[str, Entry]
    means: dict[str, float]
    sets: tuple[RankingKey, ...]
    rank: int = 1
    over: str = ALL
    left_out: tuple[str, ...] = ()

    @property
    def first(self) -> Entry:
        """The configuration's entry on the first dataset; model and weights are the same on all datasets."""
        return next(iter(self.entries.values()))

    @property
    def note(self) -> str:
        """A note of the datasets, the one with the lowest image AUROC, and those that have each kind of metric."""
        areas = {
            dataset: mean for dataset, entry in self.entries.items() if (mean := entry.mean(RANKED_BY)) is not None
        }
        group = "" if self.over == ALL else f"mean of {self.over}: "
        words = [f"{group}{len(self.entries)} datasets: {', '.join(self.entries)}"]
        if areas:
            lowest = min(areas, key=lambda dataset: areas[dataset])
            words.append(f"image AUROC lowest on {lowest} ({areas[lowest]:.3f})")
        for level, metric in (("image", RANKED_BY), ("pixel", "pixel_AUROC")):
            having = [dataset for dataset, entry in self.entries.items() if entry.mean(metric) is not None]
            if having and len(having) < len(self.entries):
                words.append(f"{level} metrics of {', '.join(having)} only")
        words += [f"not counted: {name}" for name in self.left_out]
        return "; ".join(words)


def means_over_datasets(rankings: Sequence[Ranking]) -> list[DatasetMeans]:
    """Return the means of configurations ranked on several datasets, ranked among those on the same images.

    Several seeds are averaged first, and every dataset has the same weight. Of a dataset with several splits (or pixel
    grids) a configuration's mean holds one: the one with the most configurations, of equals the first by its key,
    whatever the order of the rankings. Means over the same datasets and splits stand together, those over most datasets
    first. The means over groups of datasets follow at the end: the groups of MVTec AD and those that sweeps have named.
    """
    sizes = {ranking.group: len(ranking.entries) for ranking in rankings}
    found: dict[tuple[object, ...], dict[RankingKey, Entry]] = {}
    for ranking in rankings:
        for entry in ranking.entries:
            found.setdefault(_settings(entry), {})[ranking.group] = entry
    means = [_over_datasets(entries, sizes) for entries in found.values()]
    several = [one for one in means if len(one.entries) > 1]
    groups = [part for one in several for part in _groups(one)]
    return [*_ranked(several), *_ranked(groups)]


def _over_datasets(entries: Mapping[RankingKey, Entry], sizes: Mapping[RankingKey, int]) -> DatasetMeans:
    """Return the means of a configuration over one split of each dataset; `sizes` are numbers of configurations."""
    chosen: dict[str, RankingKey] = {}
    order = list(dict.fromkeys(key[0] for key in entries))
    for key in sorted(entries, key=lambda key: (-sizes[key], key)):
        chosen.setdefault(key[0], key)
    keys = [chosen[dataset] for dataset in order]
    left_out = tuple(f"{key[0]} split {key[1][:6]} ({key[2]})" for key in entries if key not in keys)
    used = {key[0]: entries[key] for key in keys}
    return DatasetMeans(used, _means(list(used.values())), tuple(sorted(keys)), left_out=left_out)


def _ranked(means: Sequence[DatasetMeans]) -> list[DatasetMeans]:
    """Return the means in blocks of the same datasets and splits, each ranked by image AUROC from 1."""
    blocks: dict[tuple[object, ...], list[DatasetMeans]] = {}
    for one in means:
        blocks.setdefault((one.over, one.sets), []).append(one)
    ordered = sorted(blocks.values(), key=lambda its: (its[0].over, -len(its[0].sets), -len(its), its[0].sets))
    ranked = []
    for block in ordered:
        block.sort(key=lambda one: -one.means.get(RANKED_BY, -1.0))
        ranked += [replace(one, rank=rank) for rank, one in enumerate(block, 1)]
    return ranked


def _groups(one: DatasetMeans) -> list[DatasetMeans]:
    """Return the means over each named group that has two or more, but not all, of the configuration's datasets."""
    named: dict[str, set[str]] = {name: set(members) for name, members in named_groups({}).items()}
    for dataset, entry in one.entries.items():
        for row in entry.rows:
            for name in filter(None, str(row.get("groups") or "").split(", ")):
                named.setdefault(name, set()).add(dataset)
    parts = {name: {key: one.entries[key] for key in one.entries if key in its} for name, its in named.items()}
    return [
        DatasetMeans(
            entries, _means(list(entries.values())), tuple(key for key in one.sets if key[0] in entries), over=name
        )
        for name, entries in parts.items()
        if 1 < len(entries) < len(one.entries)
    ]


def _settings(entry: Entry) -> tuple[object, ...]:
    """Return the key of a configuration regardless of its dataset: model, backbone, weights and options."""
    row = entry.rows[0]
    own = {key: str(value) for key, value in row.items() if key.startswith(_SETTINGS) and key not in _PLACES}
    options = sorted((key, value) for key, value in own.items() if not key.endswith("_dir"))
    weights = entry.weights if entry.weights == "random" else row.get("weights_sha256")
    return (row.get("model"), row.get("backbone"), weights, *options)


def _means(entries: Sequence[Entry]) -> dict[str, float]:
    values = {
        metric: [mean for entry in entries if (mean := entry.mean(metric)) is not None] for metric in SHOWN_METRICS
    }
    return {metric: sum(its) / len(its) for metric, its in values.items() if its}
