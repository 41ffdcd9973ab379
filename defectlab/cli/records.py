"""Commands that read records of runs: threshold, compare, report and convert."""

from collections import Counter

from jsonargparse import ArgumentParser

from defectlab.cli.command import Command
from defectlab.utils import paths
from defectlab_runtime.errors import InputError


def threshold(
    run: str, rule: str | None, level: str, undo: bool, renew: bool, category: str | None, **options: float | None
) -> None:
    """Choose a run's thresholds by another rule, from its record alone, or take the last choice back."""
    from defectlab.evaluation.threshold import RULE_OPTIONS, rule_options

    if [rule is not None, undo, renew].count(True) != 1:
        rules = ", ".join(RULE_OPTIONS)
        raise InputError(f"threshold needs one of --rule RULE ({rules}), --undo or --renew.")
    if rule is None and (named := [name for name, value in options.items() if value is not None]):
        raise InputError(f"--{named[0].replace('_', '-')} is an option of a rule: leave it out, or give --rule.")
    if rule is None and category is not None:
        raise InputError("--category goes with --rule.")
    from defectlab.results.run.run import Run

    given = rule_options(rule, options) if rule is not None else None
    opened = Run.open(run)
    from defectlab.inference import threshold as thresholds
    from defectlab.results.rethreshold import LEVELS
    from defectlab.visualization.terminal import summary

    levels = LEVELS if level == "both" else (level,)
    if rule is not None and given is not None:
        for name in (option for option in RULE_OPTIONS[rule] if options[option] is None):
            print(f"{name}: {getattr(given, name):g}, since nothing else was said")
        change = thresholds.apply_threshold(opened, rule, given, levels, category)
    else:
        levels = LEVELS
        change = thresholds.undo_threshold(opened) if undo else thresholds.renew(opened)
    by_category = change.thresholds.categories or {"": change.thresholds}
    for of, its in by_category.items():
        for name in levels if category in (None, of) else ():
            found = its.by_level[name]
            print(f"{of} {name}: {found.value!r} ({found.reason})".lstrip())
    if rule is not None:
        print("The thresholds before are kept: --undo takes this choice back.")
    if opened.status == "finished":
        summary(opened, change.rows)


def compare(
    runs: list[str],
    import_: str | None,
    dataset: str | None,
    prune: bool,
    best: bool,
    metric: str | None,
    table: bool,
    category: str | None,
) -> int:
    """Render models_comparing.xlsx again from the records; with runs, test them against each other."""
    if table:
        if import_ or prune or best or metric or category:
            raise InputError("--table prints runs side by side and changes nothing: leave out the other options.")
        print(experiment_table_of(runs))
        return 0
    if runs:
        if import_ or prune or best:
            raise InputError("With run folders, compare tests them against each other: leave out the other options.")
        from defectlab.results.comparison.paired_test import compare_runs
        from defectlab.results.run.category_run import category_run, names_of
        from defectlab.results.run.run import Run
        from defectlab.visualization.terminal import comparison_table

        opened = [Run.open(run) for run in runs]
        if category is not None:
            opened = [category_run(run, category) for run in opened]
        elif several := next((run for run in opened if run.record.categories), None):
            raise InputError(
                f"{several.folder.name} is one model for {', '.join(names_of(several.record))}: say which of these is "
                f"compared, such as --category {several.record.categories[0].name}."
            )
        comparison_table(compare_runs(opened, metric or "image_AUROC"))
        return 0
    if category is not None:
        raise InputError("--category is for testing runs against each other: name at least two run folders.")
    if metric:
        raise InputError("--metric is for testing runs against each other: name at least two run folders.")
    from defectlab.results.run.rerun import clear_all_leftovers
    from defectlab.results.workbook import best_table, imported_rows, update_workbook

    clear_all_leftovers(paths.results_dir())
    rows = imported_rows(import_, dataset) if import_ else []
    outcome = update_workbook(imported=rows, prune=prune)
    if not outcome.written:
        return 1
    counts = Counter(row["state"] for row in outcome.rows)
    print(
        f"{paths.relative(outcome.path)}: {len(outcome.rows)} rows" + "".join(f", {n} {s}" for s, n in counts.items())
    )
    if rows:
        print(f"Imported: {len(rows)} configurations")
    if prune:
        print(f"Removed: {outcome.pruned} rows whose record is gone")
    if best:
        print(best_table(outcome.rows))
    return 0


def experiment_table_of(named: list[str]) -> str:
    """Return a Markdown table of the named runs, or of all finished runs of the project if none is named."""
    from defectlab.results.run.category_run import each_alone
    from defectlab.results.run.run import Run, find_runs
    from defectlab.visualization.markdown import ALL_RATES, experiment_table

    runs = [Run.open(run) for run in named] or [run for run in find_runs() if run.status == "finished"]
    unfinished = [run for run in runs if run.status != "finished"]
    if unfinished:
        raise InputError(f"{unfinished[0].folder} is not finished (status {unfinished[0].status}).")
    if not runs:
        raise InputError(f"There is no finished run under {paths.results_dir()}.")
    return experiment_table(sorted(each_alone(runs), key=lambda run: str(run.record.dataset.name)), ALL_RATES)


def report(runs: list[str], output: str | None, files: bool, figures: str | None) -> None:
    """Write one self-contained HTML file about runs."""
    from defectlab.results.run.category_run import one_dataset
    from defectlab.results.run.run import Run

    opened = [Run.open(run) for run in runs]
    if files or figures is not None:
        for run in opened:
            one_dataset(run, "--files and --figures")
    default = opened[0].folder / "report.html" if len(opened) == 1 else paths.results_dir() / "report.html"
    target = paths.resolve(output) if output else default
    from defectlab.visualization.report import write_report
    from defectlab.visualization.result_files import write_result_files

    if figures is not None:
        from defectlab.visualization.segmentation import check_which, write_run_figures

        check_which(figures)
    print(paths.relative(write_report(opened, target)))
    for run in opened if figures is not None else ():
        for file in write_run_figures(run, run.folder / "report", figures or ""):
            print(paths.relative(file))
    for run in opened if files else ():
        for file in write_result_files(run, run.folder / "report"):
            print(paths.relative(file))


def convert(run: str, to: str = "anomalib", output: str | None = None) -> None:
    """Write a trained model as a checkpoint that plain anomalib loads.

    Args:
        run: Run folder or checkpoint.
        to: anomalib, the only one.
        output: File to write; default is weights/anomalib/model.ckpt in the run folder.
    """
    from defectlab.models.convert import check_target, to_anomalib

    check_target(to)
    print(paths.relative(to_anomalib(paths.resolve(run), paths.resolve(output) if output else None)))


def _threshold_arguments(parser: ArgumentParser) -> None:
    rules = "f1, good_max, mean_of_means, mean_plus_k_std, quantile, conformal, recall, cost or manual"
    parser.add_argument("--run", type=str, required=True, help="Run folder.")
    parser.add_argument("--rule", type=str, help=f"{rules}.")
    parser.add_argument("--undo", action="store_true", help="Take the last choice back: the thresholds before it.")
    renew = "Bring checkpoint, pictures, reports and workbook to the thresholds on record; choose nothing."
    parser.add_argument("--renew", action="store_true", help=renew)
    parser.add_argument("--level", type=str, default="both", help="image, pixel or both.")
    which = "For one of the categories that the model serves; default is each, on its own images."
    parser.add_argument("--category", type=str, help=which)
    for option, text in (
        ("k", "Standard deviations above the mean (mean_plus_k_std); default is 3."),
        ("false-alarm-rate", "Share of good images that may be flagged (quantile, conformal); default is 0.01."),
        ("recall", "Share of defects to catch (recall); default is 0.95."),
        ("miss-cost", "Price of a defect that passes (cost)."),
        ("false-alarm-cost", "Price of a good part that is flagged (cost)."),
        ("defect-share", "Share of defects on the line (cost)."),
        ("value", "The raw threshold (manual)."),
    ):
        parser.add_argument(f"--{option}", type=float, help=text)


def _compare_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=str, nargs="*", help="Run folders to test against each other.")
    metrics = "What they are compared by, such as pixel_AUPRO or image_F1Score; default is image_AUROC."
    parser.add_argument("--metric", type=str, help=metrics)
    whose = "Compare runs that serve several categories on this one, with each other and with runs on it alone."
    parser.add_argument("--category", type=str, help=whose)
    importing = "A workbook kept by hand, whose blocks come in as rows marked as imported."
    parser.add_argument("--import", dest="import_", metavar="FILE", type=str, help=importing)
    parser.add_argument("--dataset", type=str, help="Name of the dataset of the imported blocks.")
    parser.add_argument("--prune", action="store_true", help="Remove rows whose record is gone.")
    table = "Print runs side by side as Markdown, all finished ones or those named; the workbook stays as it is."
    parser.add_argument("--table", action="store_true", help=table)
    parser.add_argument("--best", action="store_true", help="Print the best run of each model, as Markdown.")


def _report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=str, nargs="+", help="Run folders.")
    parser.add_argument("--output", type=str, help="File to write; default is report.html in the run folder.")
    files = "Also write each run's predictions, average scores, confusion matrix and cumulative histogram into report/."
    parser.add_argument("--files", action="store_true", help=files)
    which = (
        "Also image, ground truth, heat map, mask and boundaries in a row into report/: the first test image or all."
    )
    parser.add_argument("--figures", type=str, metavar="first|all", help=which)


THRESHOLD = Command(threshold, _threshold_arguments)
COMPARE = Command(compare, _compare_arguments)
REPORT = Command(report, _report_arguments)
CONVERT = Command(convert)
