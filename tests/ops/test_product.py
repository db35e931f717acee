"""Matrix products by another library are the same products."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from eisnn.ops import linear
from eisnn.ops.product import product


def _matrix(rows: int, columns: int, transposed: bool, seed: int) -> Tensor:
    shape = (columns, rows) if transposed else (rows, columns)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.T if transposed else x


@given(
    m=st.integers(0, 40),
    k=st.integers(0, 300),
    n=st.integers(1, 40),
    layout=st.tuples(st.booleans(), st.booleans()),
)
def test_values_and_gradients(m: int, k: int, n: int, layout: tuple[bool, bool]) -> None:
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
    torch.library.opcheck(torch.ops.eisnn.product, (a, b))
