"""Means of each configuration's metrics over several datasets, and the dataset with the lowest image AUROC."""

from collections.abc import Sequence
from dataclasses import dataclass

from defectlab.data.manifest.categories import named_groups
from defectlab.results.comparison.ranking import RANKED_BY, SHOWN_METRICS, Entry, Ranking

ALL = "all"
_SETTINGS = ("model.", "trainer.", "evaluation.", "data.")
# Options for where images are stored, how fast they are read and how they are split; none changes how they are used.
_PLACES = ("data.root", "data.name", "data.seed", "data.num_workers", "data.eval_batch_size", "data.valid_area_mask")


@dataclass(frozen=True)
class DatasetMeans:
    """One configuration's entries by dataset, and the mean over datasets of each metric that any entry has.

    `over` names the group of the datasets; `all` means every dataset that the configuration was run on.
    """

    entries: dict[str, Entry]
    means: dict[str, float]
    over: str = ALL

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
        return "; ".join(words)


def means_over_datasets(rankings: Sequence[Ranking]) -> list[DatasetMeans]:
    """Return the means of configurations ranked on several datasets, by number of datasets, then by image AUROC.

    Several seeds are averaged first, and every dataset has the same weight. For a dataset with several rankings only
    the first ranking with the configuration is used. Only means over the same datasets are comparable. The means over
    groups of datasets follow at the end: the groups of MVTec AD and those that sweeps have named.
    """
    found: dict[tuple[object, ...], dict[str, Entry]] = {}
    for ranking in rankings:
        for entry in ranking.entries:
            found.setdefault(_settings(entry), {}).setdefault(ranking.group[0], entry)
    several = [DatasetMeans(entries, _means(list(entries.values()))) for entries in found.values() if len(entries) > 1]
    groups = [part for one in several for part in _groups(one)]
    return [*sorted(several, key=_order), *sorted(groups, key=lambda one: (one.over, *_order(one)))]


def _order(one: DatasetMeans) -> tuple[float, float]:
    return -len(one.entries), -one.means.get(RANKED_BY, -1.0)


def _groups(one: DatasetMeans) -> list[DatasetMeans]:
    """Return the means over each named group that has two or more, but not all, of the configuration's datasets."""
    named: dict[str, set[str]] = {name: set(members) for name, members in named_groups({}).items()}
    for dataset, entry in one.entries.items():
        for row in entry.rows:
            for name in filter(None, str(row.get("groups") or "").split(", ")):
                named.setdefault(name, set()).add(dataset)
    parts = {name: {key: one.entries[key] for key in one.entries if key in its} for name, its in named.items()}
    return [
        DatasetMeans(entries, _means(list(entries.values())), name)
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
