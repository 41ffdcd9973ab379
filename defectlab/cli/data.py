"""Commands about images."""

from defectlab import paths
from defectlab.cli.command import Command


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


COMMANDS = {"check": Command(data_check), "sample": Command(data_sample)}
