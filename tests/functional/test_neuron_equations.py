"""Leaky integrate-and-fire: recorded numbers, the oracle, and the surrogates' derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import oracle
from eisnn.functional import (
    SURROGATES,
    ArcTan,
    LeakyReLU,
    Sigmoid,
    Surrogate,
    heaviside,
    lif_multistep,
    lif_step,
)
from golden import DTYPES, Golden, assert_same

ALL_SURROGATES = [*SURROGATES.values(), Sigmoid(1.5), ArcTan(3.0), LeakyReLU(0.2)]


# -- recorded numbers -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reproduces_the_recorded_sequence(dtype: torch.dtype) -> None:
    golden = Golden("lif")
    x = golden["x"].to(dtype).requires_grad_()
    spikes, v = lif_multistep(x)
    assert torch.equal(spikes, golden["spikes"].to(dtype))
    assert_same(v, golden.expected("v_final", dtype), "v_final")
    spikes.backward(golden["upstream"].to(dtype))
    assert_same(x.grad, golden.expected("grad.x", dtype), "grad.x")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reproduces_the_recorded_potentials_step_by_step(dtype: torch.dtype) -> None:
    golden = Golden("lif")
    x = golden["x"].to(dtype)
    v = torch.zeros_like(x[0])
    for t in range(len(x)):
        spikes, v = lif_step(x[t], v)
        assert torch.equal(spikes, golden["spikes"][t].to(dtype))
        assert_same(v, golden.expected("v_seq", dtype)[t], f"v[{t}]")
        assert_same(v + spikes, golden.expected("h_seq", dtype)[t], f"h[{t}]")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reproduces_the_recorded_second_call_with_carried_state(dtype: torch.dtype) -> None:
    golden = Golden("lif")
    x, x2 = (golden[key].to(dtype).requires_grad_() for key in ("x", "x2"))
    spikes, v = lif_multistep(x)
    spikes2, v2 = lif_multistep(x2, v)
    assert torch.equal(spikes2, golden["spikes2"].to(dtype))
    assert_same(v2, golden.expected("v_final2", dtype), "v_final2")
    loss = (spikes * golden["upstream"].to(dtype)).sum()
    loss = loss + (spikes2 * golden["upstream2"].to(dtype)).sum()
    loss.backward()
    assert_same(x2.grad, golden.expected("grad2.x2", dtype), "grad2.x2")
    assert_same(x.grad, golden.expected("grad2.x", dtype), "grad2.x")  # through v


# -- the oracle -------------------------------------------------------------------------------


@given(
    T=st.integers(1, 6),
    shape=st.sampled_from([(3,), (2, 4), (2, 1, 2, 2)]),
    tau=st.sampled_from([1.0, 1.25, 2.0, 10.0]),
    theta=st.sampled_from([0.3, 1.0, 2.0]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_oracle_in_values_and_gradients(
    T: int, shape: tuple[int, ...], tau: float, theta: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, dtype=torch.float64, generator=generator)

    x, v0 = (1.5 * normal(T, *shape)).requires_grad_(), normal(*shape).requires_grad_()
    g_spikes, g_v = normal(T, *shape), normal(*shape)
    spikes, v = lif_multistep(x, v0, tau, theta)
    torch.autograd.backward([spikes, v], [g_spikes, g_v])

    o_spikes, h, o_v = oracle.lif(x.detach().numpy(), v0.detach().numpy(), tau, theta)
    g_x, g_v0 = oracle.lif_backward(
        h, g_spikes.numpy(), oracle.sigmoid_derivative(h - theta), tau, g_v.numpy()
    )
    assert torch.equal(spikes, torch.from_numpy(o_spikes))
    torch.testing.assert_close(v, torch.from_numpy(o_v))
    torch.testing.assert_close(x.grad, torch.from_numpy(g_x))
    torch.testing.assert_close(v0.grad, torch.from_numpy(g_v0))


@given(
    T=st.integers(1, 6),
    surrogate=st.sampled_from(ALL_SURROGATES),
    tau=st.sampled_from([1.0, 2.0, 5.0]),
    seed=st.integers(0, 10_000),
    cut=st.integers(0, 6),
)
def test_sequence_equals_repeated_steps_and_two_part_sequences(
    T: int, surrogate: Surrogate, tau: float, seed: int, cut: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(T, 3, 4, generator=generator)
    upstream = torch.randn(T, 3, 4, generator=generator)

    def run(form: str) -> tuple[Tensor, Tensor, Tensor]:
        x_ = x.clone().requires_grad_()
        if form == "steps":
            v, spikes = torch.zeros(3, 4), []
            for x_t in x_:
                s, v = lif_step(x_t, v, tau, 1.0, surrogate)
                spikes.append(s)
            out = torch.stack(spikes)
        elif form == "parts":
            first, v = lif_multistep(x_[:cut], None, tau, 1.0, surrogate)
            second, v = lif_multistep(x_[cut:], v, tau, 1.0, surrogate)
            out = torch.cat([first, second])
        else:
            out, v = lif_multistep(x_, None, tau, 1.0, surrogate)
        (out * upstream).sum().backward()
        return out.detach(), v.detach(), x_.grad

    whole = run("whole")
    for form in ("steps", "parts"):
        for got, expected in zip(run(form), whole, strict=True):
            assert torch.equal(got, expected)


# -- what the neuron is ----------------------------------------------------------------------------


def test_a_neuron_exactly_at_the_threshold_fires() -> None:
    sigmoid = SURROGATES["sigmoid"]
    z = torch.tensor([-1e-38, -0.0, 0.0, 1e-38])
    assert torch.equal(heaviside(z, sigmoid), torch.tensor([0.0, 1.0, 1.0, 1.0]))
    spikes, v = lif_step(torch.tensor([1.0]), torch.zeros(1))
    assert spikes.item() == 1.0
    assert v.item() == 0.0


def test_reset_subtracts_and_input_is_not_decayed() -> None:
    spikes, v = lif_step(torch.tensor([2.25]), torch.tensor([0.5]), tau=2.0, v_threshold=1.0)
    assert spikes.item() == 1.0
    assert v.item() == 0.5 * 0.5 + 2.25 - 1.0


def test_reset_is_cut_from_the_graph() -> None:
    x = torch.tensor([1.5], requires_grad=True)
    _, v = lif_step(x, torch.zeros(1))
    v.backward()
    assert x.grad.item() == 1.0  # 1 - theta * derivative if it were not


def test_no_time_steps() -> None:
    spikes, v = lif_multistep(torch.zeros(0, 2, 3))
    assert spikes.shape == (0, 2, 3)
    assert torch.equal(v, torch.zeros(2, 3))


def test_nan_current_gives_nan_spike_there_and_nowhere_else() -> None:
    x = torch.tensor([[0.5, 2.0], [math.nan, 0.1], [0.0, 0.0]])
    spikes, _ = lif_multistep(x)
    assert spikes[:, 1].isfinite().all()
    assert spikes[0, 0] == 0
    assert spikes[1:, 0].isnan().all()  # the potential stays broken, and that shows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_currents_keep_a_wide_potential(dtype: torch.dtype) -> None:
    x = torch.randn(5, 2, 3).to(dtype)
    spikes, v = lif_multistep(x)
    assert spikes.dtype == dtype
    assert v.dtype == torch.float32
    expected, expected_v = lif_multistep(x.float())
    assert torch.equal(spikes.float(), expected)
    assert torch.equal(v, expected_v)


# -- surrogates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("surrogate", ALL_SURROGATES, ids=str)
@given(z=st.floats(-4, 4).filter(lambda z: abs(z) > 1e-3))
def test_derivative_is_that_of_the_primitive(surrogate: Surrogate, z: float) -> None:
    step = 1e-5
    at = torch.tensor([z - step, z + step], dtype=torch.float64)
    below, above = surrogate.primitive(at).tolist()
    derivative = surrogate.derivative(torch.tensor(z, dtype=torch.float64)).item()
    assert derivative == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("surrogate", ALL_SURROGATES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_heaviside_has_the_surrogates_derivative(surrogate: Surrogate, dtype: torch.dtype) -> None:
    z = torch.linspace(-3, 3, 25).to(dtype).requires_grad_()  # with z = 0
    upstream = torch.randn(25).to(dtype)
    out = heaviside(z, surrogate)
    assert out.dtype == dtype
    out.backward(upstream)
    assert torch.equal(z.grad, upstream * surrogate.derivative(z.detach()))


def test_the_named_surrogates() -> None:
    zero = torch.zeros((), dtype=torch.float64)
    at_zero = {name: s.derivative(zero).item() for name, s in SURROGATES.items()}
    assert at_zero == {"sigmoid": 1.0, "arctan": 1.0, "leaky_relu": 1.0}
    below = torch.tensor(-0.5, dtype=torch.float64)
    s = 1 / (1 + math.exp(2.0))
    assert SURROGATES["sigmoid"].derivative(below).item() == pytest.approx(4 * s * (1 - s))
    arctan = 1 / (1 + (math.pi * 0.5) ** 2)
    assert SURROGATES["arctan"].derivative(below).item() == pytest.approx(arctan)
    assert SURROGATES["leaky_relu"].derivative(below).item() == 0.01


def test_a_user_may_bring_a_surrogate() -> None:
    class Box:
        def primitive(self, z: Tensor) -> Tensor:
            return z.clamp(-0.5, 0.5)

        def derivative(self, z: Tensor) -> Tensor:
            return (z.abs() < 0.5).to(z.dtype)

    x = torch.tensor([0.9, 3.0], requires_grad=True)
    spikes, _ = lif_step(x, torch.zeros(2), surrogate=Box())
    spikes.sum().backward()
    assert torch.equal(x.grad, torch.tensor([1.0, 0.0]))
