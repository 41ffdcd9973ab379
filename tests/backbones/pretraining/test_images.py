from dataclasses import replace

import numpy as np
import pytest
import torch

from defectlab.backbones.pretraining.images import NO_LABEL, SCENES, SOURCES, load_source, make_pretraining_images
from defectlab.data.samples.photographs import PHOTOGRAPHS
from defectlab.data.samples.procedural import KINDS
from defectlab.utils.errors import DataError


def test_sheets_and_labels() -> None:
    sheets = make_pretraining_images(1)
    assert sheets.images.shape == (len(sheets.labels), 3, 256, 256)
    assert sheets.labels.shape[1:] == (4, 4)
    named = sheets.labels[sheets.labels != NO_LABEL]
    assert torch.equal(named.unique(), torch.arange(sheets.classes))
    assert len(sheets.images) - sheets.photographs == len(KINDS)
    assert all(len(label.unique()) == 1 for label in sheets.labels[sheets.photographs :])
    # Each cell of a photograph is a class of its own.
    cells = sheets.labels[: sheets.photographs]
    assert len(cells[cells != NO_LABEL].unique()) == int((cells != NO_LABEL).sum())


def test_the_first_scenes_have_a_label_for_every_cell() -> None:
    sheets = make_pretraining_images(2, 1)
    assert torch.equal(sheets.images, make_pretraining_images(2).images)
    named = sheets.labels[sheets.labels != NO_LABEL]
    assert torch.equal(named.unique(), torch.arange(sheets.classes))
    procedural = sheets.labels[sheets.photographs :].reshape(len(KINDS), 2, 16)
    for kind, (first, second) in zip(KINDS, procedural, strict=True):
        count = len(first[first != NO_LABEL].unique())
        assert count == (int((first != NO_LABEL).sum()) if kind in SCENES else 1)
        assert len(second.unique()) == 1


def test_flat_cells_have_no_label() -> None:
    sheets = make_pretraining_images(1)
    # (N, 3, 256, 256) -> (N, 4, 64, 4, 64) -> (N, 4, 4)
    grey = sheets.images[: sheets.photographs].double().mean(1).reshape(-1, 4, 64, 4, 64)
    spread = grey.permute(0, 1, 3, 2, 4).flatten(3).std(-1, unbiased=False)
    named = sheets.labels[: sheets.photographs] != NO_LABEL
    assert float(spread[~named].max()) < 6 <= float(spread[named].min()) + 1e-6


def test_no_photograph_of_a_sample_is_trained_on() -> None:
    used = {photo.sha256 for photo in PHOTOGRAPHS.values()}
    assert not used & {source.sha256 for source in SOURCES}
    assert all(source.licence for source in SOURCES)


def test_another_photograph_is_refused() -> None:
    assert load_source(SOURCES[0]).dtype == np.uint8
    with pytest.raises(DataError, match=r"not the photograph.*Fix"):
        load_source(replace(SOURCES[0], sha256="0" * 64))
    with pytest.raises(DataError, match=r"does not hold none\.png"):
        load_source(replace(SOURCES[0], file="none.png"))
