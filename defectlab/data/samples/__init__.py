"""Datasets that need no download, built from images that ship with scikit-image and scikit-learn."""

from pathlib import Path

from defectlab.data.samples import coins, digits, wells
from defectlab.data.samples.store import Identity, find_complete, sources, write_sample
from defectlab.utils.logs import show_log
from defectlab.utils.paths import resolve
from defectlab.utils.validation import check_option_names
from defectlab_runtime.errors import InputError, OptionError, unknown_name

__all__ = ["SAMPLES", "make_sample", "sources"]

SAMPLES = {
    "coins": "gravel, brick and grass with coins, foreign patches and scratches; 90 / 20 / 45 photographs with masks",
    "digits": "handwritten digits, one good (good_number=9), at most limit_data=100 of each other one; no masks",
    "wells": "metal wells of many small sizes, some with spills; train=1000, proliv=60, test=400 images; no masks",
}
# Raised whenever a sample's pixels change, so that an older folder is never taken for the current one.
VERSIONS = {"coins": 1, "digits": 1, "wells": 1}
OPTIONS: dict[str, dict[str, int]] = {
    "coins": {},
    "digits": {"good_number": 9, "limit_data": 100},
    "wells": {"train": 1000, "proliv": 60, "test": 400},
}


def make_sample(
    name: str, destination: str | Path, *, seed: int = 42, exist_ok: bool | int = False, **options: int
) -> Path:
    """Make a built-in dataset and return its folder; a complete one is kept as it is.

    `coins` and `digits` have the MVTec layout, `wells` has that of the casting wells (`data.manifest.layouts`).

    A relative destination is taken from the project root. The folder appears whole or not at all; its `sample.json`
    says what it was made from. The same name, seed and options give the same pixels on every machine. With `exist_ok`
    a folder that holds anything, a person's own images for one, is left as it is and returned.

    Raises:
        InputError: The name or an option is unknown, or the destination holds something else.
    """
    show_log()
    if name not in SAMPLES:
        raise InputError(unknown_name("sample", name, SAMPLES))
    check_option_names(options, OPTIONS[name], f"The sample '{name}'")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise OptionError(f"The sample '{name}': seed must be a whole number, 0 or more, got {seed!r}.")
    settled = OPTIONS[name] | options
    if name == "digits":
        digits.check(**settled)
    if name == "wells":
        wells.check(**settled)
    identity = Identity(name, VERSIONS[name], seed, settled)
    folder = resolve(destination).resolve()
    if exist_ok and folder.is_dir() and any(folder.iterdir()):
        return folder
    if find_complete(folder, identity):
        return folder
    if name == "coins":
        return write_sample(folder, identity, coins.pictures(seed), coins.source_records())
    if name == "wells":
        texts = {wells.ANNOTATION: wells.annotation(seed, settled["test"])}
        return write_sample(folder, identity, wells.pictures(seed, **settled), [wells.SOURCE], texts)
    return write_sample(folder, identity, digits.pictures(seed, **settled), [digits.SOURCE])
