"""Shared fixtures: a project root of its own for each test, tiny images, a tiny backbone, real data where it is."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.datasets import make_parts

from defectlab import make_sample
from defectlab.results.run.run import Run


@pytest.fixture(autouse=True)
def own_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test out of the checkout: results, weights and data resolve into its own folder."""
    for name in ("DEFECTLAB_RESULTS", "DEFECTLAB_WORKBOOK", "DEFECTLAB_WEIGHTS", "DEFECTLAB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def clock_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set this machine's clock ahead of the disk's by 30 days."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 30 * 24 * 3600)


@pytest.fixture(scope="session", autouse=True)
def untouched_workbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the checkout's own workbook, nor does a fixture that many tests share."""
    os.environ["DEFECTLAB_HOME"] = str(tmp_path_factory.mktemp("home"))
    workbook = Path(__file__).parent.parent / "models_comparing.xlsx"
    before = workbook.read_bytes() if workbook.is_file() else None
    yield
    assert (workbook.read_bytes() if workbook.is_file() else None) == before


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real images and weights."""
    folder = os.environ.get("DEFECTLAB_REAL")
    if not folder:
        pytest.skip("DEFECTLAB_REAL is not set: no real images here")
    return Path(folder)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny dataset with masks; read only."""
    return make_parts(tmp_path_factory.mktemp("data") / "parts")


@pytest.fixture(scope="session")
def wells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the built-in wells; read only."""
    return make_sample("wells", tmp_path_factory.mktemp("data") / "wells", train=20, proliv=4, test=8)


@pytest.fixture(scope="session")
def categories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the tiny datasets bolt and nut; read only."""
    from helpers.categories import make_categories

    return make_categories(tmp_path_factory.mktemp("data") / "categories")


@pytest.fixture(scope="session")
def both(categories: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The finished run of one PatchCore on bolt and nut; read only."""
    from helpers.categories import trained_on_both

    return trained_on_both(categories, default_root_dir=tmp_path_factory.mktemp("results"))
