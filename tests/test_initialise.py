"""E-I Init: theory, errors that leave the model alone, and a mark that travels."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import eisnn
from circuits import filled, spikes
from eisnn.functional import input_moments, weight_scale
from eisnn.nn import LIF, EIConv2d, EILinear, EIModule, EIOutput


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k].nan_to_num(-1.0), b[k].nan_to_num(-1.0)) for k in a
    )


def network() -> nn.Sequential:
    return nn.Sequential(
        EIConv2d(2, 8, 3), LIF(), nn.Flatten(2), EILinear(32, 12), LIF(), EIOutput(12, 5)
    )


def batch() -> Tensor:
    return spikes(3, 8, 2, 4, 4, rate=0.5, seed=1).float()  # [T, B, C, H, W]


# -- theory -------------------------------------------------------------------------------------


# With q and v the input's moments, sums over the fan-in d and E[w^2] = 2 E[w]^2 give
#
#     Var[I_EE] = v                 E[I_div] = sqrt(v)                 E[I_EE] = E[I_sub]
#     Var[I_EE - I_sub] = v q / (q + v) (1 + 1/n_I)
#
# over samples and draws of weights. The divisor is thus the standard deviation of the
# excitatory current. Subtraction also takes away the fluctuation that all neurons share, so
# the integrated current has a variance of q / (q + v), between 1/2 and 1: 1 / (2 - p) for
# spikes. What remains on top is O(1 / n_I), and O((1 - p) / (d p)) as the divisor fluctuates.
#
# Sampling error: a unit's mean scatters over units with the part v^2 / (q (q + v)) of the
# variance, < 0.9, shared over a layer through its n_I units. Over 4 layers of 400 and 100 units
# the standard error of the mean is below sqrt(0.9 (1/1600 + 1/400)) = 0.053; three of it are
# allowed. The variance has a relative one of about sqrt(2 / 1600) = 0.035.


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("d", [64, 256, 1024])
def test_integrated_current_of_spikes_starts_near_zero_mean_and_unit_variance(
    p: float, d: int
) -> None:
    generator = torch.Generator().manual_seed(d)
    integrated, excitatory, divisive = [], [], []
    for _ in range(4):
        x = (torch.rand(500, d, generator=generator) < p).float()
        layer = EILinear(d, 400)
        eisnn.ei_init_(layer, x, generator=generator)
        assert layer.gain_i[0].item() == pytest.approx(math.sqrt((2 - p) / (d * p)), rel=0.05)
        integrated.append(layer(x).detach())
        currents = layer.currents(x)
        excitatory.append(currents.i_ee.detach())
        divisive.append(currents.i_div.detach())
    i_int, i_ee, i_div = (torch.stack(c) for c in (integrated, excitatory, divisive))
    assert abs(i_int.mean().item()) < 0.16
    fluctuation = (1 - p) / (d * p)
    assert 0.5 < i_int.var().item() < 1.1
    assert i_int.var().item() == pytest.approx(1 / (2 - p), rel=0.105 + 1.5 * fluctuation)
    assert i_ee.var().item() == pytest.approx(p * (1 - p), rel=0.105)
    assert i_div.mean().item() == pytest.approx(i_ee.std().item(), rel=0.05)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_integrated_current_of_a_convolution_too(p: float) -> None:
    generator = torch.Generator().manual_seed(5)
    integrated = []
    for _ in range(3):
        x = (torch.rand(32, 32, 6, 6, generator=generator) < p).float()
        layer = EIConv2d(32, 400, 3)  # no padding: its zeros are not in the theory
        eisnn.ei_init_(layer, x, generator=generator)
        integrated.append(layer(x).detach())
    i_int = torch.stack(integrated)
    assert abs(i_int.mean().item()) < 0.16
    assert i_int.var().item() == pytest.approx(1 / (2 - p), rel=0.15)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_balance_and_the_gain_control_that_the_theory_promises(groups: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x = (torch.rand(128, 32, 6, 6, generator=generator) < 0.3).double()
    layer = EIConv2d(32, 256, 3, groups=groups).double()
    eisnn.ei_init_(layer, x, generator=generator)
    c = layer.currents(x)
    assert c.i_ee.mean().item() == pytest.approx(c.i_sub.mean().item(), rel=0.02)
    assert c.i_div.mean().item() == pytest.approx(c.i_ee.std().item(), rel=0.05)


# -- what it does -------------------------------------------------------------------------------


def test_each_layer_is_initialised_from_what_reaches_it() -> None:
    model = network()
    returned = eisnn.ei_init_(model, batch(), generator=torch.Generator().manual_seed(1))
    assert returned is model
    assert eisnn.is_initialised(model)
    seen: dict[EIModule, Tensor] = {}
    layers = [m for m in model.modules() if isinstance(m, EIModule)]
    for layer in layers:
        layer.register_forward_pre_hook(lambda m, args: seen.update({m: args[0]}))
    model(batch())
    generator = torch.Generator().manual_seed(1)
    for layer in layers:
        moments = input_moments(seen[layer].flatten(0, 1))
        scale = weight_scale(moments, layer.fan_in)
        for weight in (layer.weight_ee, layer.weight_ie):  # in execution order, E before I
            drawn = torch.empty(weight.shape).exponential_(generator=generator) * scale
            torch.testing.assert_close(weight.detach(), drawn)
        assert torch.equal(
            layer.weight_ei, torch.full_like(layer.weight_ei, 1 / len(layer.weight_ie))
        )
        if not isinstance(layer, EIOutput):
            m, q, v = moments
            gain = math.sqrt(q + v) / (math.sqrt(layer.fan_in) * m)
            torch.testing.assert_close(layer.gain_i, torch.full_like(layer.gain_i, gain))
            assert torch.equal(layer.gain_e, torch.ones_like(layer.gain_e))
            assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


def test_initialising_again_starts_afresh() -> None:
    model = network()
    eisnn.ei_init_(model, batch(), generator=torch.Generator().manual_seed(1))
    first = snapshot(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    eisnn.ei_init_(model, batch(), generator=torch.Generator().manual_seed(1))
    assert same(snapshot(model), first)


@pytest.mark.parametrize("shape", [(16, 6), (4, 4, 6)], ids=["N", "T B"])
def test_a_single_layer_is_a_model(shape: tuple[int, ...]) -> None:
    layer = eisnn.ei_init_(EILinear(6, 8), torch.rand(shape))
    assert layer(torch.rand(shape)).isfinite().all()


def test_a_layer_used_twice_is_initialised_at_its_first_use() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = EILinear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x).relu())

    model = Twice()
    x = torch.rand(32, 6)
    eisnn.ei_init_(model, x, generator=torch.Generator().manual_seed(0))
    alone = eisnn.ei_init_(EILinear(6, 6), x, generator=torch.Generator().manual_seed(0))
    assert same(snapshot(model.layer), snapshot(alone))


def test_a_model_without_ei_layers_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = snapshot(model)
    eisnn.ei_init_(model, torch.rand(8, 4))
    assert same(snapshot(model), before)
    assert eisnn.is_initialised(model)


def test_batch_statistics_of_other_layers_do_not_move() -> None:
    model = nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(), EILinear(6, 8))
    before = snapshot(model[0])
    eisnn.ei_init_(model, torch.rand(16, 6))
    assert same(snapshot(model[0]), before)


def test_modes_and_hooks_are_restored() -> None:
    model = network()
    model.eval()
    model[1].train()
    modes = [m.training for m in model.modules()]
    eisnn.ei_init_(model, batch())
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad and p.grad is None and p.is_leaf for p in model.parameters())
    model[0].initialised = True
    with pytest.raises(ValueError, match="silent"):
        eisnn.ei_init_(model, torch.zeros(3, 8, 2, 4, 4))
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_double_models_are_drawn_in_double() -> None:
    layer = eisnn.ei_init_(EILinear(6, 8).double(), torch.rand(32, 6, dtype=torch.float64))
    assert not torch.equal(layer.weight_ee.float().double(), layer.weight_ee)


# -- randomness ---------------------------------------------------------------------------------


def test_one_seed_one_network_and_the_global_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    models = []
    for seed in (1, 1, 2):
        generator = torch.Generator().manual_seed(seed)
        models.append(snapshot(eisnn.ei_init_(network(), batch(), generator=generator)))
    assert same(models[0], models[1])
    assert not same(models[0], models[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_the_global_one_is_used() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(snapshot(eisnn.ei_init_(network(), batch())))
    assert same(*models)


def test_building_a_network_draws_nothing() -> None:
    before = torch.get_rng_state()
    network()
    assert torch.equal(torch.get_rng_state(), before)


# -- errors -------------------------------------------------------------------------------------


def with_value(value: float) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x.view(-1)[3] = value
        return x

    return change


BAD_BATCHES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "silent": (torch.zeros_like, "silent"),
    "constant": (torch.ones_like, "constant"),
    "repeated": (lambda x: x[:1, :1].expand_as(x), "constant"),
    "negative": (with_value(-0.1), r">= 0.*-0\.1 to"),
    "nan": (with_value(math.nan), "NaN or infinite"),
    "inf": (with_value(math.inf), "NaN or infinite"),
    "one sample": (lambda x: x[:1, :1], "at least 2 samples"),
    "no sample": (lambda x: x[:, :0], "at least 2 samples"),
}


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "initialised"])
@pytest.mark.parametrize("name", BAD_BATCHES)
def test_a_bad_batch_names_the_layer_and_leaves_the_model_as_it_was(name: str, fresh: bool) -> None:
    model = network()
    if not fresh:
        eisnn.ei_init_(model, batch())
    before = snapshot(model)
    change, message = BAD_BATCHES[name]
    with pytest.raises(ValueError, match=rf"E-I Init of layer '0' \(EIConv2d.*{message}"):
        eisnn.ei_init_(model, change(batch()))
    assert same(snapshot(model), before)
    assert eisnn.is_initialised(model) is not fresh
    assert [m.initialised for m in model.modules() if isinstance(m, EIModule)] == [not fresh] * 3


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "initialised"])
def test_a_failure_in_a_later_layer_undoes_the_earlier_ones(fresh: bool) -> None:
    model = nn.Sequential()
    model.add_module("first", EILinear(6, 8))
    model.add_module("spikes", LIF(v_threshold=1e6))  # nobody ever fires
    model.add_module("second", EIOutput(8, 4))
    x = spikes(3, 8, 6).float()
    if not fresh:
        for layer in (model.first, model.second):
            filled(layer)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"E-I Init of layer 'second'.*silent.*does not spike"):
        eisnn.ei_init_(model, x)
    assert same(snapshot(model), before)
    assert eisnn.is_initialised(model) is not fresh


def test_a_layer_alone_needs_no_name() -> None:
    with pytest.raises(ValueError, match=r"E-I Init of the layer \(EILinear\(6, 8"):
        eisnn.ei_init_(EILinear(6, 8), torch.zeros(4, 6))


def test_a_layer_that_is_not_reached_is_an_error_and_undoes_the_others() -> None:
    model = network()
    model.register_module("spare", EILinear(3, 4))
    model.forward = lambda x: nn.Sequential.forward(model[:6], x)  # type: ignore[method-assign]
    before = snapshot(model)
    with pytest.raises(RuntimeError, match=r"did not reach 'spare'"):
        eisnn.ei_init_(model, batch())
    assert same(snapshot(model), before)
    assert not eisnn.is_initialised(model)


def test_any_error_of_the_model_leaves_it_as_it_was() -> None:
    model = network()
    model.append(nn.Linear(99, 2))
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        eisnn.ei_init_(model, batch())
    assert same(snapshot(model), before)
    assert not eisnn.is_initialised(model)


def test_a_wrong_shape_is_reported_before_anything_is_drawn() -> None:
    model = network()
    with pytest.raises(ValueError, match="EIConv2d takes"):
        eisnn.ei_init_(model, torch.rand(3, 8, 4))
    assert not eisnn.is_initialised(model)


# -- the mark -----------------------------------------------------------------------------------


def initialised() -> nn.Sequential:
    return eisnn.ei_init_(network(), batch())


CARRIERS: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "to": lambda m: m.to(torch.float64).float(),
    "double": lambda m: m.double().float(),
    "cpu": lambda m: m.cpu(),
}


@pytest.mark.parametrize("name", CARRIERS)
def test_the_mark_goes_where_the_values_go(name: str) -> None:
    model = initialised()
    expected = model(batch())
    carried = CARRIERS[name](model)
    assert eisnn.is_initialised(carried)
    assert torch.equal(carried(batch()), expected)
    fresh = CARRIERS[name](network())
    assert not eisnn.is_initialised(fresh)
    with pytest.raises(RuntimeError, match="ei_init_"):
        fresh(batch())


@pytest.mark.parametrize("assign", [False, True])
def test_the_mark_survives_a_state_dict(assign: bool) -> None:
    source = initialised()
    state = snapshot(source)
    fresh = network()
    before = torch.get_rng_state()
    result = fresh.load_state_dict(state, strict=True, assign=assign)
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert torch.equal(torch.get_rng_state(), before)
    assert eisnn.is_initialised(fresh)
    assert torch.equal(fresh(batch()), source(batch()))


def test_an_uninitialised_state_does_not_count() -> None:
    fresh = network()
    fresh.load_state_dict(network().state_dict())
    assert not eisnn.is_initialised(fresh)
    model = initialised()
    model.load_state_dict(network().state_dict())
    assert not eisnn.is_initialised(model)
    with pytest.raises(RuntimeError, match="ei_init_"):
        model(batch())


def test_part_of_a_state_initialises_part_of_the_model() -> None:
    fresh = network()
    state = {k: v for k, v in initialised().state_dict().items() if k.startswith("0.")}
    fresh.load_state_dict(state, strict=False)
    assert fresh[0].initialised
    assert not fresh[3].initialised
    assert not eisnn.is_initialised(fresh)


def test_one_uninitialised_layer_is_enough() -> None:
    model = initialised()
    model.append(EILinear(5, 4))
    assert not eisnn.is_initialised(model)


def test_weights_written_by_hand_are_marked_by_hand() -> None:
    layer = EIOutput(3, 4)
    with torch.no_grad():
        layer.weight_ee.fill_(1)
        layer.weight_ie.fill_(1)
    assert layer.mark_initialised()
    assert layer(torch.ones(2, 3)).isfinite().all()


# -- naive schemes, to compare with ----------------------------------------------------------------


def drawn(scheme: str, x: Tensor, **arguments: float) -> EILinear:
    layer = EILinear(50, 400)
    generator = torch.Generator().manual_seed(1)
    eisnn.ei_init_(layer, x, generator=generator, scheme=scheme, **arguments)
    return layer


def test_kaiming_is_the_absolute_value_of_normal_weights() -> None:
    layer = drawn("kaiming", torch.rand(8, 50))
    for weight in (layer.weight_ee, layer.weight_ie):
        assert bool((weight > 0).all())
        assert weight.square().mean().sqrt().item() == pytest.approx(math.sqrt(2 / 50), rel=0.03)
        assert weight.mean().item() == pytest.approx(math.sqrt(2 / 50 * 2 / math.pi), rel=0.03)
    assert bool((layer.weight_ei == 1 / 100).all())
    assert bool((layer.gain_i == 1).all())
    assert bool((layer.gain_e == 1).all())
    assert bool((layer.bias == 0).all())
    assert layer.initialised


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_fixed_p_is_what_ei_init_does_with_spikes_of_that_probability(p: float) -> None:
    x = (torch.rand(4000, 50, generator=torch.Generator().manual_seed(2)) < p).float()
    measured, assumed = drawn("ei", x), drawn("fixed_p", torch.rand(8, 50), p=p)
    for (name, a), b in zip(measured.named_parameters(), assumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.0, msg=name)
    assert assumed.gain_i[0].item() == pytest.approx(math.sqrt((2 - p) / (50 * p)))


@pytest.mark.parametrize("scheme", ["kaiming", "fixed_p"])
def test_naive_schemes_do_not_look_at_the_input(scheme: str) -> None:
    one, other = drawn(scheme, torch.rand(8, 50)), drawn(scheme, torch.zeros(8, 50))
    assert same(one.state_dict(), other.state_dict())


def test_the_default_scheme_is_ei_init() -> None:
    x = torch.rand(8, 50)
    layer = EILinear(50, 400)
    eisnn.ei_init_(layer, x, generator=torch.Generator().manual_seed(1))
    assert same(layer.state_dict(), drawn("ei", x).state_dict())
    assert not same(layer.state_dict(), drawn("fixed_p", x).state_dict())


def test_unknown_schemes_and_probabilities_are_refused() -> None:
    x = torch.rand(8, 50)
    with pytest.raises(ValueError, match="scheme must be one of ei, fixed_p, kaiming, got 'he'"):
        drawn("he", x)
    for p in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=rf"0 < p < 1, got {p}"):
            drawn("fixed_p", x, p=p)
