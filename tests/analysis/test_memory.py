"""Memory: counted for real networks, and estimated without them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import eisnn
from eisnn.analysis.memory import estimate_memory, saved_bytes

SHAPE = (4, 2, 32, 32)


def network(name: str = "vgg8", norm: str = "ei", **options: object) -> nn.Module:
    net = eisnn.create_model(name, num_classes=3, in_channels=2, width=0.125, norm=norm, **options)
    if norm == "ei":
        eisnn.ei_init_(net, torch.rand(SHAPE).bernoulli())
    return net


def test_what_a_layer_keeps_is_counted_by_hand() -> None:
    net = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Sigmoid(), nn.Flatten())
    x = torch.rand(7, 3)
    assert saved_bytes(net, x) == {"0": 7 * 3 * 4, "1": 7 * 5 * 4}


def test_shared_memory_and_parameters_do_not_count_twice() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * x.view(-1)) * x

    x = torch.rand(10, requires_grad=True)
    assert saved_bytes(Twice(), x) == {"": 2 * 40}  # x, and the product


def test_counting_leaves_the_model_as_it_was() -> None:
    net = network()
    before = dict(net.state_dict())
    keys = [set(vars(m)) for m in net.modules()]
    x = torch.rand(SHAPE)
    expected = net(x)
    saved_bytes(net, x)
    assert [set(vars(m)) for m in net.modules()] == keys
    assert torch.equal(net(x), expected)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("name", ["mlp4", "vgg8", "resnet18"])
@pytest.mark.parametrize("norm", ["ei", "bn"])
def test_the_estimate_keeps_what_the_network_keeps(name: str, norm: str) -> None:
    def make() -> nn.Module:
        return eisnn.create_model(name, num_classes=3, in_channels=2, width=0.125, norm=norm)

    estimate = estimate_memory(make, SHAPE)
    net = network(name, norm)
    counted = saved_bytes(net, torch.rand(SHAPE))
    assert estimate.saved_by_layer == counted
    size = sum(p.numel() for p in net.parameters()) * 4
    assert estimate.gradients == estimate.optimiser == size
    assert estimate.peak > 2 * size + estimate.saved  # gradients come as the rest goes


def test_a_circuit_keeps_its_input_its_currents_and_its_weight() -> None:
    net = network()
    batch, T = SHAPE[0], net.T
    kept = saved_bytes(net, torch.rand(SHAPE))
    units, inputs = (16, 4), 8  # of the second circuit at width 1/8, on 16x16 positions
    expected = T * batch * 256 * (inputs + sum(units)) + sum(units) * inputs * 9 + T * batch
    small = units[0] * (units[1] * 2 + 1) + units[1]  # lateral weights and gains
    assert expected <= kept["body.conv2"] / 4 <= expected + small
    assert not any(name.startswith("body.pool") for name in kept)


def test_memory_grows_with_time_and_batch_and_shrinks_with_recomputation() -> None:
    def saved(T: int, batch: int, recompute: bool = False) -> int:
        def make() -> nn.Module:
            return eisnn.create_model(
                "vgg8", num_classes=3, in_channels=2, width=0.125, T=T, recompute=recompute
            )

        return estimate_memory(make, (batch, 2, 32, 32)).saved

    assert saved(16, 8) - saved(8, 8) == 2 * (saved(8, 8) - saved(4, 8)) > 0  # linear in T
    assert saved(8, 16) - saved(8, 8) == 2 * (saved(8, 8) - saved(8, 4)) > 0  # and in the batch
    assert saved(16, 4, recompute=True) < 0.4 * saved(16, 4)


@pytest.mark.parametrize("name", ["mlp4", "vgg8", "resnet18"])
def test_recomputation_changes_no_gradient(name: str) -> None:
    x = torch.rand(SHAPE)
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net = network(name, recompute=recompute)
        out = net(x)
        out.square().sum().backward()
        results.append([out, *(p.grad for p in net.parameters())])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_recomputation_is_refused_where_it_would_count_a_batch_twice() -> None:
    with pytest.raises(ValueError, match="BatchNorm"):
        network(norm="bn", recompute=True)
