"""Pickles that would run code: what they call, and the files they come in. Each leaves a mark where it ran."""

import operator
import os
import pickle
import runpy
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch


class Attack:
    """An object whose unpickling calls what it was made of."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


def _script(mark: Path) -> str:
    script = mark.with_suffix(".py")
    script.write_text(f"open({str(mark)!r}, 'w')")
    return str(script)


def _nested(mark: Path) -> str:
    file = mark.with_suffix(".nested")
    torch.save(Attack(os.mkdir, (str(mark),)), file)
    return str(file)


KINDS: dict[str, Callable[[Path], Attack]] = {
    "os.system": lambda mark: Attack(os.system, (f"touch {mark}",)),
    "subprocess": lambda mark: Attack(subprocess.call, (["touch", str(mark)],)),
    "eval": lambda mark: Attack(eval, (f"open({str(mark)!r}, 'w')",)),
    "exec": lambda mark: Attack(exec, (f"open({str(mark)!r}, 'w')",)),
    "open": lambda mark: Attack(open, (str(mark), "w")),
    "mkdir": lambda mark: Attack(os.mkdir, (str(mark),)),
    "copy": lambda mark: Attack(shutil.copyfile, (__file__, str(mark))),
    "runpy": lambda mark: Attack(runpy.run_path, (_script(mark),)),
    "pickle in a pickle": lambda mark: Attack(pickle.loads, (pickle.dumps(Attack(os.mkdir, (str(mark),))),)),
    "torch.load in a pickle": lambda mark: Attack(partial(torch.load, weights_only=False), (_nested(mark),)),
    "method": lambda mark: Attack(operator.methodcaller("touch"), (mark,)),
    "state": lambda mark: Attack(str, (f"open({str(mark)!r}, 'w')",), {}, None, None, exec),
}


def _zipped(content: Any, path: Path) -> None:
    torch.save(content, path)


def _legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _bare(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


CONTAINERS: dict[str, tuple[str, Callable[[Any, Path], None]]] = {
    "zip .pt": (".pt", _zipped),
    "zip .pth": (".pth", _zipped),
    "legacy .pth": (".pth", _legacy),
    "bare .pth": (".pth", _bare),
    "zip .safetensors": (".safetensors", _zipped),
    "bare .safetensors": (".safetensors", _bare),
}
