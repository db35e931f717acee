"""Convolutions by other algorithms are the same convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, library

from eisnn.ops import backend_for, convolve, use_backend
from eisnn.ops.convolution3x3 import convolve3x3, unavailable

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


needs_compiler = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))


def _convolution(
    n: int, c: int, o: int, height: int, width: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Input, weight, gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(n, c, height, width, generator=generator) < 0.3).float()
    weight = torch.randn(o, c, 3, 3, generator=generator)
    return x, weight, torch.randn(n, o, height, width, generator=generator)


def _gradients(run: object, x: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = run(x, weight)  # type: ignore[operator]
    return (y.detach(), *torch.autograd.grad(y, (x, weight), grad.to(y.dtype)))


def _conv2d(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


@needs_compiler
@settings(max_examples=60)
@given(
    n=st.integers(1, 9),
    c=st.integers(1, 70),
    o=st.integers(1, 70),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
    bfloat16=st.booleans(),
)
def test_gradients_by_winograd(
    n: int, c: int, o: int, height: int, width: int, bfloat16: bool
) -> None:
    """Of any size: right to float32's rounding (of bfloat16 images: to theirs, in d_x alone)."""
    x, weight, grad = _convolution(n, c, o, height, width)
    if bfloat16:
        grad = grad.bfloat16()
    _, d_x, d_weight = _gradients(
        convolve3x3, x.to(grad.dtype).contiguous(memory_format=torch.channels_last), weight, grad
    )
    _, exact_x, exact_weight = _gradients(_conv2d, x.double(), weight.double(), grad.double())
    assert d_x.dtype == grad.dtype
    assert d_weight.dtype == torch.float32
    assert _distance(d_x, exact_x) < (4e-3 if bfloat16 else 2e-5)
    torch.testing.assert_close(
        d_weight.double(), exact_weight, rtol=1e-4, atol=2e-5 * float(exact_weight.norm())
    )


@needs_compiler
def test_bfloat16_gradients_round_to_nearest_and_keep_nan() -> None:
    x, weight, grad = _convolution(1, 1, 1, 4, 4)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 1] = 1 + 2**-7
    for value, rounded in ((1.0, 1 + 2**-7), (1 + 2**-7, 1 + 2**-6), (torch.nan, torch.nan)):
        grad = torch.full((1, 1, 4, 4), value, dtype=torch.bfloat16)
        _, d_x, _ = _gradients(convolve3x3, x.bfloat16(), weight, grad)
        torch.testing.assert_close(
            d_x.float(), torch.full_like(x, rounded), rtol=0, atol=0, equal_nan=True
        )


@needs_compiler
def test_large_layers_take_these_gradients_and_keep_their_values() -> None:
    """``convolve`` returns what conv2d does, bit for bit; only its gradients differ, slightly."""
    x, weight, grad = _convolution(40, 32, 48, 8, 8)
    x = x.contiguous(memory_format=torch.channels_last)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return convolve(x, weight, (1, 1), (1, 1), (1, 1), 1)

    y, d_x, d_weight = _gradients(run, x, weight, grad)
    plain, direct_x, direct_weight = _gradients(_conv2d, x, weight, grad)
    assert torch.equal(y, plain)
    assert not torch.equal(d_x, direct_x)  # another algorithm has been at work
    assert _distance(d_x, direct_x.double()) < 1e-5
    assert _distance(d_weight, direct_weight.double()) < 1e-5
    with use_backend("torch"):  # nothing compiled when asked so
        for a, b in zip(
            _gradients(run, x, weight, grad), (plain, direct_x, direct_weight), strict=True
        ):
            torch.testing.assert_close(a, b)
        assert backend_for(x.device) == "torch"


@needs_compiler
def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    x, weight, grad = _convolution(50, 40, 70, 9, 8)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(_gradients(convolve3x3, x, weight, grad)[1:])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@needs_compiler
def test_second_derivatives() -> None:
    x, weight, grad = _convolution(2, 3, 4, 5, 6)

    def squares(run: object, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [t.to(dtype).requires_grad_() for t in (x, weight)]
        y = run(*leaves)  # type: ignore[operator]
        first = torch.autograd.grad((y * grad.to(dtype)).tanh().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    for got, expected in zip(
        squares(convolve3x3, torch.float32), squares(_conv2d, torch.float64), strict=True
    ):
        assert _distance(got, expected) < 1e-4


@needs_compiler
def test_tracing() -> None:
    x, weight, _ = _convolution(2, 3, 4, 5, 6)
    library.opcheck(
        torch.ops.eisnn.convolution3x3,
        (
            x.contiguous(memory_format=torch.channels_last).requires_grad_(),
            weight.requires_grad_(),
        ),
    )
