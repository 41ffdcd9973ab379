"""The version of this package, which is the one in pyproject.toml."""

__version__ = "0.1.0"
