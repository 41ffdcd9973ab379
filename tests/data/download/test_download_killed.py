"""Downloads whose process dies at any change of a file: nothing half in the target, and the next one ends whole."""

import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.killing import KILLED, count_changes, dies_at, ended, fork
from helpers.server import serving

from defectlab.data.download import public_datasets
from defectlab.data.download.download import download
from defectlab.data.download.public_datasets import OWN_TABLE
from defectlab.data.download.scratch import GRACE_S, PREFIX, scratch_folder
from defectlab_runtime.errors import DataError

FILES = {
    f"{category}/{place}": f"{category} {place}".encode() * 50
    for category in ("bottle", "grid")
    for place in ("train/good/0.png", "test/broken/0.png")
}


def packed() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_no_leftovers(home: Path) -> None:
    """Nothing is left but, for a minute, folders whose process died before the lock or after the moves, and a table."""
    for path in home.glob(".*"):
        assert path.name.startswith((f".{OWN_TABLE}.", PREFIX))
        assert not any(content_of(path).values())
        os.utime(path, (time.time() - 2 * GRACE_S,) * 2)
    with scratch_folder(home):
        pass
    assert not [path.name for path in home.iterdir() if path.name.startswith(".") or path.suffix == ".part"]


@pytest.mark.parametrize("known", [True, False])
def test_a_download_killed_at_any_change_of_a_file_leaves_nothing_half_and_the_next_ends_whole(
    known: bool, own_project: Path, monkeypatch: pytest.MonkeyPatch
):
    content = packed()
    with serving(content) as server:
        facts = {"name": "mvtec", "title": "mvtec", "layout": "mvtec", "file": "mvtec.tar", "sha256_from": "a test"}
        facts |= {"url": f"{server.url}/archive", "sha256": hashlib.sha256(content).hexdigest() if known else None}
        (own_project / "table.json").write_text(json.dumps({"datasets": [facts]}))
        monkeypatch.setattr(public_datasets, "TABLE", own_project / "table.json")

        def cut_download(home: Path) -> Callable[[], object]:
            """A download whose connection is cut once, so that a process also dies with half of the archive."""
            server.cut, server.cuts = len(content) // 2, 1
            return lambda: download("mvtec", home)

        changes = count_changes(cut_download(own_project / "count"), own_project / "count")
        assert changes > 15
        one_of_two = 0
        for change in range(changes):
            home = own_project / f"home{change}"
            get = cut_download(home)

            def die(home: Path = home, change: int = change, get: Callable[[], object] = get) -> None:
                dies_at(change, home)
                get()

            assert ended(fork(die)) == KILLED
            server.cuts = 0
            there = {name for name in ("bottle", "grid") if (home / name).exists()}
            for name in there:  # what is in its place is whole
                assert content_of(home / name) == {
                    path.removeprefix(f"{name}/"): bytes_ for path, bytes_ in FILES.items() if path.startswith(name)
                }
            if (home / "mvtec.tar").exists():
                assert (home / "mvtec.tar").read_bytes() == content
            missing = sorted({"bottle", "grid"} - there)
            if there and missing:
                one_of_two += 1
                with pytest.raises(DataError, match="--category"):
                    download("mvtec", home)
            if missing:
                download("mvtec", home, categories=missing if there else ())
            found = {path: bytes_ for path, bytes_ in content_of(home).items() if not path.startswith(".")}
            assert found.pop("mvtec.tar") == content
            assert (found.pop("downloads.json", None) is None) == known
            assert found == FILES, change
            assert_no_leftovers(home)
        assert one_of_two >= 1
