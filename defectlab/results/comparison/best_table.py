"""The best run of each model on each dataset, as a Markdown table."""

from collections.abc import Mapping, Sequence
from typing import Any

from defectlab.evaluation.metric_names import BARE_METRICS
from defectlab.results.workbook_row import number, ranking_key
from defectlab.utils.table import Table, numbers, to_markdown

_OPTIONS = {
    "model.layers": "layers {}",
    "model.n_features": "{} features",
    "model.coreset_sampling_ratio": "coreset {}",
    "model.num_neighbors": "{} neighbours",
}


def best_table(rows: Sequence[Mapping[str, Any]], by: str = BARE_METRICS[0]) -> str:
    """Return a Markdown table of each model's run with the highest `by` in each dataset, split and pixel grid.

    Rows of one dataset, split and pixel grid are sorted best first. The best run is selected on the test images, so the
    last column gives the number of runs that it was selected from.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if number(row, by) is not None:
            groups.setdefault((ranking_key(row), row.get("model")), []).append(row)
    best = [(max(runs, key=lambda row: row[by]), len(runs)) for runs in groups.values()]
    order = list(dict.fromkeys(ranking_key(row) for row in rows))
    best.sort(key=lambda pair: (order.index(ranking_key(pair[0])), -pair[0][by]))
    cells = [
        [
            *(row.get(column, "") for column in ("dataset", "model", "backbone")),
            _settings(row),
            *(number(row, metric) for metric in BARE_METRICS),
            count,
        ]
        for row, count in best
    ]
    columns = ["dataset", "model", "backbone", "settings", *numbers(*BARE_METRICS, form=".3f"), *numbers("runs")]
    return to_markdown(Table(columns, cells), missing="n/a")


def _settings(row: Mapping[str, Any]) -> str:
    options = [text.format(row[option]) for option, text in _OPTIONS.items() if option in row]
    return ", ".join(options) or str(row.get("run"))
