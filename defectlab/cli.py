"""The command line. Nothing here imports torch until a command needs it."""

import re
import sys
from argparse import ArgumentError
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from defectlab import __version__, paths
from defectlab.errors import InputError, did_you_mean
from defectlab.experiment import Experiment, config_file, read_yaml
from defectlab.logs import ignore_import_warnings, show_log

Command = Callable[..., int | None]


def demo(data: str = "data/coins", epochs: int = 1) -> None:
    """Train PaDiM, PatchCore and CFlow on the built-in sample and show what they found.

    Args:
        data: Where the sample `coins` is, or is made.
        epochs: Epochs of CFlow.
    """
    from defectlab.demo import run_demo

    run_demo(data, epochs)


def data_check(root: str, group: str | None = None, near: bool = True) -> int:
    """Say what images were found, how training would split them, and every problem.

    Args:
        root: Folder of the dataset.
        group: Regular expression on the image's path that names the part it shows.
        near: Look for copies of one photograph in two splits.
    """
    from defectlab.data.check import check

    report = check(paths.resolve(root), group=group, near=near)
    print(report.text)
    return 0 if report.ok else 1


def data_sample(
    name: str,
    destination: str,
    seed: int = 42,
    good_number: int = 9,
    limit_data: int = 100,
    train: int = 1000,
    proliv: int = 60,
    test: int = 400,
) -> None:
    """Make a built-in dataset.

    Args:
        name: coins, digits or wells.
        destination: Folder to make.
        seed: Of the composition.
        good_number: The good digit, for digits.
        limit_data: The most images of each digit, for digits.
        train: Good training images, for wells.
        proliv: Anomalous validation images, for wells.
        test: Test images of both kinds, for wells.
    """
    from defectlab.data.samples import OPTIONS, make_sample

    given = {"good_number": good_number, "limit_data": limit_data, "train": train, "proliv": proliv, "test": test}
    options = {option: given[option] for option in OPTIONS.get(name, {})}
    print(f"{name}: {paths.relative(make_sample(name, paths.resolve(destination), seed=seed, **options))}")


def weights_list() -> None:
    """List known and local backbone weights."""
    from defectlab.backbones import list_weights

    for entry in list_weights():
        where = paths.relative(entry.path) if entry.path else (entry.url or "")
        print(f"{entry.file:<48} {entry.state:<10} {entry.name or '?':<16} {entry.licence or '':<24} {where}")


def weights_get(name: str) -> None:
    """Download weights into weights/; resumes, and verifies the hash.

    Args:
        name: As `defectlab weights list` shows it.
    """
    from defectlab.backbones import get
    from defectlab.progress import progress_bar

    with progress_bar(name, None, of_bytes=True) as progress:
        path = get(name, progress=progress)
    print(paths.relative(path))


def weights_verify(names: list[str] | None = None) -> int:
    """Compare local weights with their recorded hashes.

    Args:
        names: Which; default is all.
    """
    from defectlab.backbones import verify

    results = verify(names)
    for result in results:
        print(f"{result.file:<48} {result.state}")
    return 1 if any(result.state == "changed" for result in results) else 0


def weights_import(file: str, name: str | None, overwrite: bool) -> None:
    """Check a weights file, copy it into weights/ and record where it came from."""
    from defectlab.backbones import import_file

    print(paths.relative(import_file(Path(file), name, overwrite=overwrite)))


def weights_distil(
    backbone: str,
    weights: str | None = None,
    model_size: str = "small",
    layers: list[str] | None = None,
    images: str | None = None,
    steps: int = 2000,
    batch_size: int = 8,
    seed: int = 42,
    output: str | None = None,
    overwrite: bool = False,
) -> None:
    """Make a teacher for EfficientAD from a backbone, and write it into weights/.

    Args:
        backbone: Whose features it learns.
        weights: The backbone's file, or `random`; default is looked for by name.
        model_size: tiny, small or medium.
        layers: Of the backbone; default is layer2 and layer3.
        images: Folder of images to learn on; default is a generated set.
        steps: Optimiser steps.
        batch_size: Images a step.
        seed: Of the teacher and the images drawn.
        output: File to write; default is pretrained_teacher_SIZE.safetensors in weights/.
        overwrite: Replace a file that is there.
    """
    from defectlab.backbones import load_backbone
    from defectlab.models.distil import distil_teacher

    path = distil_teacher(
        load_backbone(backbone, weights=weights, seed=seed),
        model_size=model_size,
        layers=layers or ["layer2", "layer3"],
        images=images,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        output=output,
        overwrite=overwrite,
    )
    print(paths.relative(path))


def models_list() -> None:
    """List the models and what each needs: epochs, default backbone, other files; none needs masks to train."""
    from defectlab.models.registry import MODELS, OTHERS

    for title, models in (("DefectLab's:", MODELS), ("anomalib's own, by name:", OTHERS)):
        print(f"{title:<26}{'class':<21}{'epochs':<8}{'backbone':<19}what it is")
        for info in models.values():
            epochs = f"{info.epochs}" if info.epochs else f"{info.default_epochs}*"
            files = f"; needs {info.files}" if info.files else ""
            print(
                f"  {info.name:<24}{info.class_name:<21}{epochs:<8}{info.backbone or 'none':<19}{info.summary}{files}"
            )
    print("* unless trainer.max_epochs says otherwise. Masks are for pixel metrics alone: no model trains on them.")


def cache_list() -> None:
    """List the cached features, the last used first."""
    from defectlab.features.store import FeatureStore

    store = FeatureStore()
    entries = store.entries()
    for entry in entries:
        what = " ".join(str(entry.key.get(name, "")) for name in ("backbone", "layer", "dtype", "device"))
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        print(f"{what:<48} {entry.key.get('count', '?'):>6} images {entry.bytes / 1e6:>10.1f} MB  last used {used}")
    total = sum(entry.bytes for entry in entries)
    print(f"{len(entries)} arrays, {total / 1e9:.2f} of {store.limit / 1e9:.0f} GB: {paths.relative(store.root)}")


def cache_clear() -> None:
    """Remove the cached features; they are computed again when they are needed."""
    from defectlab.features.store import FeatureStore

    store = FeatureStore()
    print(f"Freed {store.clear() / 1e9:.2f} GB: {paths.relative(store.root)}")


def train(seeds: str | None, vary_split: bool, rerun: bool, fit_only: bool, **settings: Any) -> int:
    """Train and test one experiment, once or with several seeds."""
    from defectlab.many import parse_seeds, run_many, with_seeds

    experiment = Experiment(**settings)
    if seeds is None and experiment.repeat == 1:
        from defectlab.experiment import run

        run(experiment, test=not fit_only)
        return 0
    if fit_only:
        raise InputError("--fit-only trains once: leave out --seeds and repeat.")
    repeats = with_seeds(experiment, None if seeds is None else parse_seeds(seeds), vary_split=vary_split)
    return 0 if len(run_many(repeats, rerun=rerun)) == len(repeats) else 1


def evaluate(run: str, rescore: bool, data: str | None) -> None:
    """Compute a run's metrics again from its raw record, or test it on other images."""
    from defectlab.results.evaluate import evaluate_run
    from defectlab.results.record import Run
    from defectlab.results.show import summary
    from defectlab.results.workbook import update_workbook

    opened = Run.open(run)
    if rescore or data is not None:
        from defectlab.data.folder import Folder
        from defectlab.engine import Engine

        options = opened.record["experiment"]["data"]
        kept = {key: value for key, value in options.items() if not key.endswith("augmentations")}
        if data is not None:  # in a layout of its own
            own = ("name", "valid_area_mask", "crop_area")  # the checkpoint brings the last two
            kept = {key: value for key, value in kept.items() if key not in own and not key.endswith("_dir")}
            kept["root"] = data
        Engine().test(datamodule=Folder(**kept), ckpt_path=opened.checkpoint_file())
        return
    if not opened.scores("test"):
        raise InputError(f"{run} has no test scores yet (status {opened.status}); add --rescore.")
    opened.update(**evaluate_run(opened))
    summary(opened, update_workbook(opened).rows)


def threshold(run: str, rule: str, level: str, **options: float | None) -> None:
    """Choose a run's thresholds by another rule, from its record alone."""
    from defectlab.evaluation.rule_options import rule_options
    from defectlab.results.record import Run
    from defectlab.results.rethreshold import LEVELS, set_threshold
    from defectlab.results.show import summary
    from defectlab.results.workbook import update_workbook

    given = rule_options(rule, options)
    opened = Run.open(run)
    for name, found in set_threshold(opened, rule, given, LEVELS if level == "both" else (level,)).items():
        print(f"{name}: {found.value!r} ({found.reason})")
    if opened.status == "finished":
        from defectlab.pictures import save_panel

        save_panel(opened)  # the old one shows what the old threshold found
        summary(opened, update_workbook(opened).rows)


def compare(
    runs: list[str], import_: str | None, dataset: str | None, prune: bool, best: bool, metric: str | None
) -> int:
    """Render models_comparing.xlsx again from the records; with runs, test them against each other."""
    if runs:
        if import_ or prune or best:
            raise InputError("With run folders, compare tests them against each other: leave out the other options.")
        from defectlab.results.compare import compare_runs, comparison_table
        from defectlab.results.record import Run

        comparison_table(compare_runs([Run.open(run) for run in runs], metric or "image_AUROC"))
        return 0
    if metric:
        raise InputError("--metric is for testing runs against each other: name at least two run folders.")
    from defectlab.results.workbook import best_table, imported_rows, update_workbook

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


def report(runs: list[str], output: str | None) -> None:
    """Write one self-contained HTML file about runs."""
    from defectlab.results.record import Run

    opened = [Run.open(run) for run in runs]
    default = opened[0].folder / "report.html" if len(opened) == 1 else paths.results_dir() / "report.html"
    target = paths.resolve(output) if output else default
    from defectlab.report import write_report

    print(paths.relative(write_report(opened, target)))


def predict(run: str, source: list[str], output: str | None, heatmaps: bool, masks: bool, view: str) -> None:
    """Score images with a trained model and write scores.csv."""
    from defectlab.data.sources import find_images
    from defectlab.evaluation.views import check_view

    if not paths.resolve(run).exists():
        raise InputError(f"There is no run folder or checkpoint {paths.resolve(run)}.")
    # a shell expands globs where it stands, which may be below the project root
    here = [str(Path.cwd() / item) if (Path.cwd() / item).exists() else item for item in source]
    check_view(view)
    find_images(here)  # before the seconds that torch and anomalib take to load
    from defectlab.scoring import predict_to_folder

    folder = output or f"predictions/{datetime.now():%Y-%m-%d_%H-%M-%S}"
    predict_to_folder(run, here, paths.resolve(folder), heatmaps=heatmaps, masks=masks, view=view)


def convert(run: str, to: str = "anomalib", output: str | None = None) -> None:
    """Write a trained model as a checkpoint that plain anomalib loads.

    Args:
        run: Run folder or checkpoint.
        to: anomalib, the only one.
        output: File to write; default is weights/anomalib/model.ckpt in the run folder.
    """
    from defectlab.convert import check_target, to_anomalib

    check_target(to)
    print(paths.relative(to_anomalib(paths.resolve(run), paths.resolve(output) if output else None)))


COMMANDS: dict[str, Command | dict[str, Command]] = {
    "demo": demo,
    "data": {"check": data_check, "sample": data_sample},
    "weights": {
        "list": weights_list,
        "get": weights_get,
        "verify": weights_verify,
        "import": weights_import,
        "distil": weights_distil,
    },
    "models": {"list": models_list},
    "train": train,
    "evaluate": evaluate,
    "threshold": threshold,
    "compare": compare,
    "report": report,
    "predict": predict,
    "convert": convert,
    "cache": {"list": cache_list, "clear": cache_clear},
}
GROUPS = {
    "data": "Look at images, make samples.",
    "weights": "Backbone weights.",
    "models": "What can be trained.",
    "cache": "Features kept on disk.",
}


def build_parser() -> ArgumentParser:
    """Return the parser of all commands."""
    parser = _parser(
        prog="defectlab", description="Visual anomaly detection: train, compare, predict.", version=__version__
    )
    subcommands = parser.add_subcommands(dest="command")
    groups = []
    for name, command in COMMANDS.items():
        if isinstance(command, dict):
            group = _parser(description=GROUPS[name])
            subcommands.add_subcommand(name, group, help=GROUPS[name])
            groups.append((group, command))
        else:
            subcommands.add_subcommand(name, _command_parser(command), help=_first_line(command))
    for group, functions in groups:  # jsonargparse wants one level after the other
        inner = group.add_subcommands(dest="subcommand")
        for inner_name, function in functions.items():
            inner.add_subcommand(inner_name, _command_parser(function), help=_first_line(function))
    return parser


def _command_parser(function: Command) -> ArgumentParser:
    parser = _parser(description=_first_line(function))
    if function is train:
        parser.add_argument(
            "--config", action="config", help="YAML file of an experiment; options given here win over it."
        )
        parser.add_class_arguments(Experiment, as_positional=False)
        parser.add_argument("--seeds", type=str, help="Train with each of these seeds, such as 0..4 or 0,1,2.")
        parser.add_argument("--vary-split", action="store_true", help="Split anew with each seed.")
        later = "Train without the test; `evaluate RUN --rescore` makes it up."
        parser.add_argument("--fit-only", action="store_true", help=later)
        parser.add_argument("--rerun", action="store_true", help="With several seeds: train finished ones again too.")
    elif function is predict:
        parser.add_argument("run", type=str, help="Run folder or checkpoint.")
        parser.add_argument("source", type=str, nargs="+", help="Image files, folders or globs.")
        parser.add_argument("--output", type=str, help="Folder to write to; default is predictions/DATE_TIME.")
        parser.add_argument("--heatmaps", action="store_true", help="Write heat maps, all on one scale.")
        parser.add_argument("--masks", action="store_true", help="Write masks at the images' own size.")
        views = "Of the scores: raw, min_max (0.5 is the threshold) or percent (100 is the threshold)."
        parser.add_argument("--view", type=str, default="raw", help=views)
    elif function is report:
        parser.add_argument("runs", type=str, nargs="+", help="Run folders.")
        parser.add_argument("--output", type=str, help="File to write; default is report.html in the run folder.")
    elif function is threshold:
        _add_threshold_arguments(parser)
    elif function is compare:
        parser.add_argument("runs", type=str, nargs="*", help="Run folders to test against each other.")
        metrics = "What they are compared by, such as pixel_AUPRO or image_F1Score; default is image_AUROC."
        parser.add_argument("--metric", type=str, help=metrics)
        importing = "A workbook kept by hand, whose blocks come in as rows marked as imported."
        parser.add_argument("--import", dest="import_", metavar="FILE", type=str, help=importing)
        parser.add_argument("--dataset", type=str, help="Name of the dataset of the imported blocks.")
        parser.add_argument("--prune", action="store_true", help="Remove rows whose record is gone.")
        parser.add_argument("--best", action="store_true", help="Print the best run of each model, as Markdown.")
    elif function is weights_import:
        parser.add_argument("file", type=str, help="The file.")
        parser.add_argument("--name", type=str, help="Backbone it is for; default is found by its tensors.")
        parser.add_argument("--overwrite", action="store_true", help="Replace another file of this name.")
    elif function is evaluate:
        parser.add_argument("run", type=str, help="Run folder.")
        parser.add_argument("--rescore", action="store_true", help="Score the test images with the checkpoint first.")
        other = "Test on the images of another dataset, a folder in a known layout: a run of its own."
        parser.add_argument("--data", type=str, metavar="FOLDER", help=other)
    else:
        parser.add_function_arguments(function, as_positional=True)
    return parser


def _add_threshold_arguments(parser: ArgumentParser) -> None:
    rules = "f1, good_max, mean_of_means, mean_plus_k_std, quantile, conformal, recall, cost or manual"
    parser.add_argument("--run", type=str, required=True, help="Run folder.")
    parser.add_argument("--rule", type=str, required=True, help=f"{rules}.")
    parser.add_argument("--level", type=str, default="both", help="image, pixel or both.")
    for option, text in (
        ("k", "Standard deviations above the mean (mean_plus_k_std)."),
        ("false-alarm-rate", "Share of good images that may be flagged (quantile, conformal)."),
        ("recall", "Share of defects to catch (recall)."),
        ("miss-cost", "Price of a defect that passes (cost)."),
        ("false-alarm-cost", "Price of a good part that is flagged (cost)."),
        ("defect-share", "Share of defects on the line (cost)."),
        ("value", "The raw threshold (manual)."),
    ):
        parser.add_argument(f"--{option}", type=float, help=text)


def _parser(**kwargs: Any) -> ArgumentParser:
    return ArgumentParser(exit_on_error=False, allow_abbrev=False, **kwargs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for a failed check, 2 for an input that cannot work."""
    show_log()
    ignore_import_warnings()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    try:
        arguments = _with_config(arguments)
        settings = parser.instantiate_classes(parser.parse_args(arguments))
        function, values = _selected(settings)
        return function(**values) or 0
    except ArgumentError as error:
        print(f"defectlab: {_with_suggestion(parser, arguments, str(error))}", file=sys.stderr)
    except InputError as error:
        print(f"defectlab: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("defectlab: interrupted; the same command starts again.", file=sys.stderr)
        return 130
    return 2


def _selected(settings: Namespace) -> tuple[Command, dict[str, Any]]:
    command, values = COMMANDS[settings.command], settings[settings.command]
    if isinstance(command, dict):
        command, values = command[values.subcommand], values[values.subcommand]
    return command, {key: value for key, value in vars(values).items() if key not in ("config", "subcommand")}


def _with_config(arguments: Sequence[str]) -> list[str]:
    """Find each --config file, here or in the project, and name the closest key for every unknown one in it."""
    found = list(arguments)
    for position, argument in enumerate(found):
        if argument == "--config" and position + 1 < len(found):
            file = config_file(found[position + 1])
            found[position + 1] = str(file)
        elif argument.startswith("--config="):
            file = config_file(argument.removeprefix("--config="))
            found[position] = f"--config={file}"
        else:
            continue
        Experiment.check_names(read_yaml(file))
    return found


def _with_suggestion(parser: ArgumentParser, arguments: Sequence[str], message: str) -> str:
    unknown = re.findall(r"--[\w.]+", message) if "nrecognized" in message else []
    known = _option_strings(parser, arguments)
    return message + "".join(did_you_mean(option, known) for option in unknown)


def _option_strings(parser: ArgumentParser, arguments: Sequence[str]) -> list[str]:
    function = COMMANDS.get(arguments[0]) if arguments else None
    if isinstance(function, dict):
        function = function.get(arguments[1]) if len(arguments) > 1 else None
    chosen = parser if function is None else _command_parser(function)
    return [option for action in chosen._actions for option in action.option_strings]


def _first_line(function: Command) -> str:
    return (function.__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
