"""What ``observe`` reports equals direct computation."""

import pytest
import torch
from torch import nn

import eisnn
from eisnn.analysis import observe
from eisnn.nn import LIF, EIConv2d, EILinear


def test_reports_what_the_layers_do() -> None:
    circuit, neurons = EILinear(6, 8), LIF()
    model = nn.Sequential(circuit, neurons)
    x = torch.rand(3, 5, 6)
    eisnn.ei_init_(model, x)
    (layer,) = observe(model, x)
    current = circuit(x)
    spikes = neurons(current)
    assert layer.layer == "1"
    assert layer.rate == pytest.approx(spikes.mean().item())
    assert layer.mean == pytest.approx(current.mean().item(), abs=1e-6)
    assert layer.std == pytest.approx(current.std().item())
    assert layer.silent == pytest.approx((spikes.flatten(0, 1).sum(0) == 0).float().mean().item())
    divisor = circuit.currents(x).divisor
    assert divisor is not None
    assert layer.smallest_divisor == pytest.approx(divisor.min().item())
    assert sum(layer.density) * 0.1 == pytest.approx(1, abs=0.05)


def test_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(EIConv2d(2, 4, 3), LIF())
    x = torch.rand(2, 3, 2, 5, 5)
    eisnn.ei_init_(model, x)
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    observe(model, x)
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_silent_layer_has_no_divisor() -> None:
    model = nn.Sequential(EILinear(4, 4), LIF())
    eisnn.ei_init_(model, torch.rand(4, 2, 4))
    (layer,) = observe(model, torch.zeros(4, 2, 4))
    assert layer.smallest_divisor is None
    assert layer.rate == 0
    assert layer.silent == 1


@pytest.mark.parametrize("norm", ["ei", "bn", "none"])
def test_every_layer_of_a_network_is_seen_in_order(norm: str) -> None:
    model = eisnn.create_model("resnet18", num_classes=4, norm=norm, width=0.1)
    x = torch.rand(4, 3, 16, 16)
    eisnn.ei_init_(model, x)
    layers = observe(model, x)
    names = [layer.layer for layer in layers]
    assert names[:3] == ["lif", "stage1_1.main.lif1", "stage1_1.main.lif2"]
    assert len(names) == 1 + 8 * 2 + 3
    assert all((layer.smallest_divisor is not None) == (norm == "ei") for layer in layers)
