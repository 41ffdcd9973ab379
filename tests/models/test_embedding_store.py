"""Embeddings of a training's images: what was put in comes out, in memory or from a file."""

from pathlib import Path

import pytest
import torch

from defectlab.models import embedding_store
from defectlab.models.embedding_store import EmbeddingStore

CPU = torch.device("cpu")


@pytest.fixture(params=["in memory", "in a file"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingStore:
    monkeypatch.setattr(embedding_store, "MAX_MEMORY_BYTES", 2**20 if request.param == "in memory" else 0)
    return EmbeddingStore(3, tmp_path)


def test_a_batch_comes_back_in_any_order(store: EmbeddingStore, tmp_path: Path):
    layers = [torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)]
    store.put(["a", "b"], layers)
    for found, layer in zip(store.get(["b", "a"], CPU), layers, strict=True):
        assert torch.equal(found, layer[[1, 0]])
    assert not list(tmp_path.iterdir())  # a file has no name


def test_an_image_that_is_missing_is_computed_by_the_caller(store: EmbeddingStore):
    assert store.get(["a"], CPU) is None
    store.put(["a"], [torch.rand(1, 3, 4, 4)])
    assert store.get(["a", "b"], CPU) is None
    assert not store.complete


def test_more_images_than_it_was_made_for_are_not_stored(store: EmbeddingStore):
    values = torch.rand(5, 3, 4, 4)
    store.put(["a", "b", "a", "c", "d"], [values])
    assert store.complete
    assert store.get(["d"], CPU) is None
    (found,) = store.get(["a", "b", "c"], CPU)
    assert torch.equal(found, values[[0, 1, 3]])
