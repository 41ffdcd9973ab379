"""PaDiM's configurations of one layer set: one permutation, one factor, one triangular solve."""

from collections.abc import Iterator, Sequence

import numpy as np

from defectlab.kernels.gaussian.fit import fit_factor, prefix_distances
from defectlab.sweeps.configurations import Configuration
from defectlab.sweeps.record_scores import Scored
from defectlab.sweeps.shared_work import EMBEDDED_AT_ONCE, Pieces, as_tensor, embedded, queries_of


def score_padim(group: Sequence[Configuration], pending: Sequence[Configuration], pieces: Pieces) -> Iterator[Scored]:
    """Yield raw scores of the pending configurations of a group, which differ in n_features only.

    Their channels are prefixes of one permutation, so that the leading blocks of the largest one's Cholesky factor are
    the factors of all others, and partial sums of one solve's squares their distances.
    """
    found, sizes = mahalanobis_distances(group, pieces)
    largest = largest_of(group)
    model, device, queries = largest.model.model, largest.engine.device, queries_of(largest.datamodule.manifest)
    for one in sorted(pending, key=lambda one: one.model.options["n_features"]):
        with pieces.timed("scores"):
            own = as_tensor(found[sizes.index(one.model.options["n_features"])], device)
            scores, maps = model.from_distances(own, one.model.preprocessing.input_size)
        yield Scored(one, queries, scores, maps)


def mahalanobis_distances(group: Sequence[Configuration], pieces: Pieces) -> tuple[np.ndarray, list[int]]:
    """Return distances (S, Q, 1, h, w) of every scored image for every size of the group, and the sizes."""
    largest = largest_of(group)
    model, device = largest.model.model, largest.engine.device
    manifest, queries = largest.datamodule.manifest, queries_of(largest.datamodule.manifest)
    sizes = sorted({size for one in group for size in (one.model.options["n_features"], *one.reach)})

    def distances() -> np.ndarray:
        features = pieces.features(largest)
        with pieces.timed("embeddings"):
            rows = model.rows(embedded(model, features, manifest.split("train"), device))
        gaussian = fit_factor(rows)
        del rows
        parts = []
        for begin in range(0, len(queries), EMBEDDED_AT_ONCE):
            embedding = embedded(model, features, queries[begin : begin + EMBEDDED_AT_ONCE], device)
            parts.append(prefix_distances(embedding, gaussian, sizes).cpu().numpy())
        return np.concatenate(parts, axis=1)  # (S, Q, 1, h, w)

    key = pieces.key(group, "mahalanobis distances", sizes=sizes)
    if not pieces.store.has(key):
        pieces.features(largest)  # timed apart
    with pieces.timed("gaussians"):
        return pieces.store.get_or_make(key, distances), sizes


def largest_of(group: Sequence[Configuration]) -> Configuration:
    """Return the configuration that takes most channels: those of all others are the first of its own."""
    return max(group, key=lambda one: one.model.options["n_features"])
