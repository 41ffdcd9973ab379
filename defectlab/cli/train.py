"""Commands that run a model: train, add-images, evaluate, predict."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from defectlab.cli.command import Command
from defectlab.experiment import Experiment
from defectlab.utils import paths
from defectlab.utils.config_files import as_yaml, config_file, read_yaml
from defectlab_runtime.errors import InputError

if TYPE_CHECKING:
    from defectlab.data.folder import Folder
    from defectlab.results.run.run import Run


def train(seeds: str | None, vary_split: bool, rerun: bool, fit_only: bool, print_config: bool, **settings: Any) -> int:
    """Train and test one experiment, once or with several seeds."""
    from defectlab.sweeps.run_many import parse_seeds, run_many, with_seeds

    experiment = Experiment(**settings)
    if print_config:
        print(as_yaml(experiment.to_dict()), end="")
        return 0
    if experiment.categories is not None:
        if fit_only:
            raise InputError("--fit-only trains once: leave out --categories.")
        from defectlab.sweeps.run_many import per_category, run_categories, table_of

        given = None if seeds is None else parse_seeds(seeds)
        each = [one for part in per_category(experiment) for one in with_seeds(part, given, vary_split=vary_split)]
        return 0 if len(run_categories(each, table_of(experiment), rerun=rerun)) == len(each) else 1
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
    from defectlab.results.evaluate import evaluate_run, relabel_scores
    from defectlab.results.run.run import Run
    from defectlab.results.workbook import update_workbook
    from defectlab.visualization.terminal import summary

    opened = Run.open(run)
    if rescore or data is not None:
        from defectlab.engine.engine import Engine

        Engine().test(datamodule=_tested_images(opened, data), ckpt_path=opened.checkpoint_file())
        return
    if not opened.scores("test"):
        raise InputError(f"{run} has no test scores yet (status {opened.status}); add --rescore.")
    results = evaluate_run(opened)
    relabel_scores(opened)
    opened.update(**results)
    summary(opened, update_workbook(opened).rows)


def _tested_images(run: "Run", data: str | None) -> "Folder":
    """Return the images of the run, or those of another folder: a dataset in a known layout, or bare test folders."""
    from defectlab.data.folder import Folder
    from defectlab.data.labelled_folder import LabelledFolder, has_no_training_images

    options = run.record.experiment.data
    training = (
        *("passes", "train_augmentations", "val_augmentations", "test_augmentations"),
        *("k_shots", "k_shot_draws"),
    )
    kept = {key: value for key, value in options.items() if key not in training}
    bare = not run.record.dataset.counts["train"] if data is None else has_no_training_images(paths.resolve(data))
    if bare:
        names = ("eval_batch_size", "num_workers", "extensions", "masks_beside_images")
        return LabelledFolder(data or kept["root"], **{name: kept[name] for name in names if name in kept})
    if data is None:
        return Folder(**kept)
    own = ("name", "valid_area_mask", "crop_area", "tiling")  # the checkpoint brings all but the first
    kept = {key: value for key, value in kept.items() if key not in own and not key.endswith("_dir")}
    return Folder(**kept | {"root": data})  # in a layout of its own


def add_images(run: str, source: list[str], name: str | None, accelerator: str) -> None:
    """Add good images to a fitted model and test the result, which is a new run."""
    from defectlab.engine.added_images import prepare_addition
    from defectlab.results.pixel_grid import pixel_size_of

    addition = prepare_addition(run, _as_typed(source))  # before the seconds that torch and anomalib take to load
    from defectlab.engine.engine import Engine

    engine = Engine(name=name, pixel_size=pixel_size_of(addition.parent), accelerator=accelerator)
    engine.add_images(run, _as_typed(source))


def _as_typed(source: Sequence[str]) -> list[str]:
    """Return paths that exist where the command was typed, which may be below the project root, as absolute ones."""
    return [str(Path.cwd() / item) if item and (Path.cwd() / item).exists() else item for item in source]


def predict(
    run: str,
    source: list[str],
    output: str | None,
    heatmaps: bool,
    masks: bool,
    view: str,
    report: bool,
    threshold: str,
    threshold_type: str,
    device: str,
    only_wrong: bool,
    panels: bool,
    figures: str | None,
    strict: bool,
    no_verify: bool,
    category: str | None,
) -> int:
    """Score images with a trained model and write scores.csv; the exit code is 1 where an image has no score."""
    from defectlab.data.image_sources import find_images
    from defectlab.results.run.scores import read_problems
    from defectlab_runtime.normalization import check_view

    if not paths.resolve(run).exists():
        raise InputError(f"There is no run folder, checkpoint or exported file {paths.resolve(run)}.")
    if not report and (only_wrong or panels or threshold != "training" or threshold_type != "image"):
        raise InputError("--threshold, --threshold-type, --only-wrong and --panels go with --report.")
    if report and (heatmaps or masks or figures or view != "raw"):
        raise InputError(
            "--report writes heat maps and masks by itself: leave out --heatmaps, --masks, --figures and --view."
        )
    here = _as_typed(source)
    check_view(view)
    files = find_images(here)  # before the seconds that torch and anomalib take to load
    folder = paths.resolve(output or f"predictions/{datetime.now():%Y-%m-%d_%H-%M-%S}")
    loading: dict[str, Any] = {"device": device, "verify": not no_verify, "category": category}
    if report:
        from defectlab.inference.prediction_report import report_predictions

        wanted: dict[str, Any] = {"threshold": _number(threshold), "threshold_type": threshold_type, **loading}
        report_predictions(run, files, folder, **wanted, only_wrong=only_wrong, panels=panels, strict=strict)
    else:
        from defectlab.inference.prediction_files import predict_to_folder

        drawn: dict[str, Any] = {"heatmaps": heatmaps, "masks": masks, "view": view, "figures": figures}
        predict_to_folder(run, files, folder, **drawn, **loading, strict=strict)
    return 1 if read_problems(folder / "scores.csv") else 0


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _train_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action="config", help="YAML file of an experiment; options given here win over it.")
    parser.add_class_arguments(Experiment, as_positional=False)
    parser.add_argument("--seeds", type=str, help="Train with each of these seeds, such as 0..4 or 0,1,2.")
    parser.add_argument("--vary-split", action="store_true", help="Split anew with each seed.")
    later = "Train without the test; `evaluate RUN --rescore` makes it up."
    parser.add_argument("--fit-only", action="store_true", help=later)
    parser.add_argument("--rerun", action="store_true", help="With several seeds: train finished ones again too.")
    printed = "Print all settings, as file and command line give them together, as YAML for --config; train nothing."
    parser.add_argument("--print_config", action="store_true", help=printed)


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="Run folder.")
    parser.add_argument("--rescore", action="store_true", help="Score the test images with the checkpoint first.")
    other = "Test on other images: a dataset in a known layout, or a folder of good/ and bad/ (or kinds of defect)."
    parser.add_argument("--data", type=str, metavar="FOLDER", help=other)


def _add_images_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="Run folder of PaDiM, PatchCore or SubspaceAD; it stays as it is.")
    parser.add_argument("source", type=str, nargs="+", help="Good images: files, folders or globs.")
    parser.add_argument("--name", type=str, help="Name of the new run; default is the old one's with _added-N.")
    parser.add_argument("--accelerator", type=str, default="auto", help="auto, cpu, gpu, ...")


def _predict_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="Run folder, checkpoint or exported file.")
    parser.add_argument("source", type=str, nargs="+", help="Image files, folders or globs.")
    parser.add_argument("--output", type=str, help="Folder to write to; default is predictions/DATE_TIME.")
    parser.add_argument(
        "--heatmaps", action="store_true", help="Write heat maps, all on one scale; in view percent, 50 to 150."
    )
    parser.add_argument("--masks", action="store_true", help="Write masks at the images' own size.")
    which = "Image, heat map, mask and boundaries side by side, of the first image or of all; the score in the name."
    parser.add_argument("--figures", type=str, metavar="first|all", help=which)
    views = "Of the scores: raw, min_max (0.5 is the threshold) or percent (100 is the threshold)."
    parser.add_argument("--view", type=str, default="raw", help=views)
    everything = "Write all there is: heat maps on the scale 50 to 150 (100 is the threshold), masks, JSON, histogram."
    parser.add_argument("--report", action="store_true", help=everything)
    whose = "With --report: training (the run's own) recomputed (best F1 here, by the folders), or 110 for 10 % higher."
    parser.add_argument("--threshold", type=str, default="training", metavar="training|recomputed|NUMBER", help=whose)
    which = "With --report: which of the run's thresholds decides images, image or pixel (that of the maps)."
    parser.add_argument("--threshold-type", type=str, default="image", help=which)
    parser.add_argument("--device", type=str, default="auto", help="auto (the GPU where there is one), cpu, cuda, ...")
    parser.add_argument("--only-wrong", action="store_true", help="With --report: pictures of wrong decisions only.")
    parser.add_argument(
        "--panels", action="store_true", help="With --report: panels too, in images/ok and images/wrong."
    )
    ends = "End at an image that cannot be read; else the others are scored and its reason is in scores.csv."
    parser.add_argument("--strict", action="store_true", help=ends)
    whose = "Category of the images, for a model that serves several; default is the dataset's folder they lie in."
    parser.add_argument("--category", type=str, help=whose)
    unchecked = "Do not compare the checkpoint with its digest, which finds damage and takes about a second a GB."
    parser.add_argument("--no-verify", action="store_true", help=unchecked)


def _config_first(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Move --config files, found here or in the project, before all other arguments, which then override them.

    Raises:
        OptionError: Names every key of a file that does not exist, with the closest that does.
    """
    del options
    files: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--config" and left:
            files.append(left.pop(0))
        elif argument.startswith("--config="):
            files.append(argument.removeprefix("--config="))
        else:
            rest.append(argument)
    found = [config_file(file) for file in files]
    for file in found:
        Experiment.check_names(read_yaml(file))
    return [*rest[:1], *(part for file in found for part in ("--config", str(file))), *rest[1:]]


TRAIN = Command(train, _train_arguments, _config_first)
EVALUATE = Command(evaluate, _evaluate_arguments)
ADD_IMAGES = Command(add_images, _add_images_arguments)
PREDICT = Command(predict, _predict_arguments)
