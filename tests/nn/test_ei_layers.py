"""The E-I layers: against the oracle and the recorded numbers, inexact zeros, edge cases."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import eisnn
from circuits import filled, oracle_run, spikes
from eisnn.nn import EIConv2d, EILinear, EIModule, EIOutput
from golden import DTYPES, LAYERS, Golden, assert_same

MAKERS: dict[str, Callable[[], EIModule]] = {
    "linear": lambda: EILinear(6, 8),
    "output": lambda: EIOutput(6, 8),
    "conv": lambda: EIConv2d(3, 8, 3, padding=1),
    "grouped": lambda: EIConv2d(4, 8, 3, groups=2),
}


def item(layer: EIModule) -> tuple[int, ...]:
    return (layer.in_channels, 5, 5) if isinstance(layer, EIConv2d) else (layer.in_features,)


@pytest.fixture(params=MAKERS)
def layer(request: pytest.FixtureRequest) -> EIModule:
    return filled(MAKERS[request.param]())


# -- the oracle -------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> tuple[EIModule, Tensor]:
    """Any layer with any input it takes: sparse, silent in places, counts above one."""
    sparsity = draw(st.sampled_from([0.0, 0.3, 0.8]))
    ratio = draw(st.integers(1, 5))
    seed = draw(st.integers(0, 10_000))
    kind = draw(st.sampled_from(["linear", "output", "conv", "conv", "conv"]))
    layer: EIModule
    if kind == "conv":
        groups = draw(st.sampled_from([1, 1, 2]))
        kernel, stride, padding, dilation = (
            draw(st.tuples(st.integers(least, most), st.integers(least, most)))
            for least, most in ((1, 3), (1, 2), (0, 2), (1, 2))
        )
        channels = groups * draw(st.integers(1, 2))
        units = draw(st.sampled_from([1, 2, 3, 5, 8])) * groups
        assume(max(1, units // ratio) % groups == 0)
        layer = EIConv2d(channels, units, kernel, stride, padding, dilation, groups, ei_ratio=ratio)
        size = [
            max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 3))
            for k, p, d in zip(kernel, padding, dilation, strict=True)
        ]
        shape = (channels, *size)
    else:
        make = EILinear if kind == "linear" else EIOutput
        shape = (draw(st.integers(1, 7)),)
        layer = make(shape[0], draw(st.integers(1, 9)), ei_ratio=ratio)
    lead = draw(st.sampled_from([(1,), (4,), (2, 2)]))
    rate = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))
    x = spikes(*lead, *shape, rate=rate, seed=seed, values=draw(st.sampled_from([1, 3])))
    if draw(st.booleans()):
        x = x * 0.37  # not a whole number: an image or a pooled spike
    x.view(-1, *shape)[-1] *= draw(st.sampled_from([0, 1]))  # a silent sample
    return filled(layer, seed, sparsity).double(), x


@given(case=cases())
def test_equals_the_oracle_in_values_and_gradients(case: tuple[EIModule, Tensor]) -> None:
    layer, x = case
    x.requires_grad_()
    out = layer(x)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    expected, grads = oracle_run(layer, x, upstream)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
    # A gradient entry may be a sum of large terms that cancel: compare with the largest of all.
    largest = max(1.0, *(grad.abs().max().item() for grad in grads.values()))
    got = {name: p.grad for name, p in layer.named_parameters()} | {"x": x.grad}
    assert got.keys() == grads.keys()
    for name, grad in got.items():
        assert grad is not None, name
        torch.testing.assert_close(
            grad, grads[name], rtol=1e-9, atol=1e-11 * largest, msg=lambda m, n=name: f"{n}: {m}"
        )


@given(case=cases())
def test_currents_are_those_of_the_equations(case: tuple[EIModule, Tensor]) -> None:
    layer, x = case
    out = layer(x)
    rank = 3 if isinstance(layer, EIConv2d) else 1
    got = layer.currents(x)
    assert got.i_ee.shape == (x.shape[:-rank].numel(), *out.shape[-rank:])
    if isinstance(layer, EIOutput):
        assert got.i_div is got.divisor is got.i_int is None
        balanced = got.i_ee - got.i_sub
        torch.testing.assert_close(balanced.reshape(out.shape), out, rtol=1e-9, atol=1e-10)
    else:
        torch.testing.assert_close(got.i_int.reshape(out.shape), out, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "output"])
def test_gradients_are_derivatives_away_from_zeros(name: str) -> None:
    layer = filled(MAKERS[name]()).double()
    x = (torch.rand(2, *item(layer), dtype=torch.float64) + 0.5).requires_grad_()
    values = {n: p.detach().clone().requires_grad_() for n, p in layer.named_parameters()}
    # The method scales the gradient of W_EI on purpose: it is not a derivative. Undo that.
    names = [n for n in values if n != "weight_ei"]

    def forward(x: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, given, x)

    assert torch.autograd.gradcheck(forward, (x, *(values[n] for n in names)), fast_mode=True)

    def of_weight_ei(weight_ei: Tensor) -> Tensor:
        out = torch.func.functional_call(layer, {"weight_ei": weight_ei}, x.detach())
        return eisnn.functional.scale_grad(out, layer.fan_in)

    assert torch.autograd.gradcheck(of_weight_ei, (values["weight_ei"],), fast_mode=True)


# -- recorded numbers -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [*LAYERS, "ei_linear_output"])
def test_reproduces_the_recorded_layer(name: str, dtype: torch.dtype) -> None:
    golden = Golden(name)
    meta = golden.meta
    layer: EIModule
    if meta["kind"] == "ei_conv2d":
        sizes = [meta[k] for k in ("out_channels", "kernel_size", "stride", "padding")]
        layer = EIConv2d(meta["in_channels"], *sizes, ei_ratio=meta["ei_ratio"])
    else:
        make = EIOutput if meta["output_layer"] else EILinear
        layer = make(meta["in_features"], meta["out_features"], ei_ratio=meta["ei_ratio"])
    # Parameters as set before the forward pass, some negative; project_ makes them those used.
    given_parameters = golden.under("raw.") or golden.under("param.")
    like = layer.state_dict()
    layer.load_state_dict({k: given_parameters[k].reshape(like[k].shape) for k in like})
    eisnn.project_(layer)
    layer.to(dtype)
    x = golden["x"].to(dtype).requires_grad_()
    out = layer(x)
    out.backward(golden["upstream"].to(dtype))
    rtol = 1e-3 if "sparse" in name and dtype == torch.float32 else None
    key = "out.y" if isinstance(layer, EIOutput) else "out.I_int"
    assert_same(out, golden.expected(key, dtype), key, rtol)
    for leaf, grad in [("x", x.grad), *((n, p.grad) for n, p in layer.named_parameters())]:
        assert grad is not None
        assert_same(grad, golden.expected(f"grad.{leaf}", dtype), f"grad.{leaf}", rtol)


# -- silence ----------------------------------------------------------------------------------


def test_silent_sample_gives_exactly_the_bias_with_finite_gradients(layer: EIModule) -> None:
    x = spikes(3, *item(layer), seed=1).float()
    x[1] = 0
    x.requires_grad_()
    out = layer(x)
    bias = torch.zeros(8) if isinstance(layer, EIOutput) else layer.bias.detach()
    expected = bias.reshape(-1, *[1] * (out.dim() - 2)).expand_as(out[1])
    assert torch.equal(out[1], expected)
    out.sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad.isfinite().all()
    if not isinstance(layer, EIOutput):
        assert not x.grad[1].any()


@pytest.mark.parametrize("name", [n for n in MAKERS if n != "output"])
@pytest.mark.parametrize("cut", ["weight_ie", "weight_ei", "gain_i"])
def test_excitation_without_inhibition_gives_exactly_the_bias(name: str, cut: str) -> None:
    layer = filled(MAKERS[name]())
    with torch.no_grad():
        getattr(layer, cut).zero_()
    x = torch.ones(2, *item(layer), requires_grad=True)
    out = layer(x)
    assert torch.equal(out, layer.bias.reshape(-1, *[1] * (out.dim() - 2)).expand_as(out))
    out.sum().backward()
    assert all(t.grad.isfinite().all() for t in (x, *layer.parameters()))


def test_a_unit_without_inhibition_is_divided_by_the_samples_smallest_divisor() -> None:
    layer = filled(EILinear(6, 8))
    with torch.no_grad():
        layer.weight_ei[2] = 0
    x = spikes(5, 6, rate=0.6).float()
    c = layer.currents(x)
    others = torch.cat([c.i_div[:, :2], c.i_div[:, 3:]], 1)
    assert torch.equal(c.divisor[:, 2], others.amin(1))
    torch.testing.assert_close(
        layer(x)[:, 2], layer.gain_e[2] * c.i_ee[:, 2] / c.divisor[:, 2] + layer.bias[2]
    )


# -- zeros that are not exact -------------------------------------------------------------------


class Noisy:
    """A stand-in for a convolution algorithm that transforms its input: zeros become noise."""

    def __init__(self, relative: float, seed: int) -> None:
        self.relative = relative
        self.real = F.conv2d
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, x: Tensor, weight: Tensor, *args: Any) -> Tensor:
        out = self.real(x, weight, *args)
        if weight.shape[2:] == (1, 1):  # a matrix product
            return out
        noise = torch.randn(out.shape, dtype=out.dtype, generator=self.generator)
        return out + self.relative * out.detach().abs().amax() * noise


def noisy_and_exact(
    monkeypatch: pytest.MonkeyPatch, seed: int, groups: int, rule: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    layer = filled(EIConv2d(2 * groups, 8, 3, padding=1, groups=groups), seed).double()
    x = spikes(4, 2 * groups, 9, 9, rate=0.03, seed=seed)
    x[0] = 0
    assert (layer.currents(x).i_ie == 0).any()

    def run() -> dict[str, Tensor]:
        layer.zero_grad()
        x_ = x.clone().requires_grad_()
        out = layer(x_)
        out.backward(torch.ones_like(out))
        return {"out": out.detach(), "x": x_.grad} | {
            n: p.grad.clone() for n, p in layer.named_parameters()
        }

    exact = run()
    monkeypatch.setattr("eisnn.nn.circuit.zeros_are_exact", lambda *_: not rule)
    monkeypatch.setattr("torch.nn.functional.conv2d", Noisy(1e-6, seed))
    noisy = run()
    monkeypatch.undo()
    return noisy, exact


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_noise_where_currents_are_zero_leaves_the_layer_close_to_exact(
    monkeypatch: pytest.MonkeyPatch, seed: int, groups: int
) -> None:
    noisy, exact = noisy_and_exact(monkeypatch, seed, groups, rule=True)
    for name, value in noisy.items():
        error = (value - exact[name]).abs().max()
        allowed = 1e-3 if name == "out" else 1e-2  # gradients divide by the square
        assert error <= allowed * exact[name].abs().max(), name
    assert torch.equal(noisy["out"][0], exact["out"][0])  # the silent sample: the bias, exactly


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_without_the_rule_that_noise_wrecks_the_layer(
    monkeypatch: pytest.MonkeyPatch, seed: int, groups: int
) -> None:
    noisy, exact = noisy_and_exact(monkeypatch, seed, groups, rule=False)
    assert (noisy["out"] - exact["out"]).abs().max() > 10 * exact["out"].abs().max()


@given(case=cases())
def test_the_rule_changes_no_bit_where_zeros_are_exact(case: tuple[EIModule, Tensor]) -> None:
    layer, x = case
    assume(isinstance(layer, EIConv2d))
    without = layer(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eisnn.nn.circuit.zeros_are_exact", lambda *_: False)
        assert torch.equal(layer(x), without)


def test_zeros_are_taken_as_exact_on_the_cpu_and_for_single_positions_only() -> None:
    from eisnn.nn.circuit import zeros_are_exact

    cpu, other = torch.empty(1, 1, 3, 3), torch.empty(1, 1, 3, 3, device="meta")
    assert zeros_are_exact(cpu, (3, 3))
    assert zeros_are_exact(other, (1, 1))
    assert not zeros_are_exact(other, (3, 3))
    assert not zeros_are_exact(other, (1, 3))


# -- precision ----------------------------------------------------------------------------------


def test_autocast_keeps_the_division_wide(layer: EIModule) -> None:
    x = spikes(4, *item(layer), seed=3).float()
    x[1] = 0
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x.requires_grad_())
        out_of_low = layer(x.bfloat16())
    assert out.dtype == torch.float32
    assert (out - expected).abs().max() < 0.05 * expected.abs().max()
    assert torch.equal(out[1], expected[1])
    assert torch.equal(out, out_of_low)  # spikes are exact in bfloat16
    out.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_autocast_rounds_nothing_but_the_products(layer: EIModule) -> None:
    """With products that bfloat16 holds exactly, the result is that of float32."""
    with torch.no_grad():
        layer.weight_ee.copy_(torch.randint(0, 3, layer.weight_ee.shape))
        layer.weight_ie.copy_(torch.randint(0, 2, layer.weight_ie.shape))
        layer.weight_ei.fill_(0.5)  # gains and bias stay what they are: not exact in bfloat16
    x = spikes(4, *item(layer), seed=3).float()
    c = layer.currents(x)
    for current in (c.i_ee - c.i_sub, c.i_ie):
        assert torch.equal(current.bfloat16().float(), current)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    torch.testing.assert_close(out, layer(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_layer_in_low_precision_computes_in_it(layer: EIModule, dtype: torch.dtype) -> None:
    x = spikes(4, *item(layer), seed=3).float()
    expected = layer(x)
    layer.to(dtype)
    out = layer(x.to(dtype))
    assert out.dtype == dtype
    assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_channels_last_gives_the_same(layer: EIModule) -> None:
    if not isinstance(layer, EIConv2d):
        return
    x = spikes(4, *item(layer), seed=3).float()
    out = layer.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(out, filled(layer)(x), rtol=1e-4, atol=1e-5)


# -- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_e", [1, 3, 4, 7, 10, 16])
@pytest.mark.parametrize("ratio", [1, 4, 100])
def test_number_of_inhibitory_units_is_floored_and_at_least_one(n_e: int, ratio: int) -> None:
    n_i = max(1, n_e // ratio)
    for layer in (EILinear(5, n_e, ei_ratio=ratio), EIOutput(5, n_e, ei_ratio=ratio)):
        assert layer.weight_ie.shape == (n_i, 5)
        assert layer.weight_ei.shape == (n_e, n_i)
        assert layer.weight_ee.shape == (n_e, 5)
    conv = EIConv2d(2, n_e, (1, 3), ei_ratio=ratio)
    assert conv.weight_ie.shape == (n_i, 2, 1, 3)
    assert conv.gain_i.shape == (n_i,)
    assert conv.gain_e.shape == conv.bias.shape == (n_e,)


def test_default_ratio_is_four_and_fan_in_counts_a_group() -> None:
    assert EILinear(24, 16).weight_ie.shape[0] == 4
    assert EILinear(24, 16).fan_in == EIOutput(24, 16).fan_in == 24
    assert EIConv2d(6, 8, (3, 2), groups=2).fan_in == 3 * 3 * 2


def test_output_layer_has_neither_gains_nor_bias() -> None:
    assert set(EIOutput(4, 8).state_dict()) == {"weight_ee", "weight_ie", "weight_ei"}
    full = {"weight_ee", "weight_ie", "weight_ei", "gain_i", "gain_e", "bias"}
    assert set(EILinear(4, 8).state_dict()) == set(EIConv2d(4, 8, 1).state_dict()) == full


def test_time_and_batch_are_samples(layer: EIModule) -> None:
    x = spikes(3, 4, *item(layer)).float()
    out = layer(x)
    assert out.shape[:2] == (3, 4)
    assert torch.equal(out, layer(x.flatten(0, 1)).unflatten(0, (3, 4)))


def test_one_sample_does_not_see_the_others(layer: EIModule) -> None:
    x = spikes(4, *item(layer), seed=5).double()
    layer.double()
    out = layer(x)
    changed = x.clone()
    changed[2] = spikes(*item(layer), seed=6, values=3)
    again = layer(changed)
    others = [0, 1, 3]
    torch.testing.assert_close(again[others], out[others], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(again[2], out[2])


@pytest.mark.parametrize("lead", [(0,), (0, 3), (3, 0)])
def test_no_samples(layer: EIModule, lead: tuple[int, ...]) -> None:
    x = torch.zeros(*lead, *item(layer), requires_grad=True)
    out = layer(x)
    assert out.shape[: len(lead)] == lead
    assert out.shape[len(lead)] == 8
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert all(not p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_values_show_in_their_sample_only(layer: EIModule, bad: float) -> None:
    x = spikes(4, *item(layer), rate=0.5, seed=7).float()
    clean = layer(x)
    x[2, 0] = bad
    out = layer(x)
    others = [0, 1, 3]
    torch.testing.assert_close(out[others], clean[others])
    if isinstance(layer, EIConv2d):
        assert out[2].isnan().any()
    elif isinstance(layer, EIOutput):
        assert not out[2].isfinite().any()
    else:
        assert out[2].isnan().all()


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4, 5, 6])
def test_wrong_rank(layer: EIModule, rank: int) -> None:
    wanted = item(layer)
    if rank in (len(wanted) + 1, len(wanted) + 2):
        return
    x = torch.zeros((2,) * max(0, rank - len(wanted)) + wanted[:rank])
    assert x.dim() == rank
    expected = (
        r"\[N, C, H, W\] or \[T, B, C, H, W\]" if len(wanted) == 3 else r"\[N, D\] or \[T, B, D\]"
    )
    with pytest.raises(ValueError, match=rf"{type(layer).__name__} takes {expected} .*got shape"):
        layer(x)


def test_wrong_number_of_features(layer: EIModule) -> None:
    shape = (item(layer)[0] + 1, *item(layer)[1:])
    with pytest.raises(ValueError, match=rf"= {item(layer)[0]}, got shape \(2, {shape[0]}"):
        layer(torch.zeros(2, *shape))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8], ids=str)
def test_wrong_dtype(layer: EIModule, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=rf"float32 parameters, its input is {dtype}"):
        layer(torch.zeros(2, *item(layer), dtype=dtype))


def test_wrong_device(layer: EIModule) -> None:
    with pytest.raises(ValueError, match="is on cpu, its input on meta"):
        layer(torch.zeros(2, *item(layer), device="meta"))


@pytest.mark.parametrize("name", MAKERS)
def test_without_weights_it_says_what_to_call(name: str) -> None:
    layer = MAKERS[name]()
    with pytest.raises(RuntimeError, match=r"no weights yet.*eisnn\.ei_init_\(model, batch\)"):
        layer(torch.zeros(2, *item(layer)))


def test_an_input_smaller_than_the_kernel_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        filled(EIConv2d(1, 4, 5))(torch.ones(1, 1, 3, 3))


@pytest.mark.parametrize("ratio", [0, -1, 2.5, "4", None])
def test_bad_ratio(ratio: Any) -> None:
    for make in (EILinear, EIOutput, lambda i, o, **k: EIConv2d(i, o, 3, **k)):
        with pytest.raises(ValueError, match=r"ei_ratio .* got"):
            make(4, 8, ei_ratio=ratio)


@pytest.mark.parametrize("make", [EILinear, EIOutput, lambda i, o: EIConv2d(i, o, 3)])
@pytest.mark.parametrize("sizes", [(0, 4), (-1, 4), (4, 0), (4, -2)])
def test_bad_sizes(make: Callable[..., nn.Module], sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"positive.*got {min(sizes)}"):
        make(*sizes)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [((4, 8), 3), ((4, 8), 0), ((4, 8), -1), ((3, 8), 2), ((4, 6), 4), ((4, 8), 4)],
)
def test_groups_must_divide_all_channels(channels: tuple[int, int], groups: int) -> None:
    with pytest.raises(ValueError, match=f"groups must divide .*got groups={groups}"):
        EIConv2d(*channels, 3, groups=groups)  # (4, 8), 4: only 2 inhibitory channels


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 0},
        {"kernel_size": (3, 0)},
        {"kernel_size": (3, 3, 3)},
        {"kernel_size": 3, "stride": 0},
        {"kernel_size": 3, "padding": -1},
        {"kernel_size": 3, "dilation": 0},
        {"kernel_size": (3, 1.5)},
    ],
)
def test_bad_geometry(options: dict[str, Any]) -> None:
    name = list(options)[-1]
    with pytest.raises(ValueError, match=f"{name} must be a whole number or two of them"):
        EIConv2d(4, 8, **options)


# -- what travels with a layer --------------------------------------------------------------------


def test_forward_changes_nothing(layer: EIModule) -> None:
    with torch.no_grad():
        layer.weight_ei[0, 0] = -1.0  # the projection is the optimiser's business
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    state = torch.get_rng_state()
    layer(spikes(3, *item(layer)).float())
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("assign", [False, True])
def test_loading_a_state_marks_the_layer(layer: EIModule, assign: bool) -> None:
    for name, make in MAKERS.items():
        fresh = make()
        if fresh.state_dict().keys() == layer.state_dict().keys() and item(fresh) == item(layer):
            before = torch.get_rng_state()
            fresh.load_state_dict(layer.state_dict(), strict=True, assign=assign)
            assert torch.equal(torch.get_rng_state(), before)
            x = spikes(2, *item(layer)).float()
            assert torch.equal(fresh(x), layer(x))
            fresh.load_state_dict(make().state_dict())
            assert not fresh.initialised, name
            return
    pytest.fail("no maker of this layer")


def test_a_layer_built_on_meta_gets_its_weights_by_assignment(layer: EIModule) -> None:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh = EIOutput(6, 8) if isinstance(layer, EIOutput) else EILinear(6, 8)
    assert not fresh.initialised
    state = filled(type(fresh)(6, 8)).state_dict()
    fresh.load_state_dict(state, assign=True)
    assert fresh.initialised
    assert fresh(torch.ones(2, 6)).isfinite().all()


def test_repr_names_the_sizes() -> None:
    assert repr(EILinear(6, 8)) == "EILinear(6, 8, inhibitory=2)"
    text = repr(EIConv2d(2, 8, 3, padding=1))
    assert text.startswith("EIConv2d(2, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)")
