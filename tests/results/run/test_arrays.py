"""Maps and masks on disk."""

from pathlib import Path

import numpy as np
import pytest

from defectlab.results.run.arrays import ArrayWriter, pack_masks, unpack_masks


@pytest.mark.parametrize("sent", [5, 3])
def test_arrays_are_streamed_and_cut_to_the_rows_that_came(tmp_path: Path, sent: int):
    rows = np.random.default_rng(0).random((sent, 4, 6), dtype=np.float32)
    writer = ArrayWriter(tmp_path / "maps" / "test.npy", 5, (4, 6), "float32")
    writer.append(rows[:2])
    assert not (tmp_path / "maps" / "test.npy").exists()
    writer.append(rows[2:])
    writer.close()
    assert np.array_equal(np.load(tmp_path / "maps" / "test.npy", mmap_mode="r"), rows)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["test.npy"]


def test_masks_survive_packing():
    masks = np.random.default_rng(0).random((3, 5, 13)) > 0.5
    assert np.array_equal(unpack_masks(pack_masks(masks), 13), masks)
