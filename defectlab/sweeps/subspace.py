"""Shared scoring of Subspace's configurations of one layer set: one decomposition serves every size of subspace."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from defectlab.kernels.subspace import PatchSums, prefix_residuals
from defectlab.models.memory_bank import BATCH_SIZE, embed
from defectlab.sweeps.configurations import Configuration
from defectlab.sweeps.record_scores import RawScores
from defectlab.sweeps.shared_work import SharedWork, as_tensor, scored_entries
from defectlab_runtime.errors import InputError


def score_subspace(
    group: Sequence[Configuration], pending: Sequence[Configuration], shared: SharedWork
) -> Iterator[RawScores]:
    """Yield raw scores of the pending configurations of a group, which differ in size and image score only.

    Raises:
        InputError: After all others, for those whose subspace would be everything.
    """
    first = group[0]
    model, device, queries = first.model.model, first.engine.device, scored_entries(first.datamodule.manifest)
    sums = patch_sums(group, shared)
    sizes: dict[str, int] = {}
    refused: InputError | None = None
    with shared.timed("principal axes"):
        variances, axes = sums.principal_axes()
        for one in pending:
            try:
                sizes[one.run_id] = one.model.model.size_of(variances)
            except InputError as error:
                refused = error
    distinct = sorted(set(sizes.values()))
    if distinct:
        mean, columns = sums.mean.float().to(device), axes.float().to(device)
        features, parts = shared.features(first), []
        with shared.timed("scores"):
            for begin in range(0, len(queries), BATCH_SIZE):
                embedding = embed(model, features, queries[begin : begin + BATCH_SIZE], device)
                found = prefix_residuals(model.rows(embedding), mean, columns, distinct)  # (S, B*h*w)
                parts.append(found.unflatten(1, (len(embedding), 1, *embedding.shape[-2:])))
            residuals = torch.cat(parts, dim=1)  # (S, Q, 1, h, w)
    for one in pending:
        if one.run_id in sizes:
            with shared.timed("scores"):
                own = residuals[distinct.index(sizes[one.run_id])]
                scores, maps = one.model.model.from_residuals(own, one.model.preprocessing.input_size)
            yield RawScores(one, queries, scores, maps)
    if refused is not None:
        raise refused


def patch_sums(group: Sequence[Configuration], shared: SharedWork) -> PatchSums:
    """Return the sums of the patches of a group's training images, from the store or from their features."""
    first = group[0]
    model, device = first.model.model, first.engine.device
    train = first.datamodule.manifest.split("train")

    def make() -> np.ndarray:
        features = shared.features(first)
        with shared.timed("patch sums"):
            batches = (
                PatchSums.of(model.rows(embed(model, features, train[begin : begin + BATCH_SIZE], device)))
                for begin in range(0, len(train), BATCH_SIZE)
            )
            sums = next(batches)
            for more in batches:
                sums += more
        count = torch.full_like(sums.mean, sums.count)
        return torch.cat([torch.stack([count, sums.mean]), sums.scatter]).cpu().numpy()

    stored = as_tensor(shared.store.get_or_make(shared.key(group, "patch sums"), make), torch.device("cpu"))
    return PatchSums(int(stored[0, 0]), stored[1], stored[2:])
