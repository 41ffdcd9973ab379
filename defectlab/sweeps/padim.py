"""Shared scoring of PaDiM's configurations of one layer set: one permutation, one factor, one triangular solve."""

from collections.abc import Iterator, Sequence

import numpy as np

from defectlab.kernels.gaussian.distance import prefix_distances
from defectlab.kernels.gaussian.fit import fit_factor
from defectlab.models.memory_bank import BATCH_SIZE, embed
from defectlab.sweeps.configurations import Configuration, largest_of
from defectlab.sweeps.record_scores import RawScores
from defectlab.sweeps.shared_work import SharedWork, as_tensor, scored_entries


def score_padim(
    group: Sequence[Configuration], pending: Sequence[Configuration], shared: SharedWork
) -> Iterator[RawScores]:
    """Yield raw scores of the pending configurations of a group, which differ in n_features only.

    Their channels are prefixes of one permutation, so that the leading blocks of the largest one's Cholesky factor are
    the factors of all others, and partial sums of one solve's squares their distances.
    """
    found, sizes = mahalanobis_distances(group, shared)
    largest = largest_of(group)
    model, device, queries = largest.model.model, largest.engine.device, scored_entries(largest.datamodule.manifest)
    for one in sorted(pending, key=lambda one: one.model.options["n_features"]):
        with shared.timed("scores"):
            own = as_tensor(found[sizes.index(one.model.options["n_features"])], device)
            scores, maps = model.from_distances(own, one.model.preprocessing.input_size)
        yield RawScores(one, queries, scores, maps)


def mahalanobis_distances(group: Sequence[Configuration], shared: SharedWork) -> tuple[np.ndarray, list[int]]:
    """Return distances (S, Q, 1, h, w) of every scored image for every size of the group, and the sizes."""
    largest = largest_of(group)
    model, device = largest.model.model, largest.engine.device
    manifest, queries = largest.datamodule.manifest, scored_entries(largest.datamodule.manifest)
    sizes = sorted({size for one in group for size in (one.model.options["n_features"], *one.prefix_values)})

    def distances() -> np.ndarray:
        features = shared.features(largest)
        with shared.timed("embeddings"):
            rows = model.rows(embed(model, features, manifest.split("train"), device))
        gaussian = fit_factor(rows)
        del rows
        parts = []
        for begin in range(0, len(queries), BATCH_SIZE):
            embedding = embed(model, features, queries[begin : begin + BATCH_SIZE], device)
            parts.append(prefix_distances(embedding, gaussian, sizes).cpu().numpy())
        return np.concatenate(parts, axis=1)  # (S, Q, 1, h, w)

    key = shared.key(group, "mahalanobis distances", sizes=sizes)
    if not shared.store.has(key):
        shared.features(largest)  # timed apart
    with shared.timed("gaussians"):
        return shared.store.get_or_make(key, distances), sizes
