import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from defectlab.data.samples import SAMPLES, make_sample, sources, store
from defectlab_runtime.errors import InputError, OptionError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample("digits", tmp_path_factory.mktemp("samples") / "digits", limit_data=3)


def hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def some_pictures(count: int) -> list[store.Picture]:
    return [store.Picture(f"train/good/{i:03d}.png", np.full((4, 4), i, np.uint8)) for i in range(count)]


IDENTITY = store.Identity("digits", 1, 42, {})


def test_unknown_sample_names_the_closest():
    with pytest.raises(InputError, match=r"Unknown sample 'coin'. Did you mean 'coins'\? Available: coins, digits"):
        make_sample("coin", "anywhere")


def test_every_sample_has_a_description():
    assert set(SAMPLES) == {"coins", "digits", "wells"}
    assert all(len(text.splitlines()) == 1 for text in SAMPLES.values())


@pytest.mark.parametrize(("name", "options"), [("digits", {"good_numbr": 3}), ("coins", {"good_number": 3})])
def test_unknown_option_is_refused(tmp_path: Path, name: str, options: dict[str, int]):
    with pytest.raises(OptionError, match="has no option 'good_num"):
        make_sample(name, tmp_path / "sample", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [-1, 1.5, True, "42"])
def test_seed_must_be_a_whole_number(tmp_path: Path, seed: int):
    with pytest.raises(OptionError, match="seed must be a whole number"):
        make_sample("coins", tmp_path / "sample", seed=seed)


def test_complete_sample_is_kept_as_it_is(digits: Path):
    before = {path: path.stat().st_mtime_ns for path in digits.rglob("*")}
    assert make_sample("digits", digits, limit_data=3) == digits
    assert {path: path.stat().st_mtime_ns for path in digits.rglob("*")} == before


@pytest.mark.parametrize(
    "changed", [{"limit_data": 4}, {"limit_data": 3, "seed": 1}, {"limit_data": 3, "good_number": 1}]
)
def test_another_sample_at_the_destination_is_refused(digits: Path, changed: dict[str, int]):
    before = hashes(digits)
    with pytest.raises(
        InputError, match=r"holds another sample \('digits' version 1, seed 42.*limit_data 3\); asked for"
    ):
        make_sample("digits", digits, **changed)
    assert hashes(digits) == before


def test_another_version_is_refused(digits: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules["defectlab.data.samples"].VERSIONS, "digits", 2)
    with pytest.raises(InputError, match=r"version 1.*asked for was 'digits' version 2"):
        make_sample("digits", digits, limit_data=3)


@pytest.mark.parametrize("marker", [None, "{", "[]", "{}"])
def test_a_folder_of_the_user_is_refused_and_left_alone(tmp_path: Path, marker: str | None):
    (tmp_path / "holiday.png").write_bytes(b"x")
    if marker is not None:
        (tmp_path / "sample.json").write_text(marker)
    before = hashes(tmp_path)
    with pytest.raises(InputError, match="is not empty and is no built-in sample"):
        make_sample("digits", tmp_path)
    assert hashes(tmp_path) == before


def test_a_file_at_the_destination_is_refused(tmp_path: Path):
    (tmp_path / "digits").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        make_sample("digits", tmp_path / "digits")


def test_a_sample_that_lost_a_file_is_refused(tmp_path: Path):
    folder = store.write_sample(tmp_path / "s", IDENTITY, some_pictures(3), [])
    (folder / "train/good/001.png").unlink()
    with pytest.raises(InputError, match=r"1 of 3 files of the sample are gone, e\.g\. train/good/001\.png"):
        store.find_complete(folder, IDENTITY)


def test_an_empty_destination_is_used(tmp_path: Path):
    (tmp_path / "s").mkdir()
    assert store.find_complete(tmp_path / "s", IDENTITY) is False
    store.write_sample(tmp_path / "s", IDENTITY, some_pictures(2), [])
    assert store.find_complete(tmp_path / "s", IDENTITY) is True
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_failed_build_leaves_nothing(tmp_path: Path):
    def failing():
        yield from some_pictures(2)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        store.write_sample(tmp_path / "s", IDENTITY, failing(), [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("clock_ahead")
def test_a_running_build_keeps_its_folder_where_clocks_differ(tmp_path: Path):
    running = tmp_path / ".s.other.partial"
    running.mkdir()
    store.write_sample(tmp_path / "s", IDENTITY, some_pictures(2), [])
    assert running.is_dir()


def test_a_killed_build_leaves_no_destination_and_is_made_anew(tmp_path: Path):
    script = (
        "import os, sys; from defectlab.data.samples import store\n"
        "import numpy as np\n"
        "def killed():\n"
        "    yield store.Picture('train/good/000.png', np.zeros((4, 4), np.uint8))\n"
        "    os._exit(9)\n"
        "store.write_sample(store.Path(sys.argv[1]), store.Identity('digits', 1, 42, {}), killed(), [])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "s")], check=False)
    assert done.returncode == 9
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".s.")
    assert leftover.suffix == ".partial"
    store.write_sample(tmp_path / "s", IDENTITY, some_pictures(2), [])
    assert leftover.exists(), "a young one may belong to a build that is still running"
    old = time.time() - 2 * store.LEFTOVER_AGE
    os.utime(leftover, (old, old))
    store.write_sample(tmp_path / "s2", IDENTITY, some_pictures(1), [])
    assert leftover.exists(), "it belongs to another destination"
    (tmp_path / "s").rename(tmp_path / "moved")
    store.write_sample(tmp_path / "s", IDENTITY, some_pictures(2), [])
    assert not leftover.exists()


def test_the_marker_is_written_last(tmp_path: Path):
    seen: list[bool] = []

    def watching():
        for picture in some_pictures(3):
            seen.append(any(path.name == store.MARKER for path in tmp_path.rglob("*")))
            yield picture

    store.write_sample(tmp_path / "s", IDENTITY, watching(), [])
    assert seen == [False, False, False]
    assert (tmp_path / "s" / store.MARKER).is_file()


def test_two_builds_at_once_leave_one_whole_sample(tmp_path: Path):
    gate = threading.Barrier(2)
    failures: list[BaseException] = []

    def slow():
        gate.wait(timeout=30)
        yield from some_pictures(20)
        gate.wait(timeout=30)

    def build():
        try:
            store.write_sample(tmp_path / "s", IDENTITY, slow(), [])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.find_complete(tmp_path / "s", IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_relative_destination_and_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DEFECTLAB_HOME", str(tmp_path))
    folder = make_sample("digits", "data/цифры [1] é", limit_data=1)
    assert folder == tmp_path.resolve() / "data/цифры [1] é"
    assert sources("data/цифры [1] é")[0]["licence"] == "CC BY 4.0"


def test_sources_of_another_folder_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no record of a built-in sample"):
        sources(tmp_path)


def test_marker_records_what_was_made(digits: Path):
    record = json.loads((digits / "sample.json").read_text(encoding="utf-8"))
    assert (record["name"], record["seed"]) == ("digits", 42)
    assert record["options"] == {"good_number": 9, "limit_data": 3}
    on_disk = {path.parent.relative_to(digits).as_posix() for path in digits.rglob("*.png")}
    assert record["counts"] == {folder: len(list((digits / folder).iterdir())) for folder in on_disk}
    assert set(record["files"]) == {path.relative_to(digits).as_posix() for path in digits.rglob("*.png")}


def test_no_torch_and_no_image_library_at_import():
    code = (
        "import sys, defectlab.data.samples\n"
        "print([m for m in ('torch', 'anomalib', 'skimage', 'sklearn', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_persons_own_folder_is_left_as_it_is_when_asked(tmp_path: Path):
    (tmp_path / "bottle").mkdir()
    (tmp_path / "bottle/photo.png").write_bytes(b"x")
    assert make_sample("coins", tmp_path / "bottle", exist_ok=True) == tmp_path / "bottle"
    assert [path.name for path in (tmp_path / "bottle").iterdir()] == ["photo.png"]
    made = make_sample("digits", tmp_path / "new", exist_ok=True, limit_data=1)
    assert (made / "sample.json").is_file()
