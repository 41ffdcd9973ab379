"""Weights from a server on loopback: cut, continued, refused, of other content."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.server import Server, serving

from defectlab.backbones import weights, weights_download, weights_manifest
from defectlab.backbones.weights_manifest import WeightsEntry
from defectlab_runtime.errors import WeightsError

CONTENT = bytes(range(256)) * 40
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(CONTENT) as server:
        yield server


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch, server: Server) -> Callable[..., None]:
    def set_entry(sha256: str | None = None, prefix: str | None = None, file: str = "tiny.pth") -> None:
        entry = WeightsEntry(
            file, "tiny.v1", "tiny", "torchvision", f"{server.url}/{file}", sha256=sha256, sha256_prefix=prefix
        )
        monkeypatch.setattr(weights_manifest, "known_entries", lambda: (entry,))

    set_entry(prefix=SHA[:8])
    return set_entry


def test_downloads_verifies_and_records_the_full_hash(home: Path, server: Server) -> None:
    seen: list[tuple[int, int | None]] = []
    path = weights_download.get("tiny", progress=lambda done, total: seen.append((done, total)))
    assert (path, path.read_bytes()) == (home / "weights" / "tiny.pth", CONTENT)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    entry = json.loads((home / "weights" / "manifest.json").read_text(encoding="utf-8"))["entries"][0]
    assert (entry["sha256"], entry["source"]) == (SHA, f"{server.url}/tiny.pth")
    assert [row.state for row in weights.verify()] == ["verified"]
    assert weights_download.get("tiny") == path
    assert len(server.asked) == 1
    path.write_bytes(CONTENT[:-1] + b"x")
    assert [row.state for row in weights.verify(["tiny"])] == ["changed"]
    assert weights_download.get("tiny.v1").read_bytes() == CONTENT


def test_continues_a_cut_download(home: Path, server: Server) -> None:
    server.cut, server.cuts = 3000, 2
    assert weights_download.get("tiny").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=3000-", "bytes=6000-"]
    assert not list((home / "weights").glob("*.part"))


def test_gives_up_politely_and_continues_later(home: Path, server: Server) -> None:
    server.cut, server.cuts = 1000, 3
    with pytest.raises(WeightsError, match=r"3000 bytes are kept(.|\n)*again to continue"):
        weights_download.get("tiny")
    assert not (home / "weights" / "tiny.pth").exists()
    assert weights_download.get("tiny").read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=3000-"


def test_a_server_that_cannot_continue_starts_again(home: Path, server: Server) -> None:
    (home / "weights" / "tiny.pth.part").write_bytes(b"z" * 500)
    server.ranges = False
    assert weights_download.get("tiny").read_bytes() == CONTENT


@pytest.mark.parametrize(("part", "asked"), [(CONTENT, 1), (CONTENT + b"more", 2)])
def test_a_part_that_is_whole_or_too_long(home: Path, server: Server, part: bytes, asked: int) -> None:
    (home / "weights" / "tiny.pth.part").write_bytes(part)
    assert weights_download.get("tiny").read_bytes() == CONTENT
    assert len(server.asked) == asked


@pytest.mark.parametrize("key", ["sha256", "prefix"])
def test_wrong_content_leaves_nothing(home: Path, known: Callable[..., None], key: str) -> None:
    known(**{key: "0" * 64 if key == "sha256" else "0" * 8})
    with pytest.raises(WeightsError, match=f"{SHA}, but the manifest says 0000"):
        weights_download.get("tiny")
    assert list((home / "weights").iterdir()) == []


def test_without_a_checksum_trust_on_first_use_is_said(
    known: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    known()
    with caplog.at_level("INFO"):
        weights_download.get("tiny")
    assert "trusted on first use" in caplog.text
    assert weights_manifest.entries_for("tiny")[0].sha256 == SHA


def test_without_a_checksum_a_web_page_is_still_refused(home: Path, known: Callable[..., None], server: Server) -> None:
    known(file="tiny.safetensors")
    server.content = b"<!DOCTYPE html><html>please log in</html>"
    with pytest.raises(WeightsError, match="web page"):
        weights_download.get("tiny")
    assert list((home / "weights").iterdir()) == []


def test_not_found_refused_and_unknown(server: Server) -> None:
    server.status = 404
    with pytest.raises(WeightsError, match="404"):
        weights_download.get("tiny")
    assert len(server.asked) == 1
    with pytest.raises(WeightsError, match="Only http"):
        weights_download.get("tiny", base_url="file:///tmp")
    with pytest.raises(WeightsError, match="Did you mean 'tiny'"):
        weights_download.get("tinny")


def test_a_mirror(server: Server) -> None:
    assert weights_download.get("tiny", base_url=f"{server.url}/mirror/").read_bytes() == CONTENT


def test_no_server() -> None:
    with pytest.raises(WeightsError, match="0 bytes are kept"):
        weights_download.get("tiny", base_url="http://127.0.0.1:9")
