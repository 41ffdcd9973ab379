"""Streaming of arrays too large for memory to .npy files, and packing of masks."""

import os
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import DTypeLike

from defectlab.utils.files import new_memmap, replacing
from defectlab.utils.folders import make_parents
from defectlab_runtime.errors import InputError

# What numpy raises for a damaged file, whose header it reads as a Python literal.
_DAMAGE = (
    SyntaxError, TokenError, RecursionError, MemoryError, ValueError, TypeError, OverflowError, EOFError, OSError,
)  # fmt: skip


class ArrayWriter:
    """Writer that streams rows of one shape into a memory-mappable .npy file, which appears when it is complete.

    Args:
        path: The file to make.
        rows: The most rows that will come; fewer are allowed.
        shape: Shape of a row.
        dtype: Of the file.
    """

    def __init__(self, path: Path, rows: int, shape: tuple[int, ...], dtype: str) -> None:
        self.path = path
        self.rows = rows
        self.filled = 0
        make_parents(path)
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.rows")
        try:
            self._array = new_memmap(self._partial, (rows, *shape), dtype)
        except OSError:
            self.discard()
            raise

    def append(self, batch: np.ndarray) -> None:
        """Append a block of rows (B, *shape) to the array."""
        self._array[self.filled : self.filled + len(batch)] = batch
        self.filled += len(batch)

    def close(self) -> None:
        """Move the finished file to its path, truncated to the rows that were appended."""
        self._array.flush()
        if self.filled < self.rows:
            with replacing(self.path) as whole, whole.open("wb") as file:
                np.save(file, self._array[: self.filled])
            self._partial.unlink()
        else:
            self._partial.replace(self.path)

    def discard(self) -> None:
        """Remove the unfinished file without creating the array."""
        self._partial.unlink(missing_ok=True)


def mapped(path: Path, dimensions: int, dtype: DTypeLike) -> np.ndarray | None:
    """Return a .npy file's array, memory-mapped; None if the file does not exist.

    Nothing is read but the header, whatever size it claims: a map that the file does not hold is refused.

    Raises:
        InputError: The file is damaged, or holds an array of another type or number of dimensions.
    """
    if not path.is_file():
        return None
    try:
        found = np.lib.format.open_memmap(path, mode="r")  # takes no pickle and no archive, as `np.load` would
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged ({error}). Restore it, or test the run again.") from error
    if found.ndim != dimensions or found.dtype != dtype:
        raise InputError(
            f"{path} is damaged: it holds {found.shape} of {found.dtype}, not {dimensions} dimensions of "
            f"{np.dtype(dtype)}. Restore it, or test the run again."
        )
    return found


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """Pack (n, H, W) bool masks eight pixels to a byte: (n, H, ceil(W / 8)) uint8."""
    return np.packbits(masks.astype(bool), axis=-1)


def unpack_masks(packed: np.ndarray, width: int) -> np.ndarray:
    """Return the (n, H, W) bool masks that `pack_masks` packed."""
    return np.unpackbits(packed, axis=-1, count=width).astype(bool)
