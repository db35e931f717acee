"""The one weight of a circuit."""

from __future__ import annotations

import pytest
import torch
from torch import library

from eisnn import functional, ops


@pytest.mark.parametrize("fan_in", [(5,), (3, 2, 2)])
def test_it_is_the_folded_weight_over_the_inhibitory_one(fan_in: tuple[int, ...]) -> None:
    ee, ie, ei = torch.rand(6, *fan_in), torch.rand(2, *fan_in), torch.rand(6, 2)
    weight = ops.circuit_weight(ee, ie, ei)
    torch.testing.assert_close(weight[:6], functional.fold(ee, ei, ie))
    assert torch.equal(weight[6:], ie)


def test_it_has_first_and_second_derivatives() -> None:
    shapes = ((3, 2, 2, 1), (2, 2, 2, 1), (3, 2))
    inputs = [torch.rand(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(ops.circuit_weight, inputs)
    assert torch.autograd.gradgradcheck(ops.circuit_weight, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_are_folded_in_float32(dtype: torch.dtype) -> None:
    ee, ie, ei = (torch.rand(s).to(dtype) for s in ((6, 40), (4, 40), (6, 4)))
    expected = ops.circuit_weight(ee.float(), ie.float(), ei.float()).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ops.circuit_weight(ee, ie, ei), expected)


def test_it_is_registered_as_pytorch_wants() -> None:
    inputs = tuple(torch.rand(s).requires_grad_() for s in ((3, 2, 2, 1), (2, 2, 2, 1), (3, 2)))
    library.opcheck(torch.ops.eisnn.circuit_weight, inputs)
