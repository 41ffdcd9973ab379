"""Shared scoring of PatchCore's configurations of one layer set: one coreset order and one search serve all."""

from collections.abc import Iterator, Sequence

import torch

from defectlab.kernels.coreset.cost import coreset_size
from defectlab.kernels.neighbours import nearest_of_prefixes
from defectlab.kernels.neighbours_index import NeighboursIndex
from defectlab.models.memory_bank import embed
from defectlab.sweeps.configurations import Configuration
from defectlab.sweeps.record_scores import RawScores
from defectlab.sweeps.shared_work import SharedWork, as_tensor, scored_entries


def score_patchcore(
    group: Sequence[Configuration], pending: Sequence[Configuration], shared: SharedWork
) -> Iterator[RawScores]:
    """Yield raw scores of the pending configurations of a group, which differ in ratio and neighbours only.

    A coreset of any size is a prefix of the largest one's order, so that one order and one pass over the ordered bank
    serve every ratio; one search among the bank's rows serves every number of neighbours.
    """
    model, queries = group[0].model.model, scored_entries(group[0].datamodule.manifest)
    bank, sizes, steps = ordered_bank(group, shared)
    patches, (height, width) = _patches(group[0], shared)
    distances, locations = _nearest(group, shared, patches, bank, steps)
    for step, size in enumerate(steps):
        chosen = [one for one in pending if sizes[one.run_id] == size]
        if not chosen:
            continue
        model.memory_bank = bank[:size]
        with shared.timed("scores"):
            per_image = [
                found[step].reshape(len(queries), -1) for found in (distances, locations)
            ]  # (Q*h*w,) -> (Q, h*w)
            neighbours = [one.model.options["num_neighbors"] for one in chosen]
            scores = model.image_scores(per_image[0], per_image[1], patches, neighbours)
            input_size = chosen[0].model.preprocessing.input_size
            maps = model.maps(per_image[0].reshape(len(queries), 1, height, width), input_size)
        for one, its_scores in zip(chosen, scores, strict=True):
            yield RawScores(one, queries, its_scores, maps)
    model.memory_bank = torch.empty(0)


def ordered_bank(group: Sequence[Configuration], shared: SharedWork) -> tuple[torch.Tensor, dict[str, int], list[int]]:
    """Return the largest bank (M, C) in the order picked, the number of rows by run id, and all bank sizes sorted."""
    model, device = group[0].model.model, group[0].engine.device
    train = group[0].datamodule.manifest.split("train")
    features = shared.features(group[0])
    with shared.timed("embeddings"):
        rows = model.rows(embed(model, features, train, device))
    sizes = {one.run_id: coreset_size(len(rows), one.model.options["coreset_sampling_ratio"]) for one in group}
    steps = {sizes[one.run_id] for one in group if not one.is_placeholder}
    steps |= {coreset_size(len(rows), ratio) for one in group for ratio in one.prefix_values}
    largest = max(sizes.values())
    if min(steps) == len(rows):  # all are kept, in their own order
        return rows, sizes, sorted(steps)
    with shared.timed("coreset"):
        key = shared.key(group, "coreset", size=largest)
        order = shared.store.get_or_make(key, lambda: model.order(rows, largest).cpu().numpy())
    return rows[as_tensor(order, device)], sizes, sorted(steps)


def search_bank(group: Sequence[Configuration], shared: SharedWork) -> None:
    """Search every prefix of the ordered bank and store the result, which `score_patchcore` then reads."""
    bank, _, steps = ordered_bank(group, shared)
    _nearest(group, shared, _patches(group[0], shared)[0], bank, steps)


def _patches(one: Configuration, shared: SharedWork) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return the patches (Q*h*w, C) of every scored image, and the patch grid (h, w)."""
    model, queries = one.model.model, scored_entries(one.datamodule.manifest)
    with shared.timed("embeddings"):
        embedding = embed(model, shared.features(one), queries, one.engine.device)
        return model.rows(embedding), (embedding.shape[-2], embedding.shape[-1])


def _nearest(
    group: Sequence[Configuration], shared: SharedWork, patches: torch.Tensor, bank: torch.Tensor, sizes: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return distance and row (S, Q) of each patch's nearest row in every prefix of the bank."""
    keys = [shared.key(group, f"nearest {what}", sizes=sizes) for what in ("distances", "places")]
    with shared.timed("nearest"), shared.store.locked(keys[0]):  # another process waits for it, and then reads it
        stored = [shared.store.get(key) for key in keys]
        if stored[0] is None or stored[1] is None:
            nearest = _nearest_of_prefixes(patches.float(), bank.float(), sizes)
            found = [torch.stack([pair[index] for pair in nearest]).cpu().numpy() for index in range(2)]
            with shared.store.writing([(k, a.shape, a.dtype) for k, a in zip(keys, found, strict=True)]) as arrays:
                for array, values in zip(arrays, found, strict=True):
                    array[...] = values
            stored = list(found)
    distances, places = (as_tensor(array, patches.device) for array in stored if array is not None)
    return distances, places


def _nearest_of_prefixes(
    patches: torch.Tensor, bank: torch.Tensor, sizes: list[int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return distances and rows (Q,) for each prefix: large prefixes are searched by an index, others in one pass."""
    small = [size for size in sizes if not NeighboursIndex.is_worthwhile(bank[:size])]
    found = dict(zip(small, nearest_of_prefixes(patches, bank, small, 1), strict=True)) if small else {}
    return [
        (found[size][0].squeeze(1), found[size][1].squeeze(1))
        if size in found
        else NeighboursIndex(bank[:size]).nearest(patches)
        for size in sizes
    ]
