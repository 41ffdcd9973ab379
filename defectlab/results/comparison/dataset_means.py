"""One configuration on several datasets: the mean of each metric over them, and where it is weakest."""

from collections.abc import Sequence
from dataclasses import dataclass

from defectlab.data.manifest.categories import named_groups
from defectlab.results.comparison.ranking import RANKED_BY, SHOWN_METRICS, Entry, Ranking

ALL = "all"
_SETTINGS = ("model.", "trainer.", "evaluation.", "data.")
# Where images are, how fast they are read, by which seed they are split: not how they are used.
_PLACES = ("data.root", "data.name", "data.seed", "data.num_workers", "data.eval_batch_size", "data.valid_area_mask")


@dataclass(frozen=True)
class DatasetMeans:
    """A configuration's entries by dataset, and the mean over datasets of each metric that any of them has.

    `over` names the group that the datasets are; `all` is every one that the configuration is on.
    """

    entries: dict[str, Entry]
    means: dict[str, float]
    over: str = ALL

    @property
    def first(self) -> Entry:
        """Its entry on the first dataset: name, model and weights are the same on all."""
        return next(iter(self.entries.values()))

    @property
    def note(self) -> str:
        """On which datasets, where the image AUROC is lowest, and whose pixels count."""
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
    """Return the configurations that are ranked on more than one dataset: most datasets first, then by image AUROC.

    Several seeds count as their mean, every dataset as much as another. Of a dataset with several splits the first
    ranking counts. Only rows on the same datasets can be set against each other. Below them come the means over groups
    of datasets, those of MVTec AD and those that sweeps have named.
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
    """Return the means over groups of which there are at least two datasets, and others beside them."""
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
    """Return what makes a configuration, whatever its images: model, weights, how images are used, and the options."""
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
