"""A cache of arrays on disk, identified by keys that describe their sources. Does not import torch."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from defectlab.utils import paths
from defectlab.utils.file_age import age_of
from defectlab.utils.files import is_writable, new_memmap, replacing, sha256_of, write_json
from defectlab.utils.json_files import read_json
from defectlab_runtime.errors import InputError, OptionError

logger = logging.getLogger(__name__)

DEFAULT_LIMIT_GB = 20.0
DTYPES = ("float32", "float16")  # that features may be kept in
STALE_SECONDS = 24 * 3600  # of a file that a killed process left half-written

Key = Mapping[str, Any]


@dataclass(frozen=True)
class CacheEntry:
    """One array of the store: its key, its path, its bytes, and the time of its last use (seconds since the epoch)."""

    key: dict[str, Any]
    path: Path
    bytes: int
    used: float


class FeatureStore:
    """Arrays on disk, each identified by a key: a flat mapping of all plain data that determines the array's values.

    An array is a memory-mappable `.npy` with a `.json` beside it, which holds key and checksum and is written last. An
    array without its `.json`, of another size or with another checksum is treated as absent, and made again.
    Several processes may use one store: what one is making, the others wait for. When the arrays together are larger
    than the limit, those not used for longest are removed; what this object has handed out is kept.

    Args:
        root: Folder; None is the project's (`DEFECTLAB_CACHE`, else `.cache/features`).
        limit_gb: Size limit in GB (1e9 bytes).
        dtype: That features of backbones are kept in; other arrays keep their own.

    Raises:
        OptionError: A limit that is not above 0, or a dtype that is none of DTYPES.

    >>> import tempfile
    >>> store = FeatureStore(tempfile.mkdtemp())
    >>> array = store.get_or_make({"what": "squares", "n": 4}, lambda: np.arange(4) ** 2)
    >>> array.tolist(), store.get({"n": 4, "what": "squares"}).tolist()
    ([0, 1, 4, 9], [0, 1, 4, 9])
    """

    def __init__(
        self, root: str | Path | None = None, limit_gb: float = DEFAULT_LIMIT_GB, dtype: str = DTYPES[0]
    ) -> None:
        if dtype not in DTYPES:
            raise OptionError(f"FeatureStore: dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
        if not isinstance(limit_gb, int | float) or not limit_gb > 0:
            raise OptionError(f"FeatureStore: limit_gb must be a number above 0, got {limit_gb!r}.")
        self.root = paths.cache_dir() / "features" if root is None else paths.resolve(root)
        self.limit = int(limit_gb * 1e9)
        self.dtype = dtype
        self._verified: dict[str, int] = {}  # digest -> mtime of the array whose checksum was compared

    def get_or_make(self, key: Key, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array of `key`, memory-mapped and read-only; an absent one is first created by `make()`."""
        found = self.get(key)
        if found is not None:
            return found
        with self.locked(key):
            found = self.get(key)  # another process may have made it meanwhile
            if found is None:
                array = make()
                with self.writing([(key, array.shape, array.dtype)]) as (target,):
                    target[...] = array
                found = self.get(key)
                if found is None:  # another process, with a smaller limit, has removed it at once
                    return array
        return found

    def get(self, key: Key) -> np.ndarray | None:
        """Return the array of `key`, memory-mapped and read-only; None if it is absent or damaged (which is logged)."""
        digest = _digest(key)
        array, facts = self._paths(digest)
        try:
            record = read_json(facts)
            state = array.stat()
            if self._verified.get(digest) != state.st_mtime_ns:
                if state.st_size != record["bytes"] or sha256_of(array) != record["sha256"]:
                    raise ValueError("size or checksum is another")
                self._verified[digest] = state.st_mtime_ns
            found = np.load(array, mmap_mode="r")
        except OSError:  # not there, or just now removed by another process
            return None
        except (ValueError, KeyError, TypeError) as error:  # also facts that are no facts
            logger.warning("The cached array %s is damaged (%s): it is made again (%s)", array.name, error, dict(key))
            with suppress(OSError):
                facts.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # in a cache that may only be read
            os.utime(facts)  # the time of the last use, which decides what is removed first
        return found

    def has(self, key: Key) -> bool:
        """Return whether an array of `key` exists, without checking it for damage."""
        array, facts = self._paths(_digest(key))
        return facts.is_file() and array.is_file()

    @contextmanager
    def locked(self, key: Key) -> Iterator[None]:
        """Hold the lock of `key`, so that other processes wait before making its arrays. It ends with the process.

        Raises:
            InputError: The folder cannot be written to.
        """
        if not is_writable(self.root):
            raise InputError(f"The cache {self.root} cannot be written to. DEFECTLAB_CACHE puts it elsewhere.")
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f"{_digest(key)}.lock"):
            yield

    @contextmanager
    def writing(self, wanted: Sequence[tuple[Key, tuple[int, ...], Any]]) -> Iterator[Sequence[np.ndarray]]:
        """Yield writable memory-mapped arrays for (key, shape, dtype); stored if the block ends without an error."""
        self.root.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            partial = [stack.enter_context(replacing(self._paths(_digest(key))[0])) for key, _, _ in wanted]
            arrays = [new_memmap(path, shape, dtype) for path, (_, shape, dtype) in zip(partial, wanted, strict=True)]
            yield arrays
            records: list[dict[str, Any]] = []
            for path, array, (key, _, _) in zip(partial, arrays, wanted, strict=True):
                array.flush()
                records.append({"key": dict(key), "bytes": path.stat().st_size, "sha256": sha256_of(path)})
        for record in records:
            digest = _digest(record["key"])
            array_path, facts = self._paths(digest)
            write_json(facts, record)
            self._verified[digest] = array_path.stat().st_mtime_ns
        self._evict()

    def entries(self) -> list[CacheEntry]:
        """Return the entries of the store, the most recently used first."""
        found = []
        for facts in self.root.glob("*.json"):
            try:
                record = read_json(facts)
                key, size = dict(record["key"]), int(record["bytes"])
                found.append(CacheEntry(key, facts.with_suffix(".npy"), size, facts.stat().st_mtime))
            except (OSError, ValueError, KeyError, TypeError):
                logger.warning("Unreadable in the cache, ignored: %s", facts)
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Remove all arrays and the partial files of killed processes; return the number of bytes freed."""
        freed = 0
        for pattern in ("*.json", "*.npy", ".*.part"):  # not the locks: another process may hold one
            for path in self.root.glob(pattern):
                freed += path.stat().st_size
                path.unlink(missing_ok=True)
        self._verified.clear()
        return freed

    def _evict(self) -> None:
        for path in self.root.glob(".*.part"):
            with suppress(FileNotFoundError):  # finished meanwhile
                if age_of(path) > STALE_SECONDS:
                    path.unlink()
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        for entry in reversed(entries):
            if total <= self.limit:
                return
            if entry.path.stem in self._verified:
                continue
            logger.info("Cache above %.1f GB: removed %s, unused for longest", self.limit / 1e9, entry.path.name)
            entry.path.with_suffix(".json").unlink(missing_ok=True)
            entry.path.unlink(missing_ok=True)
            total -= entry.bytes
        if total > self.limit:
            logger.warning(
                "The arrays in use now, %.1f GB, are above the cache's limit of %.1f GB: none of them is removed",
                total / 1e9,
                self.limit / 1e9,
            )

    def _paths(self, digest: str) -> tuple[Path, Path]:
        return self.root / f"{digest}.npy", self.root / f"{digest}.json"


def _digest(key: Key) -> str:
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]
