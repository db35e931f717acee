"""Dale's law: the registry, the projection, and optimisers of every kind."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import eisnn
from circuits import filled
from eisnn.nn import (
    EIConv2d,
    EILinear,
    EIOutput,
    nonnegative_parameters,
    parameter_groups,
    register_nonnegative,
)


class Attention(nn.Module):
    """A user's module with one constrained parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(5))
        self.shift = nn.Parameter(torch.randn(5))
        register_nonnegative(self, "scale")

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def model() -> nn.Sequential:
    return nn.Sequential(
        filled(EIConv2d(2, 8, 3)),
        nn.Flatten(),
        nn.Linear(32, 6),
        nn.Sigmoid(),
        filled(EILinear(6, 5)),
        Attention(),
        nn.Sigmoid(),
        filled(EIOutput(5, 4)),
    )


CONSTRAINED = [
    *(f"0.{n}" for n in ("weight_ee", "weight_ie", "weight_ei", "gain_i", "gain_e")),
    *(f"4.{n}" for n in ("weight_ee", "weight_ie", "weight_ei", "gain_i", "gain_e")),
    "5.scale",
    *(f"7.{n}" for n in ("weight_ee", "weight_ie", "weight_ei")),
]
FREE = ["0.bias", "2.weight", "2.bias", "4.bias", "5.shift"]


def push_below_zero(net: nn.Module) -> None:
    """A gradient that a step of any optimiser follows to negative values, everywhere."""
    for p in net.parameters():
        p.grad = torch.ones_like(p)


def smallest(net: nn.Module, names: list[str]) -> dict[str, float]:
    parameters = dict(net.named_parameters())
    return {name: parameters[name].min().item() for name in names}


# -- the registry -----------------------------------------------------------------------------


def test_registry_lists_the_constrained_parameters_in_order() -> None:
    net = model()
    listed = list(nonnegative_parameters(net))
    assert [name for name, _ in listed] == CONSTRAINED
    parameters = dict(net.named_parameters())
    assert all(parameter is parameters[name] for name, parameter in listed)
    assert set(parameters) == {*CONSTRAINED, *FREE}


def test_registry_of_a_single_layer_has_plain_names() -> None:
    assert [n for n, _ in nonnegative_parameters(EIOutput(3, 4))] == [
        "weight_ee",
        "weight_ie",
        "weight_ei",
    ]


def test_registering_twice_or_piece_by_piece() -> None:
    module = Attention()
    register_nonnegative(module, "scale", "shift")
    register_nonnegative(module, "shift")
    assert [n for n, _ in nonnegative_parameters(module)] == ["scale", "shift"]


def test_registering_what_is_not_there_is_an_error_and_changes_nothing() -> None:
    module = Attention()
    with pytest.raises(
        ValueError, match=r"Attention .* named 'weight'; it has \['scale', 'shift'\]"
    ):
        register_nonnegative(module, "shift", "weight")
    assert [n for n, _ in nonnegative_parameters(module)] == ["scale"]
    with pytest.raises(ValueError, match="of its own"):
        register_nonnegative(nn.Sequential(module), "scale")


def test_one_instance_does_not_speak_for_another() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.zeros(1))

    first, second = Module(), Module()
    register_nonnegative(first, "a")
    assert not list(nonnegative_parameters(second))


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["deepcopy", "pickle"],
)
def test_copies_keep_the_registry(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    twin = duplicate(model())
    listed = dict(nonnegative_parameters(twin))
    assert list(listed) == CONSTRAINED
    assert all(listed[name] is dict(twin.named_parameters())[name] for name in listed)


def test_shared_parameters_count_once() -> None:
    first, second = filled(EILinear(4, 4)), filled(EILinear(4, 4))
    second.weight_ee = first.weight_ee
    net = nn.ModuleList([first, second, first])
    names = [name for name, _ in nonnegative_parameters(net)]
    assert names.count("0.weight_ee") == 1
    assert "1.weight_ee" not in names
    assert len(names) == 9
    groups = parameter_groups(net)
    assert [len(group["params"]) for group in groups] == [9, 2]


def test_parameter_groups_come_from_the_registry() -> None:
    net = model()
    parameters = dict(net.named_parameters())
    constrained, free = parameter_groups(net)
    assert constrained["nonnegative"]
    assert not free["nonnegative"]
    assert {id(p) for p in constrained["params"]} == {id(parameters[n]) for n in CONSTRAINED}
    assert {id(p) for p in free["params"]} == {id(parameters[n]) for n in FREE}
    free["weight_decay"] = 0.0
    optimizer = torch.optim.SGD([constrained, free], lr=0.1, weight_decay=0.5)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.5, 0.0]


def test_parameter_groups_leave_out_an_empty_one() -> None:
    assert [g["nonnegative"] for g in parameter_groups(nn.Linear(2, 2))] == [False]
    assert [g["nonnegative"] for g in parameter_groups(EIOutput(2, 4))] == [True]
    assert parameter_groups(nn.ReLU()) == []


# -- the projection ---------------------------------------------------------------------------


def test_projection_clamps_the_constrained_and_nothing_else() -> None:
    net = model()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    identity = {name: p.data_ptr() for name, p in net.named_parameters()}
    eisnn.project_(net)
    for name, p in net.named_parameters():
        expected = before[name].clamp(min=0) if name in CONSTRAINED else before[name]
        assert torch.equal(p, expected), name
        assert p.data_ptr() == identity[name]
        assert p.requires_grad
        assert p.is_leaf


def test_projection_keeps_nan_visible() -> None:
    layer = filled(EILinear(3, 4))
    with torch.no_grad():
        layer.weight_ee[0, 0] = torch.nan
    eisnn.project_(layer)
    assert layer.weight_ee[0, 0].isnan()


def test_projection_of_a_model_without_constraints() -> None:
    linear = nn.Linear(3, 3)
    before = linear.weight.clone()
    eisnn.project_(linear)
    eisnn.project_(nn.ReLU())
    assert torch.equal(linear.weight, before)


def test_projection_of_mixed_dtypes() -> None:
    net = nn.Sequential(filled(EILinear(3, 4)), filled(EILinear(4, 4)).double())
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(-1)
    eisnn.project_(net)
    assert all(p.min() == 0 for _, p in nonnegative_parameters(net))


# -- optimisers -------------------------------------------------------------------------------

OPTIMISERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=5.0, momentum=0.9, foreach=False),
    "sgd foreach": lambda m: torch.optim.SGD(m.parameters(), lr=5.0, momentum=0.9, foreach=True),
    "sgd fused": lambda m: torch.optim.SGD(m.parameters(), lr=5.0, momentum=0.9, fused=True),
    "sgd groups": lambda m: torch.optim.SGD(parameter_groups(m), lr=5.0),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=5.0),
    "adamw fused": lambda m: torch.optim.AdamW(m.parameters(), lr=5.0, fused=True),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=5.0),
    "adagrad": lambda m: torch.optim.Adagrad(m.parameters(), lr=5.0),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_step_ends_projected(name: str) -> None:
    net = model()
    optimizer = OPTIMISERS[name](net)
    eisnn.constrain(net, optimizer)
    for _ in range(2):
        push_below_zero(net)
        optimizer.step()
        assert set(smallest(net, CONSTRAINED).values()) == {0.0}
        assert max(smallest(net, FREE).values()) < 0.0


def test_without_it_the_same_step_breaks_the_law() -> None:
    net = model()
    optimizer = OPTIMISERS["sgd"](net)
    push_below_zero(net)
    optimizer.step()
    assert max(smallest(net, CONSTRAINED).values()) < 0.0


def test_the_handle_ends_the_projection() -> None:
    net = model()
    optimizer = OPTIMISERS["sgd"](net)
    eisnn.constrain(net, optimizer).remove()
    push_below_zero(net)
    optimizer.step()
    assert max(smallest(net, CONSTRAINED).values()) < 0.0


def test_an_optimiser_of_another_model_is_refused() -> None:
    net = model()
    with pytest.raises(ValueError, match="this SGD holds none of the 14 non-negative parameters"):
        eisnn.constrain(net, OPTIMISERS["sgd"](model()))
    free = torch.optim.SGD(parameter_groups(net)[1]["params"], lr=1.0)
    with pytest.raises(ValueError, match=r"Make it from model\.parameters\(\)"):
        eisnn.constrain(net, free)
    some = torch.optim.SGD([net[0].weight_ee], lr=1.0)
    eisnn.constrain(net, some)


def test_a_closure_and_its_loss_pass_through() -> None:
    net = model()
    optimizer = OPTIMISERS["sgd"](net)
    eisnn.constrain(net, optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = sum(p.sum() for p in net.parameters())
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert loss.item() != 0
    assert set(smallest(net, CONSTRAINED).values()) == {0.0}


def test_lbfgs() -> None:
    net = model()
    x, target = torch.rand(6, 2, 4, 4), torch.randint(0, 4, (6,))
    optimizer = torch.optim.LBFGS(net.parameters(), lr=1.0, max_iter=5)
    eisnn.constrain(net, optimizer)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), target)
        loss.backward()
        return loss

    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for _ in range(2):
        optimizer.step(closure)
    assert min(smallest(net, CONSTRAINED).values()) >= 0.0
    assert any(not torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_accumulated_gradients_step_once() -> None:
    x = torch.rand(8, 2, 4, 4)
    nets = [model(), model()]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [torch.optim.SGD(net.parameters(), lr=3.0) for net in nets]
    for net, optimizer in zip(nets, optimizers, strict=True):
        eisnn.constrain(net, optimizer)
    nets[0](x).square().sum().backward()
    for part in x.split(2):
        nets[1](part).square().sum().backward()
    with torch.no_grad():  # between steps nothing is projected
        nets[1][0].weight_ee[0, 0, 0, 0] = -1
        nets[0][0].weight_ee[0, 0, 0, 0] = -1
    for optimizer in optimizers:
        optimizer.step()
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert min(smallest(nets[1], CONSTRAINED).values()) == 0.0


def test_momentum_is_left_as_it_is() -> None:
    net = filled(EILinear(3, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=5.0, momentum=0.9)
    eisnn.constrain(net, optimizer)
    push_below_zero(net)
    optimizer.step()
    assert torch.equal(optimizer.state[net.weight_ee]["momentum_buffer"], torch.ones(4, 3))


def test_projecting_between_forward_and_backward_is_caught_by_autograd() -> None:
    """The projection writes in place as an optimiser does, and autograd sees it."""
    layer = filled(EILinear(3, 4))
    loss = layer(torch.ones(2, 3)).sum()
    eisnn.project_(layer)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_schedule_and_a_loaded_optimiser_state_keep_the_law() -> None:
    net = model()
    optimizer = OPTIMISERS["adam"](net)
    push_below_zero(net)
    optimizer.step()
    eisnn.constrain(net, optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    push_below_zero(net)
    optimizer.step()
    schedule.step()
    assert set(smallest(net, CONSTRAINED).values()) == {0.0}
