import torch

from defectlab.backbones.pretraining.images import NO_LABEL
from defectlab.backbones.pretraining.synthetic_defects import DEFECTS, SCRATCH, SHARE, add_defects, by_cell


def spoiled(count: int = 200, size: int = 64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(3)
    images = torch.rand(count, 3, size, size, generator=draws)
    labels = torch.arange(count)[:, None, None].expand(count, size, size)
    return images, *add_defects(images, labels, torch.zeros(count, size, size, dtype=torch.long), draws)


def test_pixels_change_where_a_defect_is_and_nowhere_else() -> None:
    before, after, labels, defects = spoiled()
    assert torch.equal((before != after).any(1) & (defects == 0), torch.zeros_like(defects, dtype=torch.bool))
    # a turned piece keeps the pixels of its own diagonal
    assert ((before != after).any(1) | (defects == 0)).float().mean() > 0.999
    assert torch.equal(labels == NO_LABEL, defects > 0)


def test_every_defect_occurs_and_some_crops_stay_clean() -> None:
    defects = spoiled()[3]
    assert set(defects.unique().tolist()) == {0, *range(2, len(DEFECTS))}  # foreign pieces come from elsewhere
    clean = (defects == 0).all(2).all(1).float().mean()
    assert 0.3 < float(clean) < 0.55
    assert all(len(one[one > 0].unique()) <= 1 for one in defects)


def test_a_scratch_is_thin() -> None:
    defects = spoiled()[3]
    scratches = [one == SCRATCH for one in defects if (one == SCRATCH).any()]
    assert len(scratches) > 10
    assert max(float(one.float().mean()) for one in scratches) < 0.12


def test_a_cell_is_named_by_what_covers_most_of_it() -> None:
    defects = torch.zeros(1, 16, 16, dtype=torch.long)
    defects[0, :8, :4] = 3  # half of the first cell
    defects[0, 0, 8] = 5  # one pixel of 64
    defects[0, 8:, :8] = 4
    defects[0, 8:, :2] = 6  # less than the rest of the cell
    assert SHARE > 1 / 64
    assert by_cell(defects, 8).tolist() == [[[3, NO_LABEL], [4, 0]]]
