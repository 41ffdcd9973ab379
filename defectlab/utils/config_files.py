"""Reading and writing of YAML settings, where `1e-3` is a number and quoted text stays text. Imports no torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from defectlab.utils import paths
from defectlab.utils.errors import InputError

# PyYAML follows YAML 1.1, where 1e-3 has no dot and so is text
_NUMBER = re.compile(r"^[-+]?(?:\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader that also reads numbers such as 1e-3."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def load_yaml(text: str) -> Any:
    """Parse a YAML text and return its plain data.

    Raises:
        yaml.YAMLError: It is no YAML.

    >>> load_yaml("{lr: 1e-3, shuffle: no, name: 'no', layers: [layer1]}")
    {'lr': 0.001, 'shuffle': False, 'name': 'no', 'layers': ['layer1']}
    """
    return yaml.load(text, Loader=_Loader)


def as_yaml(data: Mapping[str, Any]) -> str:
    """Convert plain data to YAML text, keeping its order; `load_yaml` restores the data.

    >>> load_yaml(as_yaml({"lr": 1e-05, "name": "1e-5"}))
    {'lr': 1e-05, 'name': '1e-5'}
    """
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper that also quotes text which the loader would read as a number."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


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
        InputError: No such file, or no mapping in it.
    """
    file = config_file(path)
    try:
        data = load_yaml(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{file} is no valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{file} must hold a mapping of settings, such as `data: {{root: data/bottle}}`.")
    return data
