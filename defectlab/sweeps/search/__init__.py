"""Search of a space by validation images: trials are drawn with Optuna and run as the configurations of a sweep are."""

from defectlab_runtime.errors import InputError


def require_optuna() -> None:
    """Check that Optuna is installed, since the modules of this package import it.

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
