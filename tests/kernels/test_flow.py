"""CFlow's flow against anomalib's decoder: values and gradients."""

import copy

import pytest
import torch

from defectlab.kernels.flow.coupling import flow_log_likelihood, permutation_of, trained_tensors
from defectlab.kernels.flow.grid import GridFlow
from defectlab.models.cflow.torch_model import couplings


def decoder(channels: int, *, soft: bool = False) -> torch.nn.Module:
    from anomalib.models.image.cflow.utils import cflow_head

    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = cflow_head(8, 3, 1.9, channels, soft)
        for parameter in head.parameters():
            if parameter.requires_grad:
                parameter.data += 0.3 * torch.randn_like(parameter)
    return head


def plain_log_likelihood(head: torch.nn.Module, fibers: torch.Tensor, encoding: torch.Tensor) -> torch.Tensor:
    from anomalib.models.image.cflow.utils import get_logp

    return get_logp(fibers.shape[1], *head(fibers, [encoding]))


@pytest.mark.parametrize(("channels", "soft"), [(12, False), (7, False), (12, True)])
def test_values_and_gradients_are_those_of_anomalibs_decoder(channels: int, soft: bool):
    ours = decoder(channels, soft=soft)
    plain = copy.deepcopy(ours)
    random = torch.Generator().manual_seed(1)
    fibers, encoding = torch.randn(20, channels, generator=random), torch.randn(20, 8, generator=random)
    weights = torch.rand(20, generator=random)
    found = flow_log_likelihood(fibers, encoding, couplings(ours))
    expected = plain_log_likelihood(plain, fibers, encoding)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        if b.grad is None:
            assert a.grad is None, name
        else:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_one_flat_gradient_holds_those_of_all_tensors():
    random = torch.Generator().manual_seed(1)
    fibers, encoding = torch.randn(20, 7, generator=random), torch.randn(20, 8, generator=random)
    head = decoder(7)
    blocks = couplings(head)
    flow_log_likelihood(fibers, encoding, blocks).sum().backward()
    flat = torch.cat([tensor.detach().flatten() for tensor in trained_tensors(blocks)]).requires_grad_()
    flow_log_likelihood(fibers, encoding, blocks, flat).sum().backward()
    parameters = [*(b.global_scale for b in head.module_list), *(b.global_offset for b in head.module_list)]
    parameters += [p for b in head.module_list for p in b.subnet.parameters()]
    torch.testing.assert_close(flat.grad, torch.cat([p.grad.flatten() for p in parameters]))


@pytest.mark.parametrize("columns", [1, 12, 1000])
@pytest.mark.parametrize(("channels", "soft"), [(12, False), (7, True)])
def test_scoring_a_grid_is_scoring_its_fibers(channels: int, soft: bool, columns: int):
    head = decoder(channels, soft=soft)
    random = torch.Generator().manual_seed(1)
    features, encoding = torch.randn(3, channels, 2, 3, generator=random), torch.randn(8, 6, generator=random)
    before = features.clone()
    found = GridFlow(encoding, couplings(head)).log_likelihood(features, columns=columns)
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels)  # (B, C, h, w) -> (B*h*w, C)
    with torch.no_grad():
        expected = plain_log_likelihood(head, rows, encoding.T.repeat(3, 1))
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(features, before)


def test_a_rotation_is_no_permutation():
    assert permutation_of(torch.eye(3)[[2, 0, 1]]).tolist() == [2, 0, 1]
    assert permutation_of(torch.linalg.qr(torch.randn(4, 4))[0]) is None
    assert permutation_of(torch.tensor([[1.0, 0.0], [1.0, 0.0]])) is None
