"""Options of a dataset as a user writes them, for errors and findings that say how to go on."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from defectlab.data.manifest.options import DataOptions

SHOWN = ("extensions", "group", "mask_suffix", "masks_beside_images", "missing_masks", "task")  # beside the folders


def proposed(options: Mapping[str, Any]) -> list[str]:
    r"""Return options, such as `root` and folders by name, as Python and as the command line of `train` have them.

    >>> print("\n".join(proposed({"root": "data/x", "normal_dir": "ok", "abnormal_dir": ["ng", "chip"]})))
    Folder(root='data/x', normal_dir='ok', abnormal_dir=['ng', 'chip'])
    train --data.root data/x --data.normal_dir ok --data.abnormal_dir '["ng", "chip"]'  (data check: without "data.")
    """
    given = {name: _single(value) for name, value in options.items() if value not in (None, (), [])}
    python = ", ".join(f"{name}={value!r}" for name, value in given.items())
    command = " ".join(f"--data.{name} {_typed(value)}" for name, value in given.items())
    return [f"Folder({python})", f'train {command}  (data check: without "data.")']


def with_changes(options: DataOptions, **changes: Any) -> list[str]:
    """Return the options that say what the images are, with changes, as `proposed` does; None leaves an option out."""
    names = [f.name for f in fields(options) if f.name == "root" or f.name.endswith("_dir") or f.name in SHOWN]
    defaults = {f.name: f.default for f in fields(options)}
    given = {name: getattr(options, name) for name in names if getattr(options, name) != defaults[name]}
    return proposed(given | changes)


def _single(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return value[0] if len(value) == 1 else list(value)
    return value


def _typed(value: Any) -> str:
    if isinstance(value, str):
        return shlex.quote(value)
    return shlex.quote(json.dumps(value, ensure_ascii=False))
