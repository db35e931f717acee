"""Convolutions by other algorithms are the same convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from eisnn.ops import convolve

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=PAIR,
    stride=PAIR,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    samples=st.sampled_from([1, 40]),
    groups=st.sampled_from([1, 1, 2]),
    channels_last=st.booleans(),
)
def test_values_and_gradients_are_those_of_conv2d(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    samples: int,
    groups: int,
    channels_last: bool,
) -> None:
    assume(
        all(
            s + 2 * p > d * (k - 1)
            for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)
        )
    )
    x = torch.rand(samples, 4, *size, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.rand(6, 4 // groups, *kernel, dtype=torch.float64)
    inputs = [x.requires_grad_(), weight.requires_grad_()]

    def run(y: Tensor) -> list[Tensor]:
        return [y.detach(), *torch.autograd.grad(y.square().sum(), inputs)]

    got = run(convolve(x, weight, stride, padding, dilation, groups))
    expected = run(F.conv2d(x, weight, None, stride, padding, dilation, groups))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert got[0].is_contiguous(memory_format=torch.channels_last)


@given(seed=st.integers(0, 1000), size=st.integers(1, 3))
def test_zeros_are_exact(seed: int, size: int) -> None:
    """What no active input reaches is zero, not a rounding error of either sign."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(40, 3, size, size, generator=generator) < 0.1).float()
    weight = torch.rand(4, 3, 3, 3, generator=generator)
    y = convolve(x, weight, (1, 1), (1, 1), (1, 1), 1)
    reached = F.conv2d(x.double(), torch.ones(4, 3, 3, 3).double(), padding=1) > 0
    assert torch.equal(y != 0, reached)
