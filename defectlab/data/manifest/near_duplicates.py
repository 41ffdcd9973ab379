"""Detection of near-duplicates: copies of a photograph, re-encoded, resized, slightly cropped or brightened.

Good parts of a production line look alike, so likeness alone proves nothing: what two photographs of two parts share is
what the other photographs have too. A copy also shares what nothing else has: its own dirt, scratches, light and grain.
So each picture is laid over the common one, candidates are found by what deviates from it, and a pair counts as copies
when what a combination of their look-alikes cannot explain is the same in both.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion, gaussian_filter
from threadpoolctl import ThreadpoolController

from defectlab.data.manifest.groups import clusters
from defectlab.data.manifest.registration import Picture, Placement, register_all, shrink
from defectlab_runtime.images import as_uint8, read_image

logger = logging.getLogger(__name__)

MAX_CHECKED = 3000  # images looked at before each training, some 25 seconds on two cores
MAX_SHOWN = 5
SIZE, COARSE = 128, 32  # pixels of the pictures compared, and of those searched
MAX_CANDIDATES = 2  # for each picture
MIN_CANDIDATE_CORRELATION = 0.5  # of deviations from the common picture
MIN_COPY_CORRELATION = 0.85  # of what look-alikes do not explain; on photographs: parts up to 0.8, copies from 0.89
MAX_LOOK_ALIKE_CORRELATION = 0.85  # of deviations; above, a picture may be a third copy and explains nothing
MAX_LOOK_ALIKES = 12
DETAIL = 3.0  # pixels: structure coarser than this is light, not detail
UNSATURATED = (3.0, 252.0)  # grey values; outside, a brightened copy may have lost detail
MIN_DETAIL = 0.05  # grey values
BATCH_SIZE = 256  # pictures, or pairs
MAX_COMMON = 200  # pictures that the common one is the median of


@dataclass(frozen=True)
class NearPair:
    """Two images that are copies of one photograph; `correlation` is that of their own detail, at most 1."""

    one: str
    other: str
    correlation: float


def near_duplicates(
    root: Path, splits: Mapping[str, str], contents: Mapping[str, str], bit_depth: int | None = None
) -> list[NearPair]:
    """Return pairs of near-duplicates in different splits, by descending correlation, without files of equal content.

    Args:
        root: Folder that the paths are relative to.
        splits: The split of each path; every one can be read.
        contents: Content hash of each path.
        bit_depth: Of the values in 16-bit files; None is 16.
    """
    if len(set(splits.values())) < 2:
        return []
    # OpenBLAS on many threads takes four times as long for matrices of this size.
    with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
        return _near_duplicates(root, splits, contents, bit_depth)


def sets_of_copies(root: Path, contents: Mapping[str, str], bit_depth: int | None = None) -> list[list[str]]:
    """Return the sets of images of one photograph, near-duplicates or of equal content, sorted; at least two in a set.

    Args:
        root: Folder that the paths are relative to.
        contents: Content hash of each path; every one can be read.
        bit_depth: Of the values in 16-bit files; None is 16.
    """
    pairs = near_duplicates(root, {path: path for path in contents}, contents, bit_depth)
    groups = {path: path for path in contents}
    home = {path: {path} for path in contents}
    for pair in pairs:
        joined = home[pair.one] | home[pair.other]
        for path in joined:
            home[path] = joined
            groups[path] = min(joined)
    return [together for together in clusters(groups, contents) if len(together) > 1]


def count_leaks(
    root: Path, splits: Mapping[str, str], contents: Mapping[str, str], bit_depth: int | None = None
) -> int | None:
    """Return the number of pairs of near-duplicates in different splits, and warn of them before a training.

    None, with a log line, where there are more than `MAX_CHECKED` images: `data check` looks there too.
    """
    if len(splits) > MAX_CHECKED:
        logger.info(
            "%d images: too many to look for near-duplicates before each training; `data check` does", len(splits)
        )
        return None
    logger.info("Looking for near-duplicates in two splits among %d images", len(splits))
    pairs = _remembered(root, tuple(sorted((path, splits[path], contents[path]) for path in splits)), bit_depth)
    if pairs:
        lines = describe(pairs[:MAX_SHOWN], splits)
        more = [f"... and {len(pairs) - MAX_SHOWN} more"] if len(pairs) > MAX_SHOWN else []
        logger.warning(
            "%d pairs of near-duplicates lie in two splits, so the test is of images that training has seen; "
            "data.group: near_duplicates keeps them together:\n  %s",
            len(pairs), "\n  ".join(lines + more),
        )  # fmt: skip
    return len(pairs)


@lru_cache(maxsize=32)
def _remembered(root: Path, files: tuple[tuple[str, str, str], ...], bit_depth: int | None) -> tuple[NearPair, ...]:
    splits = {path: split for path, split, _ in files}
    return tuple(near_duplicates(root, splits, {path: content for path, _, content in files}, bit_depth))


def _near_duplicates(
    root: Path, splits: Mapping[str, str], contents: Mapping[str, str], bit_depth: int | None
) -> list[NearPair]:
    paths = sorted(splits)
    names = np.array([splits[path] for path in paths])
    with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
        pictures = np.stack(list(pool.map(lambda path: thumbnail(root / path, bit_depth), paths)))  # (n, SIZE, SIZE)
    hashes = np.array([contents[path] for path in paths])
    search = _Search(pictures)
    correlations = search.correlations(search.pairs(names, hashes))
    found = [
        NearPair(paths[one], paths[other], correlation)
        for (one, other), correlation in correlations.items()
        if correlation >= MIN_COPY_CORRELATION
    ]
    return sorted(found, key=lambda pair: (-pair.correlation, pair.one, pair.other))


def thumbnail(path: Path, bit_depth: int | None = None) -> Picture:
    """Return an image as grey values 0 .. 255, resized to (SIZE, SIZE) regardless of its aspect ratio."""
    grey = Image.fromarray(as_uint8(read_image(path, bit_depth))).convert("L").convert("F")
    return np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.LANCZOS), dtype=np.float32)


class _Search:
    """Pictures (n, SIZE, SIZE) registered to their common picture, with their deviations from it."""

    def __init__(self, pictures: NDArray[np.float32]) -> None:
        common = _common(pictures)
        places = [place or Placement() for place in register_all(pictures, common[None], (16, 32))]
        self.raw = pictures
        self._details: dict[int, Picture] = {}
        self.pictures = np.stack([place.apply(p) for place, p in zip(places, pictures, strict=True)])
        self.inside = [place.inside(SIZE) & _unsaturated(p) for place, p in zip(places, self.pictures, strict=True)]
        common = _common(self.pictures)
        self.deviations = np.stack(
            [_deviation(p, common, inside) for p, inside in zip(self.pictures, self.inside, strict=True)]
        )  # (n, COARSE * COARSE), each of length 1

    def pairs(self, names: NDArray[np.str_], hashes: NDArray[np.str_]) -> list[tuple[int, int]]:
        """Return the candidate pairs of different splits `names` (n,) and different content `hashes` (n,)."""
        asked = np.flatnonzero(names != "train")
        found: dict[tuple[int, int], None] = {}
        for start in range(0, len(asked), BATCH_SIZE):
            indices = asked[start : start + BATCH_SIZE]
            correlations = self.deviations[indices] @ self.deviations.T  # (BATCH_SIZE, n)
            allowed = (names != names[indices, None]) & (hashes != hashes[indices, None])
            for index, its, may in zip(indices.tolist(), correlations, allowed, strict=True):
                found |= {(min(index, other), max(index, other)): None for other in self._candidates(its, may)}
        return list(found)

    def _candidates(self, correlations: NDArray[np.float32], allowed: NDArray[np.bool_]) -> list[int]:
        """Return the allowed pictures with the most similar deviations, or all allowed ones of few pictures."""
        if len(self.raw) <= MAX_LOOK_ALIKES:
            return np.flatnonzero(allowed).tolist()
        correlations = np.where(allowed, correlations, -1.0)
        best = np.argsort(-correlations, kind="stable")[:MAX_CANDIDATES]
        return [int(other) for other in best if correlations[other] >= MIN_CANDIDATE_CORRELATION]

    def correlations(self, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], float]:
        """Return each pair's correlation of the detail that look-alikes do not explain; 1 for equal pixels."""
        found: dict[tuple[int, int], float] = {}
        for start in range(0, len(pairs), BATCH_SIZE):
            batch = list(pairs[start : start + BATCH_SIZE])
            moving, fixed = (self.pictures[[pair[side] for pair in batch]] for side in (0, 1))
            places = register_all(moving, fixed, (64,))
            found |= {pair: self._correlation_of(*pair, place) for pair, place in zip(batch, places, strict=True)}
        return found

    def _correlation_of(self, one: int, other: int, place: Placement | None) -> float:
        if np.array_equal(self.raw[one], self.raw[other]):
            return 1.0
        fixed, moving, inside = self.pictures[other], self.pictures[one], self.inside[one] & self.inside[other]
        if place is not None:
            moving = place.apply(moving)
            inside = inside & place.inside(SIZE) & (place.apply(self.inside[one].astype(np.float32)) > 0.99)
        inside[:2] = inside[-2:] = inside[:, :2] = inside[:, -2:] = False  # resizing makes borders of its own
        if inside.mean() < 0.1:
            return 0.0
        both = np.stack([_detail(moving)[inside], self._detail_of(other)[inside]], axis=1).astype(np.float64)
        whole = _correlation(both - both.mean(axis=0))
        if (
            whole < MIN_COPY_CORRELATION
        ):  # what look-alikes explain is in both: the rest is no more alike than the whole
            return whole
        slopes = (np.gradient(gaussian_filter(fixed, 0.5), axis=axis) for axis in (0, 1))
        explaining = [_detail(slope) for slope in slopes]  # what a rest of misplacement looks like
        explaining += [self._detail_of(at) for at in self._look_alikes(one, other)]
        design = np.stack([detail[inside] for detail in explaining] + [np.ones(inside.sum())], axis=1)
        normal = design.T @ design + 1e-3 * np.eye(design.shape[1])
        rest = both - design @ np.linalg.solve(normal, design.T @ both)  # (pixels, 2)
        return _correlation(rest)

    def _detail_of(self, index: int) -> Picture:
        if index not in self._details:
            self._details[index] = _detail(self.pictures[index])
        return self._details[index]

    def _look_alikes(self, one: int, other: int) -> list[int]:
        """Return the pictures most similar to `other`, without the pair itself and possible third copies."""
        correlations = self.deviations @ self.deviations[other]
        third = np.maximum(correlations, self.deviations @ self.deviations[one]) > MAX_LOOK_ALIKE_CORRELATION
        correlations[third] = -2.0
        correlations[[one, other]] = -2.0
        best = np.argsort(-correlations, kind="stable")[:MAX_LOOK_ALIKES]
        return [int(at) for at in best if correlations[at] > -2.0]


def _common(pictures: NDArray[np.float32]) -> Picture:
    """Return the median of pictures (n, S, S), of very many of some in even distances."""
    return np.median(pictures[:: -(-len(pictures) // MAX_COMMON)], axis=0)


def _correlation(both: NDArray[np.float64]) -> float:
    """Return the correlation of two columns of mean 0, (pixels, 2); 0 where there is hardly anything in one."""
    lengths = np.sqrt((both**2).sum(axis=0))
    if lengths.min() < MIN_DETAIL * np.sqrt(len(both)):
        return 0.0
    return float(both[:, 0] @ both[:, 1] / lengths.prod())


def _unsaturated(picture: Picture) -> NDArray[np.bool_]:
    return binary_erosion((picture > UNSATURATED[0]) & (picture < UNSATURATED[1]), iterations=2, border_value=1)


def _deviation(picture: Picture, common: Picture, inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return what differs from the common picture at its best gain and offset, (COARSE * COARSE,) of length 1."""
    if not inside.any():
        return np.zeros(COARSE * COARSE, np.float32)
    ours, theirs = picture[inside] - picture[inside].mean(), common[inside] - common[inside].mean()
    gain = float(ours @ theirs) / max(float(theirs @ theirs), 1e-9)
    rest = np.zeros_like(picture)
    rest[inside] = ours - gain * theirs
    flat = shrink(rest, COARSE).ravel()
    flat = flat - flat.mean()
    return (flat / max(float(np.linalg.norm(flat)), 1e-9)).astype(np.float32)


def _detail(picture: Picture) -> Picture:
    return picture - gaussian_filter(picture, DETAIL)


def describe(pairs: Sequence[NearPair], splits: Mapping[str, str]) -> list[str]:
    """Return a line for each pair."""
    return [f"{p.one} ({splits[p.one]}), {p.other} ({splits[p.other]}): {p.correlation:.0%} alike" for p in pairs]
