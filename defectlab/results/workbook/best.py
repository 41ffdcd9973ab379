"""The best configuration of each model on each dataset, as a Markdown table."""

from collections.abc import Mapping, Sequence
from typing import Any

from defectlab.results.workbook.rows import BARE_METRICS, group_of, number

_OPTIONS = ("model.layers", "model.n_features", "model.coreset_sampling_ratio", "model.num_neighbors")
_SHORT = {
    "model.layers": "layers {}",
    "model.n_features": "{} features",
    "model.coreset_sampling_ratio": "coreset {}",
    "model.num_neighbors": "{} neighbours",
}


def best_table(rows: Sequence[Mapping[str, Any]], by: str = BARE_METRICS[0]) -> str:
    """Return the rows with the highest `by` of each model on each dataset and split, best first within a dataset.

    The pick is made on the test images, so the last column says out of how many.
    """
    shown: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if number(row, by) is not None:
            shown.setdefault((group_of(row), row.get("model")), []).append(row)
    best = [(max(runs, key=lambda row: row[by]), len(runs)) for runs in shown.values()]
    order = list(dict.fromkeys(group_of(row) for row in rows))
    best.sort(key=lambda found: (order.index(group_of(found[0])), -found[0][by]))
    header = ["dataset", "model", "backbone", "settings", *BARE_METRICS, "runs"]
    lines = [header, ["---"] * 4 + ["---:"] * (len(BARE_METRICS) + 1)]
    for row, count in best:
        metrics = ["n/a" if (value := number(row, metric)) is None else f"{value:.3f}" for metric in BARE_METRICS]
        names = [str(row.get(column, "")) for column in ("dataset", "model", "backbone")]
        lines.append([*names, _settings(row), *metrics, str(count)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _settings(row: Mapping[str, Any]) -> str:
    options = [_SHORT[option].format(row[option]) for option in _OPTIONS if option in row]
    return ", ".join(options) or str(row.get("run"))
