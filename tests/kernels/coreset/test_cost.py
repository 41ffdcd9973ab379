"""The size of a coreset, and the estimated cost of its search against what it computes."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from defectlab.kernels.coreset import cost
from defectlab.kernels.coreset.cost import coreset_size, estimate, smallest_ratio
from defectlab.kernels.coreset.greedy import k_center_greedy
from defectlab_runtime.errors import OptionError


@pytest.mark.row("0.6")
def test_coreset_size_rounds_down_and_names_the_smallest_ratio() -> None:
    assert coreset_size(214_016, 0.1) == 21_401
    with pytest.raises(OptionError, match=r"0\.011"):
        coreset_size(99, 0.01)
    with pytest.raises(OptionError, match="no patches"):
        coreset_size(0, 0.5)
    for ratio in (0, 1.5, float("nan")):
        with pytest.raises(OptionError, match=r"\(0, 1\]"):
            coreset_size(10, ratio)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 99, 1000, 864_256])
def test_smallest_ratio_keeps_one_row(n: int) -> None:
    ratio = smallest_ratio(n)
    assert int(n * ratio) >= 1
    assert 1 / n <= ratio * (1 + 1e-12) <= 1.1 / n * (1 + 1e-12)


class Work(TorchDispatchMode):
    """Counts the operations of matrix products, and the peak of the bytes that tensors made meanwhile hold."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if str(function).split(".")[1] in ("mm", "addmm", "mv", "addmv"):
            left, right = [one for one in args if torch.is_tensor(one)][-2:]
            self.operations += 2 * left.numel() * (right.shape[1] if right.ndim == 2 else 1)
        for tensor in tree_leaves(out):
            if torch.is_tensor(tensor) and (storage := tensor.untyped_storage())._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._sizes.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self._sizes.values()))
        return out


@pytest.mark.parametrize(("n", "d", "n_samples"), [(2000, 50, 20), (2000, 50, 200), (20_000, 32, 300)])
def test_estimate_is_what_the_search_computes_and_holds(
    n: int, d: int, n_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    with Work() as work:
        k_center_greedy(rows, n_samples, first=0)
    monkeypatch.setattr(cost, "measured_product_rate", lambda *_: 1.0)  # an operation a second
    found = estimate(n, d, n_samples)
    assert work.operations / 3 < found.seconds < 3 * work.operations
    assert work.peak / 1.5 < found.bytes < 1.5 * work.peak
