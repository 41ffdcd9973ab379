"""Files and modules of this project that its pages, notebooks and sources name are there."""

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "defectlab"
FOLDERS = ("", "docs", "benchmarks", "weights", "images", "configs", "training_code", "inference_code")
PACKAGES = [path.name.removesuffix(".py") for path in PACKAGE.iterdir() if not path.name.startswith("__")]

PATH = re.compile(
    r"(?<![\w/.~-])((?:defectlab|tests|docs|benchmarks|configs|training_code|inference_code)/[\w/.*-]*\w)"
)
SOURCE = re.compile(rf"(?<![\w/.~-])((?:{'|'.join(PACKAGES)})/[\w/]+\.py)\b")  # without the package's own folder
MODULE = re.compile(rf"(?<![\w/.@-])(defectlab\.(?:{'|'.join(PACKAGES)})(?:\.\w+)*)")


def texts() -> Iterator[Path]:
    """Pages, notebooks and settings at the root and in folders of their own, and every source of package and tests."""
    for folder in FOLDERS:
        for pattern in ("*.md", "*.ipynb", "*.toml", "*.yaml", "*.yml", "*.py", "Makefile"):
            yield from (ROOT / folder).glob(pattern)
    for folder in (PACKAGE, ROOT / "tests"):
        yield from folder.rglob("*.py")


@pytest.mark.parametrize("file", sorted(texts()), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_what_a_file_names_is_there(file: Path):
    text = file.read_text(encoding="utf-8")
    absent = [path for path in PATH.findall(text) if not any(ROOT.glob(path))]
    absent += [path for path in SOURCE.findall(text) if not (PACKAGE / path).is_file()]
    assert not absent
    for module in set(MODULE.findall(text)):
        pkgutil.resolve_name(module)  # an attribute of a module may be named too
