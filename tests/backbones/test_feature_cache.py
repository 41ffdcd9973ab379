"""The cache of features: found by content, whole or absent, one pass for all layers."""

import errno
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import backbone, data, small

import defectlab.backbones.feature_cache.extraction as extracting
from defectlab.backbones.extractor import FeatureExtractor
from defectlab.backbones.feature_cache.extraction import Features, extract
from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.backbones.loading import load_backbone
from defectlab.cli import main
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.results.run.arrays import ArrayWriter
from defectlab_runtime.errors import OptionError


def numbers(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.float32)


def never() -> np.ndarray:
    raise AssertionError("made again")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "cache")


def test_an_array_is_made_once_and_found_by_what_it_was_made_of(store: FeatureStore):
    first = store.get_or_make({"n": 5, "layer": "a"}, lambda: numbers(5))
    assert isinstance(first, np.memmap)
    assert not first.flags.writeable
    again = FeatureStore(store.root).get_or_make({"layer": "a", "n": 5}, never)
    assert np.array_equal(again, numbers(5))
    assert store.get({"n": 5, "layer": "b"}) is None
    (entry,) = store.entries()
    assert (entry.key, entry.path.is_file()) == ({"n": 5, "layer": "a"}, True)
    assert store.clear() > 20
    assert store.entries() == []
    assert store.get({"n": 5, "layer": "a"}) is None


FACTS = {"broken facts": b"{", "no text": b"\xff\xfe", "zeros": bytes(40), "null": b"null", "empty": b"{}"}
FACTS |= {
    "nested": b"[" * 100_000,
    "no key": b'{"key": "abc", "bytes": 4, "sha256": ""}',
    "no size": b'{"key": {}, "bytes": "abc"}',
}


@pytest.mark.row("S.1", "R.7")
@pytest.mark.parametrize("damage", ["cut", "changed", "no facts", *FACTS, "gone"])
def test_a_damaged_array_is_noticed_and_made_again(store: FeatureStore, damage: str):
    store.get_or_make({"n": 9}, lambda: numbers(9))
    path = store.entries()[0].path
    facts = path.with_suffix(".json")
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[:-8])
    elif damage == "changed":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "no facts":  # what a kill between the two files leaves
        facts.unlink()
    elif damage in FACTS:
        facts.write_bytes(FACTS[damage])
        store.entries()
    else:
        path.unlink()
    fresh = FeatureStore(store.root)
    assert fresh.get({"n": 9}) is None
    assert np.array_equal(fresh.get_or_make({"n": 9}, lambda: numbers(9)), numbers(9))
    assert path.read_bytes() == whole


@pytest.mark.row("R.7")
def test_a_cache_that_may_only_be_read_is_read(store: FeatureStore, monkeypatch: pytest.MonkeyPatch):
    store.get_or_make({"n": 9}, lambda: numbers(9))

    def refused(*_: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    assert np.array_equal(FeatureStore(store.root).get_or_make({"n": 9}, never), numbers(9))


@pytest.mark.row("R.6")
@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system takes no places beforehand")
def test_a_full_disk_is_an_error_and_leaves_nothing(store: FeatureStore, monkeypatch: pytest.MonkeyPatch):
    codes = [errno.ENOSPC]

    def full(*_: int) -> None:
        raise OSError(codes[-1], os.strerror(codes[-1]))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="is full"):
        store.get_or_make({"n": 9}, lambda: numbers(9))
    with pytest.raises(OSError, match="is full"):
        ArrayWriter(store.root / "maps.npy", 4, (2, 2), "float32")
    assert [path.name for path in store.root.iterdir() if path.suffix != ".lock"] == []
    codes.append(errno.EOPNOTSUPP)  # a file system that knows no such call
    assert np.array_equal(store.get_or_make({"n": 9}, lambda: numbers(9)), numbers(9))


def test_what_fails_while_it_is_made_leaves_nothing(store: FeatureStore):
    with pytest.raises(RuntimeError, match="no disk"), store.writing([({"n": 1}, (3,), "float32")]):
        raise RuntimeError("no disk")
    assert [path.name for path in store.root.iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.row("S.1")
def test_the_least_recently_used_goes_first_and_what_was_handed_out_stays(tmp_path: Path):
    root = tmp_path / "cache"
    for name in ("a", "b", "c"):
        FeatureStore(root).get_or_make({"name": name}, lambda: numbers(1000))
    for age, entry in enumerate(FeatureStore(root).entries()):
        os.utime(entry.path.with_suffix(".json"), (time.time() - 100 - age,) * 2)
    small_store = FeatureStore(root, limit_gb=13e-6)  # three arrays of 4.1 kB fit, four do not
    assert small_store.get({"name": "b"}) is not None
    oldest = FeatureStore(root).entries()[-1].key["name"]
    small_store.get_or_make({"name": "d"}, lambda: numbers(1000))
    left = {entry.key["name"] for entry in FeatureStore(root).entries()}
    assert left == {"a", "b", "c", "d"} - {oldest}
    for name in ("e", "f", "g"):  # all in use: above the limit, said, and kept
        small_store.get_or_make({"name": name}, lambda: numbers(1000))
    assert {"b", "d", "e", "f", "g"} <= {entry.key["name"] for entry in FeatureStore(root).entries()}
    with pytest.raises(OptionError, match="limit_gb"):
        FeatureStore(root, limit_gb=0)


def _make_slowly(root: str, log: str) -> None:
    def make() -> np.ndarray:
        with Path(log).open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        return numbers(7)

    assert np.array_equal(FeatureStore(root).get_or_make({"n": 7}, make), numbers(7))


@pytest.mark.row("S.1")
def test_several_processes_make_it_once(store: FeatureStore, tmp_path: Path):
    context = multiprocessing.get_context("fork")  # the child imports nothing
    jobs = [context.Process(target=_make_slowly, args=(str(store.root), str(tmp_path / "log"))) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_features_are_the_models_own_for_every_image_and_layer(
    parts: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
):
    model, folder = small("patchcore", layers=["layer3", "layer1"]), data(parts)
    found = extract(folder, backbone(), model.preprocessing, ["layer3", "layer1"], store)
    assert list(found) == ["layer3", "layer1"]
    assert found["layer1"].shape == (len(folder.manifest.entries), 64, 16, 16)
    monkeypatch.setattr(extracting, "_compute", lambda *_: pytest.fail("computed again"))
    other_split = data(parts, seed=7)
    assert other_split.manifest.hash != folder.manifest.hash
    entries = other_split.manifest.split("test")
    features = Features(
        other_split.manifest, extract(other_split, backbone(), model.preprocessing, ["layer1", "layer3"], store)
    ).of(entries)
    other_split.setup()
    images = torch.stack([other_split.test_data[index].image for index in range(len(entries))])
    expected = model.model.features(model.preprocessing.transform()(images))
    for layer in ("layer1", "layer3"):
        torch.testing.assert_close(features[layer], expected[layer], rtol=1e-5, atol=1e-5)


def test_features_of_a_transformer_are_kept_like_those_of_a_convolutional_network(parts: Path, store: FeatureStore):
    network, folder, size = load_backbone("vit_tiny_patch16_224", "random"), data(parts), Preprocessing(size=(64, 48))
    layers = ["blocks.0+blocks.1", "blocks.0"]
    found = extract(folder, network, size, layers, store)
    assert {layer: values.shape[1:] for layer, values in found.items()} == dict.fromkeys(layers, (192, 4, 3))
    folder.setup()
    image = folder.train_data[0]
    row = folder.manifest.index(image.image_path)
    expected = FeatureExtractor(network, layers)(size.transform()(image.image)[None])
    for layer in layers:
        torch.testing.assert_close(torch.from_numpy(found[layer][row]), expected[layer][0], rtol=1e-5, atol=1e-5)


def test_only_what_is_missing_is_computed(parts: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch):
    computed: list[tuple[str, ...]] = []
    real = extracting._compute
    monkeypatch.setattr(extracting, "_compute", lambda *a: (computed.append(tuple(a[3])), real(*a)))
    folder, size = data(parts), Preprocessing(size=(64, 64))
    extract(folder, backbone(), size, ["layer2"], store)
    extract(folder, backbone(), size, ["layer1", "layer2"], store)
    extract(folder, backbone(), Preprocessing(size=(96, 96)), ["layer2"], store)
    extract(folder, backbone(seed=1), size, ["layer2"], store)
    assert computed == [("layer2",), ("layer1",), ("layer2",), ("layer2",)]
    half = extract(folder, backbone(), size, ["layer2"], store, dtype="float16")["layer2"]
    full = extract(folder, backbone(), size, ["layer2"], store)["layer2"]
    assert half.nbytes * 2 == full.nbytes
    np.testing.assert_allclose(half.astype(np.float32), full, rtol=5e-4, atol=1e-6)
    with pytest.raises(OptionError, match="layer3"):
        extract(folder, backbone(), size, ["layer9"], store)
    with pytest.raises(OptionError, match="float16"):
        extract(folder, backbone(), size, ["layer1"], store, dtype="int8")


def test_the_command_line_lists_and_clears(capsys: pytest.CaptureFixture[str]):
    FeatureStore().get_or_make({"backbone": "resnet18", "layer": "layer2", "count": 3}, lambda: numbers(250_000))
    assert main(["cache", "list"]) == 0
    printed = capsys.readouterr().out
    assert "resnet18 layer2" in printed
    assert "1.0 MB" in printed
    assert "1 arrays, 0.00 of 20 GB: .cache/features" in printed
    assert main(["cache", "clear"]) == 0
    assert FeatureStore().entries() == []


@pytest.mark.usefixtures("clock_ahead")
def test_what_another_process_is_writing_stays_where_clocks_differ_and_an_old_part_goes(tmp_path: Path):
    young, old = tmp_path / ".a.npy.1.part", tmp_path / ".b.npy.2.part"
    for path in (young, old):
        path.touch()
    os.utime(old, (1, 1))
    FeatureStore(tmp_path).get_or_make({"what": "array"}, lambda: np.zeros(3))
    assert (young.exists(), old.exists()) == (True, False)
