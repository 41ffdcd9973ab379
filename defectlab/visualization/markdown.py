"""A Markdown table of finished runs, with their settings and metrics side by side."""

from collections.abc import Sequence

from defectlab.results.run.run import Run
from defectlab.utils.table import Table, numbers, to_markdown

RATES = ("image_TPR", "image_TNR", "image_AUROC")
ALL_RATES = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score", "image_TPR", "image_TNR")


def experiment_table(runs: Sequence[Run], metrics: Sequence[str] = RATES) -> str:
    """Return a table with a row for each run: type, parameters, epochs, learning rate, threshold, metrics and seconds.

    A metric that cannot be computed is "-", as is a learning rate that a model does not have. Runs of several datasets
    get a column with the dataset's name.
    """
    several = len({run.record.dataset.name for run in runs}) > 1
    columns = [*["dataset"][:several], "model", "run", *numbers("parameters", "epochs", "lr")]
    columns += [*numbers("threshold", form=".4g"), *numbers(*metrics, form=".3f"), *numbers("fit s", form=".0f")]
    rows = []
    for run in runs:
        experiment, count = run.record.experiment, run.record.parameters
        rows.append([
            *[run.record.dataset.name][:several],
            run.model,
            run.record.name,
            None if count is None else f"{count / 1e6:.2f} M",
            experiment.trainer.get("max_epochs"),
            str(experiment.model.get("lr", "-")),
            run.record.thresholds.image.value,
            *(run.record.metrics.get(metric) for metric in metrics),
            run.record.timings.get("fit"),
        ])  # fmt: skip
    return to_markdown(Table(columns, rows))
