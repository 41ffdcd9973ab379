"""PaDiM's configurations of one layer set: one permutation, one factor, one triangular solve."""

from collections.abc import Iterator, Sequence

import numpy as np

from defectlab.kernels.gaussian import fit_factor, prefix_distances
from defectlab.sweeps.configurations import Configuration
from defectlab.sweeps.pieces import EMBEDDED_AT_ONCE, Pieces, as_tensor, embedded, queries_of
from defectlab.sweeps.scored import Scored


def score_padim(group: Sequence[Configuration], pending: Sequence[Configuration], pieces: Pieces) -> Iterator[Scored]:
    """Yield raw scores of the pending configurations of a group, which differ in n_features only.

    Their channels are prefixes of one permutation, so that the leading blocks of the largest one's Cholesky factor are
    the factors of all others, and partial sums of one solve's squares their distances.
    """
    largest = max(group, key=lambda one: one.model.options["n_features"])
    model, device = largest.model.model, largest.engine.device
    manifest, queries = largest.datamodule.manifest, queries_of(largest.datamodule.manifest)
    features = pieces.features(largest)
    sizes = sorted({size for one in group for size in (one.model.options["n_features"], *one.reach)})

    def distances() -> np.ndarray:
        with pieces.timed("embeddings"):
            rows = model.rows(embedded(model, features, manifest.split("train"), device))
        gaussian = fit_factor(rows)
        del rows
        parts = []
        for begin in range(0, len(queries), EMBEDDED_AT_ONCE):
            embedding = embedded(model, features, queries[begin : begin + EMBEDDED_AT_ONCE], device)
            parts.append(prefix_distances(embedding, gaussian, sizes).cpu().numpy())
        return np.concatenate(parts, axis=1)  # (S, Q, 1, h, w)

    with pieces.timed("gaussians"):
        found = pieces.store.get_or_make(pieces.key(group, "mahalanobis distances", sizes=sizes), distances)
    for one in sorted(pending, key=lambda one: one.model.options["n_features"]):
        with pieces.timed("scores"):
            own = as_tensor(found[sizes.index(one.model.options["n_features"])], device)
            scores, maps = model.from_distances(own, one.model.preprocessing.input_size)
        yield Scored(one, queries, scores, maps)
