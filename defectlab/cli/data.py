"""Commands about images."""

from typing import Any

from jsonargparse import ArgumentParser

from defectlab.cli.command import Command
from defectlab.data.manifest.options import DataOptions
from defectlab.utils import paths
from defectlab_runtime import names


def data_check(root: str, near: bool, pictures: str | None = None, **options: Any) -> int:
    """Say what images were found, how training would split them, and every problem."""
    from defectlab.data.manifest.check import check

    report = check(paths.resolve(root), near=near, **options)
    print(names.terminal(report.text, lines=True))
    if pictures is not None and report.manifest is not None:
        from defectlab.visualization.mask_pairs import write_mask_pairs

        named = paths.resolve(pictures) if pictures else None
        file = named or paths.results_dir() / "data_check" / f"{report.manifest.name}.png"
        count = write_mask_pairs(report.manifest, file)
        print(f"Pictures: {count} images with the outlines of their masks in {paths.relative(file)}")
    return 0 if report.ok else 1


def _check_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("root", type=str, help="Folder of the dataset.")
    parser.add_argument("--near", type=bool, default=True, help="Look for copies of one photograph in two splits.")
    drawing = "Draw the first images with the outlines of their masks into FILE (default: in results/data_check)."
    parser.add_argument("--pictures", type=str, nargs="?", const="", metavar="FILE", help=drawing)
    parser.add_class_arguments(DataOptions, as_positional=False, skip={"root"})


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


def data_download(
    name: str,
    category: list[str] | None,
    destination: str | None,
    url: str | None,
    file: str | None,
    sha256: str | None,
) -> None:
    """Download a public dataset (mvtec, visa) into a layout known by itself; resumes, verifies, overwrites nothing."""
    from defectlab.data.download.download import download
    from defectlab.utils.progress import progress_bar

    target = paths.resolve(destination or f"data/{name}")
    local = None if file is None else paths.resolve(file)
    with progress_bar(name, None, of_bytes=True) as progress:
        folders = download(
            name, target, categories=category or (), url=url, file=local, sha256=sha256, progress=progress
        )
    for folder in folders:
        print(paths.relative(folder))


def _download_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", type=str, help="mvtec, visa, or one of downloads.json in the destination.")
    parser.add_argument("--category", type=str, nargs="+", help="Which categories; default is all.")
    parser.add_argument("--destination", type=str, help="Folder for the categories' folders; default is data/NAME.")
    parser.add_argument("--url", type=str, help="Another address of the archive.")
    parser.add_argument("--file", type=str, help="An archive that is here already; nothing is downloaded.")
    parser.add_argument("--sha256", type=str, help="What the archive's hash must be.")


COMMANDS = {
    "check": Command(data_check, _check_arguments),
    "sample": Command(data_sample),
    "download": Command(data_download, _download_arguments),
}
