"""Matrix products by another library are the same products."""

from __future__ import annotations

import timeit
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, library

from eisnn.ops import linear
from eisnn.ops.product import product


def _matrix(rows: int, columns: int, layout: str, seed: int) -> Tensor:
    shape = (columns, rows) if "transposed" in layout else (rows, columns)
    gap = shape[1] if "gaps" in layout else 0
    x = torch.randn(shape[0], shape[1] + gap, generator=torch.Generator().manual_seed(seed))
    x = x[:, : shape[1]]
    return x.T if "transposed" in layout else x


LAYOUTS = ["dense", "transposed", "with gaps", "transposed with gaps"]


@given(
    m=st.integers(0, 40),
    k=st.integers(0, 300),
    n=st.integers(1, 40),
    layout=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
)
def test_values_and_gradients(m: int, k: int, n: int, layout: tuple[str, str]) -> None:
    a, b = _matrix(m, k, layout[0], 0), _matrix(n, k, layout[1], 1)
    got = _with_gradients(a, b)
    expected = _with_gradients(a.double(), b.double())
    for x, y in zip(got, expected, strict=True):
        scale = 1 + float(y.detach().abs().amax()) if y.numel() else 1
        torch.testing.assert_close(x.double(), y, rtol=1e-5, atol=1e-6 * scale)


def _with_gradients(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
    y = product(a, b)
    return (y, *torch.autograd.grad(y.square().sum(), (a, b)))


@pytest.mark.parametrize("a_layout", LAYOUTS)
@pytest.mark.parametrize("b_layout", LAYOUTS)
def test_no_layout_is_far_slower_than_pytorchs_product(a_layout: str, b_layout: str) -> None:
    """oneDNN has a path that is 800 times as slow."""
    a, b = _matrix(640, 256, a_layout, 0), _matrix(128, 256, b_layout, 1)

    def fastest(function: Callable[[], Tensor]) -> float:
        return min(timeit.repeat(function, number=1, repeat=7))

    assert fastest(lambda: product(a, b)) < 20 * fastest(lambda: a @ b.T)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 3, 4, 5), (0, 5)])
def test_linear_takes_any_leading_axes(shape: tuple[int, ...]) -> None:
    x, weight = torch.rand(shape), torch.rand(7, 5)
    torch.testing.assert_close(linear(x, weight), torch.nn.functional.linear(x, weight))


def test_zeros_are_exact() -> None:
    """A silent sample stays exactly silent."""
    x = torch.rand(64, 300)
    x[::3] = 0
    assert (linear(x, torch.rand(80, 300))[::3] == 0).all()


def test_tracing() -> None:
    a, b = torch.rand(3, 4, requires_grad=True), torch.rand(5, 4, requires_grad=True)
    library.opcheck(torch.ops.eisnn.product, (a, b))
