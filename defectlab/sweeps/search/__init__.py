"""Searching a space by validation images: Optuna draws trials, which run as the configurations of a sweep do."""

from defectlab.utils.errors import InputError


def require_optuna() -> None:
    """Check that Optuna is installed: the modules of this package import it.

    Raises:
        InputError: It is not; says how to get it.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise InputError(
            "A search needs the package optuna: `pip install 'defectlab[search]'`. A grid, without section `search`, "
            "does not."
        ) from error
