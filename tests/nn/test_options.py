"""The research switches: each against its own definition, and the default against nothing new."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eisnn
from circuits import filled, spikes
from eisnn.nn import LIF, CircuitOptions, EIConv2d, EILinear, EIModule, EIOutput, Spiking
from eisnn.nn.constraint import nonnegative_parameters

MAKERS: dict[str, Callable[[], EIModule]] = {
    "linear": lambda: EILinear(6, 8),
    "output": lambda: EIOutput(6, 8),
    "conv": lambda: EIConv2d(2, 8, 3, padding=1),
    "grouped": lambda: EIConv2d(4, 8, 3, stride=2, groups=2),
}
OPTIONS: dict[str, CircuitOptions] = {
    "default": CircuitOptions(),
    "fixed": CircuitOptions(stabilisation="fixed", epsilon=0.1),
    "none": CircuitOptions(stabilisation="none"),
    "no STE": CircuitOptions(straight_through=False),
    "no scaling": CircuitOptions(scale_gradient=False),
    "subtractive": CircuitOptions(inhibition="subtractive"),
    "divisive": CircuitOptions(inhibition="divisive"),
    "free signs": CircuitOptions(dale=False),
    "fixed gains": CircuitOptions(learn_gains=False),
    "free signs, no STE": CircuitOptions(dale=False, straight_through=False),
    "free signs, fixed": CircuitOptions(dale=False, stabilisation="fixed", epsilon=50.0),
    "all": CircuitOptions("fixed", 0.2, False, False, "divisive", False, False),
}
FUSED = {"default", "no scaling", "fixed gains"}


def layer_with(maker: str, options: CircuitOptions, sparsity: float = 0.5) -> EIModule:
    layer = filled(MAKERS[maker](), sparsity=sparsity).double()
    if not options.dale:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in layer.parameters():
                signs = torch.rand(parameter.shape, generator=generator) < 0.7
                parameter.mul_(torch.where(signs, 1.0, -1.0))
    layer.options = options
    return layer


def an_input(maker: str, *lead: int, rate: float = 0.3) -> Tensor:
    item = {"linear": (6,), "output": (6,), "conv": (2, 4, 4), "grouped": (4, 5, 5)}[maker]
    return spikes(*lead, *item, rate=rate, values=2)


# -- the definition ------------------------------------------------------------------------------


def reference(layer: EIModule, x: Tensor, options: CircuitOptions) -> dict[str, Tensor]:
    """The equations, one after the other, with the derivative that the options ask for.

    Nothing of the package: no folding, patches instead of convolutions, and a loop over samples
    for the stabilisation. ``x`` is ``[N, D]`` or ``[N, C, H, W]``.
    """
    p = dict(layer.named_parameters())
    if isinstance(layer, EIConv2d):
        patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        patches = patches.unflatten(1, (layer.groups, -1))  # [N, groups, D, positions]
        size = [
            (n + 2 * pad - k) // step + 1
            for n, pad, k, step in zip(
                x.shape[-2:], layer.padding, layer.kernel_size, layer.stride, strict=True
            )
        ]
    else:
        patches, size = x[:, None, :, None], []

    def product(weight: Tensor) -> Tensor:
        w = weight.flatten(1).unflatten(0, (patches.shape[1], -1))  # [groups, units, D]
        return torch.einsum("gud,ngdp->ngup", w, patches).flatten(1, 2)  # [N, units, positions]

    i_ee, i_ie = product(p["weight_ee"]), product(p["weight_ie"])
    s_i = i_ie if options.dale else i_ie * (i_ie >= 0)
    i_sub = torch.einsum("ei,nip->nep", p["weight_ei"], s_i)
    output = isinstance(layer, EIOutput)
    balanced = i_ee if options.inhibition == "divisive" and not output else i_ee - i_sub
    out = {"balanced": balanced}
    if not output:
        i_div = torch.einsum("ei,i,nip->nep", p["weight_ei"], p["gain_i"], s_i)
        divisor = torch.stack([stabilised(sample, options) for sample in i_div])
        if options.inhibition == "subtractive":
            divisor = torch.ones_like(i_div)
        quotient = balanced / divisor
        i_int = p["gain_e"][:, None] * quotient + p["bias"][:, None]
        out |= {"divisor": divisor, "i_int": i_int}
    return {name: value.reshape(*value.shape[:2], *size) for name, value in out.items()}


def stabilised(i_div: Tensor, options: CircuitOptions) -> Tensor:
    """One sample ``[E, positions]``, entry by entry."""
    if options.stabilisation != "adaptive":
        return i_div + (options.epsilon if options.stabilisation == "fixed" else 0)
    entries = list(i_div.flatten())
    positive = [entry for entry in entries if entry > 0]
    least = min((entry.item() for entry in positive), default=math.inf)
    ties = [entry for entry in positive if entry.item() == least]
    smallest = sum(ties) / len(ties) if ties else torch.tensor(math.inf)  # equal parts to all
    after = []
    for entry in entries:
        if entry > 0:
            after.append(entry)
        elif options.straight_through:  # a constant on top: the derivative stays one
            after.append(entry + (least - entry.item()))
        else:
            after.append(torch.as_tensor(smallest, dtype=entry.dtype))
    return torch.stack(after).view_as(i_div)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("maker", MAKERS)
def test_values_and_gradients_are_those_of_the_definition(maker: str, name: str) -> None:
    options = OPTIONS[name]
    layer = layer_with(maker, options, sparsity=0.0 if name == "none" else 0.5)
    x = an_input(maker, 5, rate=1.0 if name == "none" else 0.3).requires_grad_()
    expected = reference(layer, x, options)["balanced" if maker == "output" else "i_int"]
    assert bool(expected.isfinite().all())
    upstream = torch.randn(expected.shape, dtype=x.dtype)
    learned = {n: p for n, p in layer.named_parameters() if p.requires_grad}
    inputs = [*learned.values(), x]
    grads = dict(zip([*learned, "x"], torch.autograd.grad(expected, inputs, upstream), strict=True))
    if options.scale_gradient:
        grads["weight_ei"] = grads["weight_ei"] / layer.fan_in

    out = layer(x)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    out.backward(upstream)
    for parameter, grad in grads.items():
        value = x.grad if parameter == "x" else learned[parameter].grad
        torch.testing.assert_close(
            value, grad, rtol=1e-8, atol=1e-8, msg=lambda m, p=parameter: p + m
        )
    for parameter, value in layer.named_parameters():
        assert (value.grad is None) == (parameter not in learned)


def test_the_cases_above_tell_the_options_apart() -> None:
    """Were two options the same on these inputs, the test above would prove nothing."""
    layer, x = layer_with("linear", CircuitOptions(), sparsity=0.5), an_input("linear", 5)
    signed = layer_with("linear", CircuitOptions(dale=False))
    assert bool((layer.currents(x).i_div == 0).any()), "no zero to stabilise"
    assert bool((signed.currents(x).i_div < 0).any()), "no negative divisor"
    assert bool((signed.currents(x).i_ie < 0).any()), "nothing to rectify"
    upstream = torch.randn(5, 8, dtype=x.dtype)

    def result(options: CircuitOptions) -> Tensor:
        layer.options = options
        out = layer(x)
        (grad,) = torch.autograd.grad(out, layer.weight_ei, upstream)
        return torch.cat([out.flatten(), grad.flatten()]).detach()

    names = ("default", "fixed", "no STE", "no scaling", "subtractive", "divisive")
    results = [result(OPTIONS[name]) for name in names]
    for i, one in enumerate(results):
        for other in results[:i]:
            assert not torch.allclose(one, other)


def test_without_straight_through_gradients_are_derivatives_at_replaced_entries_too() -> None:
    """By differences, away from ties: what no automatic derivative can get wrong."""
    layer = layer_with("linear", CircuitOptions(straight_through=False, scale_gradient=False))
    x = spikes(3, 6, seed=4) * torch.linspace(0.5, 1.5, 18, dtype=torch.float64).view(3, 6)
    assert bool((layer.currents(x).i_div == 0).any())
    upstream = torch.randn(3, 8, dtype=x.dtype)
    layer(x).backward(upstream)
    step = 1e-6
    with torch.no_grad():
        for name in ("gain_i", "weight_ee", "weight_ie"):
            parameter = getattr(layer, name)
            by_differences = torch.zeros_like(parameter)
            for index in (parameter > 0).nonzero():  # a step from zero would unmask a zero
                at = tuple(index.tolist())
                ends = []
                for sign in (1, -1):
                    parameter[at] += sign * step
                    ends.append((layer(x) * upstream).sum())
                    parameter[at] -= sign * step
                by_differences[at] = (ends[0] - ends[1]) / (2 * step)
            mask = parameter > 0
            torch.testing.assert_close(
                parameter.grad[mask], by_differences[mask], rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("maker", [m for m in MAKERS if m != "output"])
def test_currents_agree_with_forward(maker: str, name: str) -> None:
    layer = layer_with(maker, OPTIONS[name], sparsity=0.0)
    x = an_input(maker, 2, 4, rate=1.0)
    c = layer.currents(x)
    torch.testing.assert_close(c.i_int, layer(x).flatten(0, 1), rtol=1e-9, atol=1e-9)
    expected = reference(layer, x.flatten(0, 1), OPTIONS[name])
    torch.testing.assert_close(c.divisor, expected["divisor"], rtol=1e-9, atol=1e-9)
    per_unit = (-1, *[1] * (c.i_ee.dim() - 2))
    gain_e, bias = layer.gain_e.reshape(per_unit), layer.bias.reshape(per_unit)
    torch.testing.assert_close(c.i_int, gain_e * (c.i_ee - c.i_sub) / c.divisor + bias)
    assert bool((c.i_sub == 0).all()) == (OPTIONS[name].inhibition == "divisive")
    assert bool((c.i_div == 0).all()) == (OPTIONS[name].inhibition == "subtractive")


# -- fused or not --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("maker", [m for m in MAKERS if m != "output"])
def test_spikes_are_fused_where_possible_and_the_same_everywhere(
    maker: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eisnn.nn import circuit

    calls: list[int] = []
    fused = circuit.spiking_circuit
    monkeypatch.setattr(circuit, "spiking_circuit", lambda *a: calls.append(1) or fused(*a))
    layer = layer_with(maker, OPTIONS[name], sparsity=0.0).float()
    lif = LIF()
    x = an_input(maker, 3, 4, rate=1.0).float()
    upstream = torch.rand_like(lif(layer(x)))

    def run(forward: Callable[[Tensor], Tensor]) -> list[Tensor]:
        layer.zero_grad()
        out = forward(x)
        out.backward(upstream)
        return [out, *(p.grad for p in layer.parameters() if p.grad is not None)]

    together = run(Spiking(layer, lif))
    assert bool(calls) == (name in FUSED and maker != "grouped")
    for a, b in zip(together, run(lambda x: lif(layer(x))), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")  # torch's own compiler
@pytest.mark.parametrize("name", [n for n in OPTIONS if n not in FUSED])
def test_a_layer_with_options_compiles_without_a_break(name: str) -> None:
    layer = layer_with("linear", OPTIONS[name], sparsity=0.0)
    x = an_input("linear", 4, rate=1.0)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize("name", ["fixed", "subtractive", "divisive", "free signs"])
def test_under_autocast_the_currents_are_those_of_float32(name: str) -> None:
    layer = EILinear(4000, 8)
    x = spikes(16, 4000, rate=0.5).float()
    eisnn.ei_init_(layer, x)
    layer.options = OPTIONS[name]
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.float32
    # Each product is right to 2 ** -9. A difference of two of them would not be: they are 60
    # times as large as what remains.
    assert (low - exact).abs().mean() < 0.01 * exact.abs().mean()


# -- silence -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
def test_a_silent_sample_gives_the_bias_or_nan(name: str) -> None:
    layer = layer_with("linear", OPTIONS[name])
    x = an_input("linear", 3)
    x[1] = 0
    out = layer(x)[1]
    if name == "none":  # zero by zero: what the stabilisation is for
        assert bool(out.isnan().all())
    else:
        torch.testing.assert_close(out, layer.bias)


# -- Dale's law ----------------------------------------------------------------------------------


def trained(model: nn.Module, x: Tensor, **options: Any) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0, **options)
    eisnn.constrain(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    return model


def test_without_dales_law_nothing_is_projected_and_with_it_all_is() -> None:
    x = torch.rand(8, 6)
    for dale in (True, False):
        layer = EILinear(6, 8)
        eisnn.ei_init_(layer, x, generator=torch.Generator().manual_seed(0))
        first = {name: value.clone() for name, value in layer.state_dict().items()}
        layer.options = CircuitOptions(dale=dale)
        assert all(torch.equal(v, first[n]) for n, v in layer.state_dict().items())
        assert len(list(nonnegative_parameters(layer))) == (5 if dale else 0)
        trained(layer, x)
        negative = any((p < 0).any() for n, p in layer.named_parameters() if n != "bias")
        assert negative is not dale
    eisnn.project_(layer)
    assert bool((layer.weight_ee < 0).any())
    layer.options = CircuitOptions()
    eisnn.project_(layer)
    assert all((p >= 0).all() for n, p in layer.named_parameters() if n != "bias")


# -- gains ---------------------------------------------------------------------------------------


def test_fixed_gains_keep_their_values_and_the_rest_learns() -> None:
    layer = EILinear(6, 8)
    layer.options = CircuitOptions(learn_gains=False)
    x = torch.rand(8, 6)
    eisnn.ei_init_(layer, x)
    before = copy.deepcopy(layer.state_dict())
    trained(layer, x, momentum=0.9, weight_decay=0.1)
    same = {name for name, value in layer.state_dict().items() if torch.equal(value, before[name])}
    assert same == {"gain_i", "gain_e"}


def test_what_does_not_learn_asks_for_no_gradient() -> None:
    def learning(layer: EIModule) -> set[str]:
        return {name for name, p in layer.named_parameters() if p.requires_grad}

    layer = EILinear(6, 8)
    every = learning(layer)
    layer.options = CircuitOptions(inhibition="subtractive")
    assert every - learning(layer) == {"gain_i"}
    layer.options = CircuitOptions(learn_gains=False)
    assert every - learning(layer) == {"gain_i", "gain_e"}
    layer.options = CircuitOptions()
    assert learning(layer) == every
    layer.gain_i.requires_grad_(False)  # by the user
    layer.options = CircuitOptions(dale=False)
    assert every - learning(layer) == {"gain_i"}
    output = EIOutput(6, 8)
    output.options = CircuitOptions(learn_gains=False)
    assert learning(output) == {"weight_ee", "weight_ie", "weight_ei"}


# -- where options come from and go to -----------------------------------------------------------


def test_options_of_a_whole_model() -> None:
    options = CircuitOptions(inhibition="divisive", dale=False)
    arguments: dict[str, Any] = {"num_classes": 3, "image_size": 4, "width": 0.02}
    plain = eisnn.create_model("mlp4", **arguments)
    model = eisnn.create_model("mlp4", **arguments, circuit=options)
    layers = [m for m in model.modules() if isinstance(m, EIModule)]
    assert len(layers) == 4
    assert all(layer.options == options for layer in layers)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert eisnn.nn.set_options(plain, options) is plain
    assert [m.options for m in plain.modules() if isinstance(m, EIModule)] == [options] * 4
    eisnn.create_model("mlp4", **arguments, norm="bn", circuit=options)  # it has no circuits


@pytest.mark.parametrize(
    "carry", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_copies_keep_the_options(carry: Callable[[EIModule], EIModule]) -> None:
    layer = layer_with("linear", OPTIONS["all"])
    carried = carry(layer)
    x = an_input("linear", 4, rate=1.0)
    assert carried.options == OPTIONS["all"]
    assert torch.equal(carried(x), layer(x))
    assert not carried.gain_i.requires_grad
    assert list(nonnegative_parameters(carried)) == []
    assert carried.state_dict().keys() == EILinear(6, 8).state_dict().keys()


def test_one_layer_can_differ_from_the_others() -> None:
    first, second = EILinear(6, 8), EILinear(8, 4)
    first.options = replace(first.options, scale_gradient=False)
    assert second.options == EIOutput(4, 2).options == CircuitOptions()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stabilisation": "off"}, "stabilisation must be one of adaptive, fixed, none, got 'off'"),
        ({"inhibition": None}, "inhibition must be one of both, subtractive, divisive, got None"),
        ({"dale": "no"}, "dale must be True or False, got 'no'"),
        ({"learn_gains": 1}, "learn_gains must be True or False, got 1"),
        ({"epsilon": 0.0}, r"epsilon must be a positive number, got 0\.0.*stabilisation='none'"),
        ({"epsilon": math.nan}, "epsilon must be a positive number, got nan"),
        ({"epsilon": math.inf}, "epsilon must be a positive number, got inf"),
        ({"epsilon": "1e-3"}, "epsilon must be a positive number, got '1e-3'"),
    ],
)
def test_bad_values_say_the_rule(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CircuitOptions(**values)


def test_options_must_be_circuit_options() -> None:
    with pytest.raises(ValueError, match=r"options must be CircuitOptions, got \{'dale'"):
        EILinear(6, 8).options = {"dale": False}  # type: ignore[assignment]
