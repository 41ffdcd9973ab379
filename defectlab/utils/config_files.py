"""Reading and writing of YAML settings, where `1e-3` is a number and quoted text stays text. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from defectlab.utils import paths
from defectlab.utils.yaml_loader import FLOAT_TAG, MAX_BYTES, NUMBER, SettingsError, load_settings
from defectlab_runtime.errors import InputError


def load_yaml(text: str) -> Any:
    """Parse a YAML text and return its plain data.

    Raises:
        InputError: It is no YAML, or no settings: an alias bomb, a tag, a key twice, NaN (`yaml_loader`).

    >>> load_yaml("{lr: 1e-3, shuffle: no, name: 'no', layers: [layer1]}")
    {'lr': 0.001, 'shuffle': False, 'name': 'no', 'layers': ['layer1']}
    """
    try:
        return load_settings(text)
    except SettingsError:
        raise
    except yaml.YAMLError as error:
        raise InputError(f"no valid YAML: {error}") from error


def as_yaml(data: Mapping[str, Any]) -> str:
    """Convert plain data to YAML text, keeping its order; `load_yaml` restores the data.

    >>> load_yaml(as_yaml({"lr": 1e-05, "name": "1e-5"}))
    {'lr': 1e-05, 'name': '1e-5'}
    """
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper that also quotes text which the loader would read as a number."""


_Dumper.add_implicit_resolver(FLOAT_TAG, NUMBER, list("-+.0123456789"))


def config_file(path: str | Path) -> Path:
    """Find a settings file in the working directory, or else in the project root.

    Raises:
        InputError: It is in neither.
    """
    file = Path(path) if Path(path).is_file() else paths.resolve(path)
    if not file.is_file():
        raise InputError(f"There is no file {file}.")
    return file


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        InputError: No such file, no UTF-8, no YAML, no mapping in it, or what no setting can be.
    """
    file = config_file(path)
    if file.stat().st_size > MAX_BYTES:
        raise InputError(f"{file} has {file.stat().st_size} bytes, more than settings have ({MAX_BYTES}).")
    try:
        data = load_yaml(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no UTF-8 text ({error.reason}, byte {error.start}): save it as UTF-8.") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{file} must hold a mapping of settings, such as `data: {{root: data/bottle}}`.")
    return data
