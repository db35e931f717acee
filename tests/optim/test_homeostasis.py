"""Homeostasis: running statistics of earlier steps, which are nothing but a gain and a bias."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import eisnn
from circuits import filled, spikes
from eisnn.nn import LIF, EIConv2d, EILinear, EIModule, Spiking
from eisnn.optim import absorb_homeostasis_, add_homeostasis_, homeostasis
from processes import leave

T, B = 3, 6

LAYERS: dict[str, Callable[[], tuple[EIModule, Tensor]]] = {
    "linear": lambda: (EILinear(12, 8).double(), spikes(T, B, 12)),
    "conv": lambda: (EIConv2d(3, 8, 3, padding=1).double(), spikes(T, B, 3, 5, 5)),
    "grouped": lambda: (EIConv2d(4, 8, 3, groups=2).double(), spikes(T, B, 4, 5, 5)),
}
layers = pytest.mark.parametrize("name", LAYERS)
tonics = pytest.mark.parametrize("tonic", [0.0, 0.7])


def prepared(name: str, tonic: float) -> tuple[EIModule, Tensor]:
    """A layer whose statistics are far from their start, and its input."""
    make, x = LAYERS[name]()
    layer = add_homeostasis_(filled(make), tonic=tonic)
    generator = torch.Generator().manual_seed(3)
    for key, buffer in layer.homeostasis.named_buffers():
        shift = 0.5 if key != "mean" else -0.5
        buffer.copy_(torch.rand(buffer.shape, generator=generator) + shift)
    return layer, x


def units_last(t: Tensor) -> Tensor:
    return t.movedim(1, -1).flatten(0, -2)  # [N, U, ...] to [rows, U]


def quotients(layer: EIModule, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Input, inhibitory output and quotient as rows, each as its equation says."""
    bare = copy.deepcopy(layer)
    tonic = layer.homeostasis.tonic * layer.homeostasis.inhibition
    bare.homeostasis = None
    currents = bare.currents(x)
    s_i = units_last(currents.i_ie)
    i_div = (s_i + tonic) @ (bare.weight_ei * bare.gain_i).T
    divisor = i_div if layer.homeostasis.tonic else units_last(currents.divisor)
    x_rows = units_last(x.flatten(0, 1))
    return x_rows, s_i, units_last(currents.i_ee - currents.i_sub) / divisor


@layers
@tonics
def test_the_integrated_current_is_that_of_the_running_statistics(name: str, tonic: float) -> None:
    layer, x = prepared(name, tonic)
    h = layer.homeostasis
    _, _, z = quotients(layer, x)
    expected = layer.gain_e * (z - h.mean) / h.variance.sqrt() + layer.bias
    for training in (True, False):
        layer.train(training)
        found = units_last(layer(x).flatten(0, 1))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(units_last(layer.currents(x).i_int), expected)


@layers
@tonics
def test_fused_and_separate_layers_agree_in_values_gradients_and_notes(
    name: str, tonic: float
) -> None:
    layer, x = prepared(name, tonic)
    fused, separate = Spiking(layer, LIF()), copy.deepcopy(Spiking(layer, LIF()))
    separate[0].register_forward_hook(lambda *_: None)  # watched circuits run separately
    results = []
    for model in (fused, separate):
        out = model(x)
        (out * torch.linspace(0, 1, out.numel()).view(out.shape)).sum().backward()
        grads = [p.grad for p in model.parameters()]
        results.append((out, *grads, model[0].homeostasis.take_observed()))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@layers
@tonics
def test_an_update_moves_each_statistic_towards_the_batch(name: str, tonic: float) -> None:
    layer, x = prepared(name, tonic)
    before = {key: buffer.clone() for key, buffer in layer.homeostasis.named_buffers()}
    x_rows, s_i, z = quotients(layer, x)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.0)
    handle = homeostasis(layer, optimiser, rate=0.25)
    layer(x)
    with torch.no_grad():
        layer(x * 0)  # without gradients, nothing is noted
    layer.eval()
    layer(x * 0)
    for key, buffer in layer.homeostasis.named_buffers():
        assert torch.equal(buffer, before[key])  # a forward pass changes nothing
    optimiser.step()
    seen = {
        "input_mean": x_rows.mean(0),
        "inhibition": s_i.mean(0),
        "mean": z.mean(0),
        "variance": z.var(0, correction=0),
    }
    for key, buffer in layer.homeostasis.named_buffers():
        torch.testing.assert_close(buffer, 0.75 * before[key] + 0.25 * seen[key])
    after = layer.homeostasis.mean.clone()
    optimiser.step()  # nothing new was seen
    assert torch.equal(layer.homeostasis.mean, after)
    handle.remove()
    layer.train()(x)
    optimiser.step()
    assert torch.equal(layer.homeostasis.mean, after)


def test_forward_passes_of_one_step_are_averaged() -> None:
    layer, x = prepared("conv", 0.0)
    whole = copy.deepcopy(layer)
    for model, parts in ((layer, x.split(2, 1)), (whole, (x,))):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
        homeostasis(model, optimiser, rate=0.5)
        for part in parts:
            model(part)
        optimiser.step()
    for key, buffer in layer.homeostasis.named_buffers():
        torch.testing.assert_close(buffer, dict(whole.homeostasis.named_buffers())[key])


@layers
@tonics
def test_no_gradient_goes_through_the_statistics_and_samples_do_not_meet(
    name: str, tonic: float
) -> None:
    layer, x = prepared(name, tonic)
    x = x.clone().requires_grad_()
    layer(x)[:, 0].sum().backward()
    assert x.grad[:, 0].abs().sum() > 0
    assert (x.grad[:, 1:] == 0).all()


@layers
def test_absorbing_changes_no_bit_and_leaves_a_plain_layer(name: str) -> None:
    layer, x = prepared(name, 0.0)
    keys = set(LAYERS[name]()[0].state_dict())
    before = layer(x)
    absorb_homeostasis_(layer)
    assert torch.equal(layer(x), before)
    assert set(layer.state_dict()) == keys
    assert torch.equal(absorb_homeostasis_(layer)(x), before)


def test_absorbing_leaves_tonic_inhibition() -> None:
    layer, x = prepared("conv", 0.7)
    before = layer(x)
    absorb_homeostasis_(layer)
    assert torch.equal(layer(x), before)
    assert torch.equal(layer.homeostasis.mean, torch.zeros(8).double())


@tonics
def test_under_autocast_statistics_stay_in_float32(tonic: float) -> None:
    torch.manual_seed(0)
    layer = EIConv2d(3, 8, 3, padding=1)
    x = spikes(T, B, 3, 8, 8).float()
    eisnn.ei_init_(layer, x)
    add_homeostasis_(layer, x, tonic=tonic)
    model = Spiking(layer, LIF())
    notes = []
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = model(x)
        out.float().sum().backward()
        notes.append(layer.homeostasis.take_observed())
    assert out.dtype == torch.bfloat16
    assert notes[1].dtype == torch.float32
    torch.testing.assert_close(notes[1], notes[0], rtol=0.05, atol=0.02)


def test_a_silent_neuron_is_not_amplified_without_bound() -> None:
    layer, x = prepared("linear", 0.0)
    layer.homeostasis.variance.zero_()
    assert layer(x).isfinite().all()
    gain, _ = layer.homeostasis.adapted(layer.gain_e, layer.bias)
    assert (gain <= 40 * layer.gain_e).all()


def network(norm: str = "ei") -> nn.Module:
    torch.manual_seed(0)
    return eisnn.create_model("vgg8", num_classes=3, T=2, width=0.1, norm=norm).double()


@tonics
def test_calibrated_layers_have_mean_zero_and_variance_one_in_every_neuron(tonic: float) -> None:
    x = torch.rand(8, 3, 32, 32, dtype=torch.float64)
    model = add_homeostasis_(eisnn.ei_init_(network(), x), x, tonic=tonic)
    assert model.training
    seen: list[Tensor] = []
    for layer in model.modules():
        if isinstance(layer, EIConv2d):
            layer.register_forward_hook(lambda _, args, out: seen.append(out.detach()))
    model(x)
    assert len(seen) == 5
    for i_int in seen:
        rows = units_last(i_int.flatten(0, 1))
        varied = rows.var(0) > 0
        assert varied.double().mean() > 0.8
        torch.testing.assert_close(rows.mean(0), torch.zeros_like(rows[0]), rtol=0, atol=1e-8)
        expected = torch.ones_like(rows[0])[varied]
        torch.testing.assert_close(rows.var(0, correction=0)[varied], expected)


def test_without_a_batch_the_function_stays_and_the_state_dict_brings_it_back() -> None:
    x = torch.rand(8, 3, 32, 32, dtype=torch.float64)
    model = eisnn.ei_init_(network(), x)
    before, keys = model(x), set(model.state_dict())
    assert torch.equal(add_homeostasis_(model)(x), before)
    calibrated = add_homeostasis_(eisnn.ei_init_(network(), x), x, tonic=1.0)
    twin = add_homeostasis_(network(), tonic=1.0)
    twin.load_state_dict(calibrated.state_dict())
    assert torch.equal(twin(x), calibrated(x))
    new = set(calibrated.state_dict()) - keys
    assert new
    assert all(".homeostasis." in key for key in new)
    assert not any("output" in key for key in new)


def test_bad_values_are_errors_that_say_the_rule() -> None:
    model = network()
    optimiser = torch.optim.SGD(model.parameters())
    with pytest.raises(ValueError, match="tonic is a share of mean inhibition, >= 0, got -1"):
        add_homeostasis_(model, tonic=-1)
    with pytest.raises(ValueError, match="no layer of this SpikingNetwork has homeostasis"):
        homeostasis(model, optimiser)
    add_homeostasis_(model)
    for rate in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"0 < rate <= 1, got {rate}"):
            homeostasis(model, optimiser, rate)


# -- several processes ----------------------------------------------------------------------------


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(8, 3, 32, 32, generator=generator).double(), torch.arange(8) % 3


def trained(model: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    homeostasis(model, optimiser, rate=0.3)
    for _ in range(3):
        optimiser.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimiser.step()
    return {key.removeprefix("module."): value for key, value in model.state_dict().items()}


def fitted() -> nn.Module:
    model = eisnn.ei_init_(network(), batch()[0], generator=torch.Generator().manual_seed(0))
    return add_homeostasis_(model, batch()[0], tonic=1.0)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/door", rank=rank, world_size=2)
    try:
        x, labels = (part.chunk(2)[rank] for part in batch())
        torch.save(trained(DistributedDataParallel(fitted()), x, labels), f"{folder}/{rank}")
        leave()
    finally:
        dist.destroy_process_group()


def test_two_processes_have_the_statistics_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    alone = trained(fitted(), *batch())
    for rank in range(2):
        together = torch.load(tmp_path / str(rank))
        assert together.keys() == alone.keys()
        for key, value in together.items():
            torch.testing.assert_close(value, alone[key], rtol=1e-7, atol=1e-9, msg=key)
