"""The LIF module: no state of its own, agreement of its two forms, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eisnn.functional import SURROGATES, LeakyReLU, Sigmoid
from eisnn.nn import LIF
from golden import Golden


def test_reproduces_the_recorded_sequence_with_its_defaults() -> None:
    golden = Golden("lif")
    x = golden["x"].double().requires_grad_()
    spikes = LIF()(x)
    assert torch.equal(spikes, golden["spikes"].double())
    spikes.backward(golden["upstream"].double())
    torch.testing.assert_close(x.grad, golden["f64.grad.x"], rtol=1e-10, atol=1e-12)


def test_defaults() -> None:
    lif = LIF()
    assert (lif.tau, lif.v_threshold, lif.surrogate) == (2.0, 1.0, Sigmoid(4.0))


@given(
    tau=st.sampled_from([1.0, 2.0, 7.0]),
    theta=st.sampled_from([0.5, 1.0]),
    surrogate=st.sampled_from([*SURROGATES]),
    T=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_streaming_equals_the_sequence(
    tau: float, theta: float, surrogate: str, T: int, seed: int
) -> None:
    lif = LIF(tau, theta, surrogate)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(T, 2, 3, generator=generator).requires_grad_()
    upstream = torch.randn(T, 2, 3, generator=generator)
    whole = lif(x)
    (grad,) = torch.autograd.grad(whole, x, upstream)
    v, spikes = None, []
    for x_t in x:
        s, v = lif.step(x_t, v)
        spikes.append(s)
    stream = torch.stack(spikes)
    assert torch.equal(stream, whole)
    assert torch.equal(torch.autograd.grad(stream, x, upstream)[0], grad)


def test_surrogate_changes_the_gradient_and_not_the_spikes() -> None:
    x = torch.randn(4, 2, 3, requires_grad=True)
    seen = []
    for surrogate in ("sigmoid", "arctan", "leaky_relu", LeakyReLU(0.3)):
        spikes = LIF(surrogate=surrogate)(x)
        seen.append((spikes.detach(), torch.autograd.grad(spikes.sum(), x)[0]))
    assert all(torch.equal(spikes, seen[0][0]) for spikes, _ in seen)
    grads = [grad for _, grad in seen]
    assert not any(torch.equal(a, b) for i, a in enumerate(grads) for b in grads[:i])


def test_the_gradient_is_there_in_evaluation_mode_too() -> None:
    x = torch.randn(4, 2, 3, requires_grad=True)
    LIF().eval()(x).sum().backward()
    assert x.grad.any()


def test_no_state_is_kept_between_calls_or_in_the_state_dict() -> None:
    lif = LIF()
    x = torch.full((3, 1, 1), 0.6)
    first = lif(x)
    assert first.any()
    assert torch.equal(lif(x), first)
    assert lif.state_dict() == {}
    assert not list(lif.parameters())
    assert not list(lif.buffers())
    assert lif(torch.ones(2, 5, 7)).shape == (2, 5, 7)  # another batch size


def test_low_precision_keeps_a_wide_state() -> None:
    spikes, v = LIF().step(torch.ones(2, 3, dtype=torch.bfloat16))
    assert spikes.dtype == torch.bfloat16
    assert v.dtype == torch.float32


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 3), (2, 3, 1)])
def test_a_state_of_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"state must match the input: x is \(2, 3\).*v=None"):
        LIF().step(torch.zeros(2, 3), torch.zeros(shape))


def test_a_state_on_another_device_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"on cpu, v is .* on meta"):
        LIF().step(torch.zeros(2, 3), torch.zeros(2, 3, device="meta"))


@pytest.mark.parametrize("shape", [(), (5,)])
def test_a_sequence_has_time_and_batch(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[T, B, \.\.\.\].*LIF\.step"):
        LIF()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0.5}, "tau .* >= 1, got 0.5"),
        ({"tau": math.nan}, "tau"),
        ({"tau": math.inf}, "tau"),
        ({"v_threshold": 0.0}, "v_threshold must be > 0"),
        ({"v_threshold": -1.0}, "v_threshold"),
        ({"v_threshold": math.nan}, "v_threshold"),
        ({"surrogate": "tanh"}, "one of sigmoid, arctan, leaky_relu.*'tanh'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LIF(**options)


def test_repr_shows_the_options() -> None:
    assert repr(LIF()) == "LIF(tau=2.0, v_threshold=1.0, surrogate=Sigmoid(alpha=4.0))"
