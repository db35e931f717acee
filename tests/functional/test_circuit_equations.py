"""The circuit's equations: recorded numbers, the oracle, gradients, and the two rules for zeros."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import oracle
from eisnn.functional import (
    convolution_reach,
    divisive_inhibition,
    fold,
    inhibitory_output,
    integrate,
    scale_grad,
    stabilise,
    subtractive_inhibition,
)
from golden import DTYPES, LAYERS, Golden, assert_same

INF, NAN = math.inf, math.nan


def draw(*shape: int, seed: int = 0, sparsity: float = 0.0) -> Tensor:
    """Non-negative float64 numbers, a fraction of them zero."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(shape, dtype=torch.float64, generator=generator)
    kept = torch.rand(shape, dtype=torch.float64, generator=generator) >= sparsity
    return values * kept


# -- recorded numbers -------------------------------------------------------------------------


def leaf(golden: Golden, key: str, dtype: torch.dtype) -> Tensor:
    value = golden[key].to(dtype)
    if key.startswith("param.") and "weight" not in key:
        value = value.flatten()
    return value.requires_grad_()


def product(golden: Golden, x: Tensor, weight: Tensor) -> Tensor:
    if x.dim() == 2:
        return F.linear(x, weight)
    return F.conv2d(x, weight, None, golden.meta["stride"], golden.meta["padding"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_reproduces_the_recorded_currents_and_gradients(name: str, dtype: torch.dtype) -> None:
    golden = Golden(name)
    x = leaf(golden, "x", dtype)
    p = {key: leaf(golden, f"param.{key}", dtype) for key in golden.under("param.")}
    d = p["weight_ee"][0].numel()
    factor = 1e-3 if "sparse" in name and dtype == torch.float32 else None

    got: dict[str, Tensor] = {}
    got["I_ee"] = product(golden, x, p["weight_ee"])
    got["I_ie"] = product(golden, x, p["weight_ie"])
    s_i = inhibitory_output(got["I_ie"])
    weight_ei = scale_grad(p["weight_ei"], 1 / d)
    weight_ei.retain_grad()
    got["I_ei"] = subtractive_inhibition(s_i, weight_ei)
    got["I_balanced"] = got["I_ee"] - got["I_ei"]
    got["I_div_raw"] = divisive_inhibition(s_i, weight_ei, p["gain_i"])
    got["I_div_stab"] = stabilise(got["I_div_raw"])
    got["I_int"] = integrate(got["I_balanced"], got["I_div_stab"], p["gain_e"], p["bias"])
    for key in ("I_ee", "I_ie", "I_div_raw"):
        got[key].retain_grad()
    assert golden.under("out.").keys() == got.keys()
    for key, value in got.items():
        assert_same(value, golden.expected(f"out.{key}", dtype), key, factor)

    zeros = golden.expected("out.I_div_raw", dtype) == 0  # not to rounding: exactly these
    assert torch.equal(got["I_div_raw"] == 0, zeros)
    assert zeros.sum().item() == golden.meta["info"]["zeros_in_div"]

    got["I_int"].backward(golden["upstream"].to(dtype))
    grads = {
        key: value.grad
        for key, value in {**got, **p, "x": x}.items()
        if value.is_leaf or key in ("I_ee", "I_ie", "I_div_raw")
    }
    grads["weight_ei_unscaled"] = weight_ei.grad
    assert golden.under("grad.").keys() == grads.keys()
    for key, grad in grads.items():
        assert grad is not None
        assert_same(grad, golden.expected(f"grad.{key}", dtype), f"grad.{key}", factor)
    torch.testing.assert_close(grads["weight_ei_unscaled"], d * grads["weight_ei"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reproduces_the_recorded_output_layer(dtype: torch.dtype) -> None:
    golden = Golden("ei_linear_output")
    x = leaf(golden, "x", dtype)
    p = {k: leaf(golden, f"param.{k}", dtype) for k in ("weight_ee", "weight_ie", "weight_ei")}
    i_ee, i_ie = F.linear(x, p["weight_ee"]), F.linear(x, p["weight_ie"])
    i_ee.retain_grad()
    i_ie.retain_grad()
    weight_ei = scale_grad(p["weight_ei"], 1 / x.shape[1])
    weight_ei.retain_grad()
    y = i_ee - subtractive_inhibition(inhibitory_output(i_ie), weight_ei)
    assert_same(y, golden.expected("out.y", dtype), "y")
    y.backward(golden["upstream"].to(dtype))
    grads = {"x": x, "I_ee": i_ee, "I_ie": i_ie, "weight_ei_unscaled": weight_ei, **p}
    assert golden.under("grad.").keys() == grads.keys()
    for key, tensor in grads.items():
        assert tensor.grad is not None
        assert_same(tensor.grad, golden.expected(f"grad.{key}", dtype), f"grad.{key}")


@pytest.mark.parametrize("name", ["ei_linear_sparse", "ei_conv2d_spikes_3x3_sparse"])
def test_recorded_parameters_are_the_raw_ones_projected(name: str) -> None:
    golden = Golden(name)
    for key, raw in golden.under("raw.").items():
        projected = raw if key == "bias" else raw.clamp(min=0)
        assert torch.equal(golden[f"param.{key}"], projected), key


@pytest.mark.parametrize("name", [*LAYERS, "ei_linear_output"])
def test_the_oracle_reproduces_the_recorded_numbers(name: str) -> None:
    golden = Golden(name)

    def array(key: str) -> Any:
        value = golden[key].double()
        return (
            value.flatten().numpy() if key.endswith(("gain_i", "gain_e", "bias")) else value.numpy()
        )

    def as_conv(a: Any) -> Any:
        return a.reshape(*a.shape, *[1] * (4 - a.ndim))

    output_layer = name == "ei_linear_output"
    per_unit = () if output_layer else ("gain_i", "gain_e", "bias")
    circuit = oracle.Circuit(
        as_conv(array("param.weight_ee")),
        as_conv(array("param.weight_ie")),
        array("param.weight_ei"),
        *(array(f"param.{key}") for key in per_unit),
        stride=(golden.meta.get("stride", 1),) * 2,
        padding=(golden.meta.get("padding", 0),) * 2,
    )
    x, upstream = as_conv(array("x")), as_conv(array("upstream"))
    currents, grads = circuit.forward(x), circuit.backward(x, upstream)
    rename = {
        "i_ee": "I_ee", "i_ie": "I_ie", "i_sub": "I_ei", "balanced": "I_balanced",
        "i_div": "I_div_raw", "divisor": "I_div_stab", "i_int": "I_int",
    }  # fmt: skip
    for key, value in currents.items():
        expected = golden[f"f64.out.{rename[key]}"].reshape(value.shape)
        torch.testing.assert_close(torch.from_numpy(value), expected, rtol=1e-10, atol=1e-12)
    for key, value in grads.items():
        expected = golden[f"f64.grad.{rename.get(key, key)}"].reshape(value.shape)
        torch.testing.assert_close(torch.from_numpy(value), expected, rtol=1e-10, atol=1e-12)
    assert len(grads) == len(golden.under("f64.grad."))


# -- the pieces ---------------------------------------------------------------------------------


@given(
    shape=st.sampled_from([(3, 5), (4, 2, 3, 2), (1, 1), (2, 4, 1, 1)]),
    sparsity=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    seed=st.integers(0, 1000),
)
def test_stabilise_replaces_zeros_by_the_samples_smallest_positive_entry(
    shape: tuple[int, ...], sparsity: float, seed: int
) -> None:
    i_div = draw(*shape, seed=seed, sparsity=sparsity)
    got = stabilise(i_div)
    for sample, result in zip(i_div, got, strict=True):
        expected = oracle.stabilise_sample(sample.numpy())
        assert np.array_equal(result.numpy(), expected)


def test_stabilise_is_per_sample_and_over_all_positions() -> None:
    i_div = torch.tensor([[[[0.0, 5.0]], [[3.0, 0.0]]], [[[0.0, 0.0]], [[7.0, 9.0]]]])  # [2,2,1,2]
    expected = torch.tensor([[[[3.0, 5.0]], [[3.0, 3.0]]], [[[7.0, 7.0]], [[7.0, 9.0]]]])
    assert torch.equal(stabilise(i_div), expected)


def test_stabilise_keeps_the_smallest_numbers_there_are() -> None:
    tiny = torch.finfo(torch.float32).tiny
    assert torch.equal(stabilise(torch.tensor([[tiny, 0.0]])), torch.tensor([[tiny, tiny]]))


def test_stabilise_of_a_silent_sample_is_infinite_and_leaves_the_others_alone() -> None:
    got = stabilise(torch.tensor([[0.0, 0.0], [0.0, 2.0]]))
    assert torch.equal(got, torch.tensor([[INF, INF], [2.0, 2.0]]))


def test_stabilise_shows_nan_only_in_the_sample_that_has_it() -> None:
    got = stabilise(torch.tensor([[NAN, 1.0, 0.0], [0.0, 2.0, 2.0]]))
    assert got[0, 0].isnan()
    assert torch.equal(got[1], torch.tensor([2.0, 2.0, 2.0]))


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3, 3)])
def test_stabilise_of_no_samples(shape: tuple[int, ...]) -> None:
    assert stabilise(torch.zeros(shape)).shape == shape


def test_stabilise_passes_the_gradient_unchanged_at_every_entry() -> None:
    i_div = torch.tensor([[0.0, 5.0, 3.0], [0.0, 0.0, 0.0], [1.0, 2.0, 0.0]], requires_grad=True)
    upstream = torch.randn(3, 3)
    stabilise(i_div).backward(upstream)
    assert torch.equal(i_div.grad, upstream)


def test_inhibitory_output_is_rectified() -> None:
    i_ie = torch.tensor([[2.0, 0.0, -1e-9]], requires_grad=True)
    out = inhibitory_output(i_ie)
    assert torch.equal(out, torch.tensor([[2.0, 0.0, 0.0]]))
    out.backward(torch.tensor([[1.0, 2.0, 3.0]]))
    assert torch.equal(i_ie.grad, torch.tensor([[1.0, 2.0, 3.0]]))  # also where it was cut


def test_inhibitory_output_keeps_nan_and_infinity() -> None:
    i_ie = torch.tensor([[NAN, INF, 1.0]])
    reach = torch.tensor([[False, True, False]])
    out = inhibitory_output(i_ie, reach)
    assert out[0, 0].isnan()
    assert out[0, 2] == 0
    assert inhibitory_output(i_ie)[0, 0].isnan()


def test_subtractive_and_divisive_inhibition_of_convolutions_act_at_each_position() -> None:
    s_i, weight_ei, gain_i = draw(3, 2, 4, 5), draw(6, 2, seed=1), draw(2, seed=2)
    by_hand = torch.einsum("ei,nihw->nehw", weight_ei, s_i)
    torch.testing.assert_close(subtractive_inhibition(s_i, weight_ei), by_hand)
    by_hand = torch.einsum("ei,i,nihw->nehw", weight_ei, gain_i, s_i)
    torch.testing.assert_close(divisive_inhibition(s_i, weight_ei, gain_i), by_hand)


@given(
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    seed=st.integers(0, 1000),
)
def test_folded_weight_gives_the_balanced_current(
    stride: tuple[int, int], padding: tuple[int, int], seed: int
) -> None:
    x = draw(2, 3, 6, 5, seed=seed, sparsity=0.5)
    ee, ie, ei = draw(8, 3, 3, 2, seed=1), draw(2, 3, 3, 2, seed=2), draw(8, 2, seed=3)
    i_ie = F.conv2d(x, ie, None, stride, padding)
    expected = F.conv2d(x, ee, None, stride, padding) - subtractive_inhibition(i_ie, ei)
    got = F.conv2d(x, fold(ee, ei, ie), None, stride, padding)
    torch.testing.assert_close(got, expected)


def test_fold_is_computed_wide_and_rounded_once() -> None:
    ee, ei, ie = (draw(*s, seed=i).bfloat16() for i, s in enumerate([(32, 9), (32, 8), (8, 9)]))
    folded = fold(ee, ei, ie)
    assert folded.dtype == torch.bfloat16
    exact = ee.double() - ei.double() @ ie.double()
    torch.testing.assert_close(folded.double(), exact, rtol=2**-8, atol=1e-6)


def test_scale_grad_is_the_identity_forward_and_scales_backward() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    y = scale_grad(x, 0.25)
    assert torch.equal(y, x)
    y.backward(torch.ones(3, 2))
    assert torch.equal(x.grad, torch.full((3, 2), 0.25))


def test_scale_grad_works_under_vmap() -> None:
    x = torch.randn(4, 3)

    def loss(row: Tensor) -> Tensor:
        return scale_grad(row, 0.5).square().sum()

    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(x), x)


def test_integrate_of_a_silent_sample_is_the_bias_with_finite_gradients() -> None:
    balanced = torch.randn(2, 3, requires_grad=True)
    i_div = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]], requires_grad=True)
    gain_e, bias = torch.rand(3, requires_grad=True), torch.randn(3, requires_grad=True)
    i_int = integrate(balanced, stabilise(i_div), gain_e, bias)
    assert torch.equal(i_int[0], bias)
    i_int.sum().backward()
    for tensor in (balanced, i_div, gain_e, bias):
        assert tensor.grad.isfinite().all()
    assert not balanced.grad[0].any()
    assert not i_div.grad[0].any()


# -- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("item", [(), (2, 3)], ids=["linear", "conv"])
def test_gradients_are_derivatives_where_there_are_any(item: tuple[int, ...]) -> None:
    def leaf(*shape: int, seed: int) -> Tensor:
        return (draw(*shape, seed=seed) + 0.5).requires_grad_()

    s_i, ei, gain_i = leaf(2, 2, *item, seed=0), leaf(4, 2, seed=1), leaf(2, seed=2)
    balanced, divisor = leaf(2, 4, *item, seed=3), leaf(2, 4, *item, seed=4)
    gain_e, bias = leaf(4, seed=5), leaf(4, seed=6)
    kernel = (3, *item)
    ee, ie = leaf(4, *kernel, seed=7), leaf(2, *kernel, seed=8)
    check = torch.autograd.gradcheck
    assert check(subtractive_inhibition, (s_i, ei))
    assert check(divisive_inhibition, (s_i, ei, gain_i))
    assert check(integrate, (balanced, divisor, gain_e, bias))
    assert check(fold, (ee, ei, ie))
    assert check(stabilise, (divisor,))  # no entry to replace
    assert check(inhibitory_output, (s_i,))  # positive currents
    assert check(lambda x: 0.5 * scale_grad(x, 1.0), (s_i,))


# -- zeros that are not exact -------------------------------------------------------------------


@st.composite
def convolutions(draw_: st.DrawFn) -> dict[str, Any]:
    """A convolution that fits its input, with sparse input and sparse weights."""
    groups = draw_(st.sampled_from([1, 1, 2]))
    kernel = draw_(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw_(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw_(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    height, width = (
        max(1, d * (k - 1) + 1 - 2 * p) + draw_(st.integers(0, 5))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    channels = groups * draw_(st.integers(1, 4))
    units = groups * draw_(st.integers(1, 3))
    seed = draw_(st.integers(0, 10_000))
    sparsity = draw_(st.sampled_from([0.0, 0.5, 0.8, 0.95, 1.0]))
    return {
        "x": draw(draw_(st.integers(1, 4)), channels, height, width, seed=seed, sparsity=sparsity),
        "weight": draw(units, channels // groups, *kernel, seed=seed + 1, sparsity=sparsity / 2),
        "options": (
            draw_(st.tuples(st.integers(1, 3), st.integers(1, 3))),
            padding,
            dilation,
            groups,
        ),
    }


@given(case=convolutions())
def test_reach_is_where_the_exact_current_is_positive(case: dict[str, Any]) -> None:
    x, weight, options = case["x"], case["weight"], case["options"]
    stride, padding, dilation, groups = options
    exact = oracle.Circuit(
        weight.numpy(), weight.numpy(), np.eye(len(weight)),
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    ).forward(x.numpy())["i_ie"]  # fmt: skip
    reach = convolution_reach(x, weight, *options)
    assert reach.dtype == torch.bool
    assert np.array_equal(reach.numpy(), exact > 0)


@given(case=convolutions(), dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_where_zeros_are_exact_the_rule_changes_no_bit(
    case: dict[str, Any], dtype: torch.dtype
) -> None:
    x, weight = case["x"].to(dtype), case["weight"].to(dtype)
    i_ie = F.conv2d(x, weight, None, *case["options"])
    with_rule = inhibitory_output(i_ie, convolution_reach(x, weight, *case["options"]))
    assert torch.equal(with_rule, i_ie)
    assert torch.equal(with_rule, inhibitory_output(i_ie))


@given(case=convolutions(), seed=st.integers(0, 1000))
def test_noise_on_exact_zeros_is_removed(case: dict[str, Any], seed: int) -> None:
    x, weight = case["x"], case["weight"]
    exact = F.conv2d(x, weight, None, *case["options"])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(exact.shape, dtype=exact.dtype, generator=generator)
    noisy = exact + 1e-6 * exact.max() * noise
    got = inhibitory_output(noisy, convolution_reach(x, weight, *case["options"]))
    assert torch.equal(got[exact == 0], torch.zeros_like(got[exact == 0]))
    assert (got >= 0).all()
    positive = exact > 0
    assert torch.equal(got[positive], noisy[positive].clamp(min=0))


@given(case=convolutions(), error=st.floats(0.0, 0.49), seed=st.integers(0, 1000))
def test_the_count_of_active_inputs_forgives_errors_below_one_half(
    case: dict[str, Any], error: float, seed: int
) -> None:
    x, weight = case["x"], case["weight"]
    exact = F.conv2d(x, weight, None, *case["options"]) > 0
    real = F.conv2d

    def noisy(*args: Any) -> Tensor:
        out = real(*args)
        generator = torch.Generator().manual_seed(seed)
        sign = torch.randint(0, 2, out.shape, generator=generator) * 2 - 1
        return out + error * sign

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eisnn.functional.circuit.F.conv2d", noisy)
        assert torch.equal(convolution_reach(x, weight, *case["options"]), exact)


@given(
    case=convolutions(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    channels_last=st.booleans(),
)
def test_convolutions_on_this_device_return_exact_zeros(
    case: dict[str, Any], dtype: torch.dtype, channels_last: bool
) -> None:
    """What :func:`eisnn.nn.circuit.zeros_are_exact` promises of the CPU."""
    x, weight = case["x"], case["weight"]
    exact = F.conv2d(x, weight, None, *case["options"])
    layout = torch.channels_last if channels_last else torch.contiguous_format
    got = F.conv2d(
        x.to(dtype, memory_format=layout),
        weight.to(dtype, memory_format=layout),
        None,
        *case["options"],
    )
    assert torch.equal(got == 0, exact == 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kernel", [3, 5])
def test_large_convolutions_on_this_device_return_exact_zeros(
    dtype: torch.dtype, channels_last: bool, kernel: int
) -> None:
    """Sizes at which libraries choose Winograd or another transforming algorithm."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    spikes = torch.rand(2, 64, 32, 32).lt(0.02).to(dtype, memory_format=layout)
    spikes[0, :, :16] = 0
    weight = torch.empty(64, 64, kernel, kernel).exponential_().to(dtype, memory_format=layout)
    got = F.conv2d(spikes, weight, padding=kernel // 2)
    reach = convolution_reach(spikes.float(), weight.float(), padding=(kernel // 2,) * 2)
    assert torch.equal(got != 0, reach)
    assert (~reach).any()
