"""Compilation without graph breaks, export, and no waiting for the device."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import eisnn
from circuits import filled, spikes
from eisnn.nn import LIF, EIConv2d, EILinear, EIModule, EIOutput, TimeWise
from eisnn.training.module import make_optimiser
from eisnn.training.recipe import OptimiserConfig

pytestmark = [
    # what torch's own compiler and exporter say while they work
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch.*"),
]


def model(name: str, norm: str = "ei") -> nn.Module:
    side = {"mlp2": 4, "resnet18": 6}.get(name, 32)
    width = {"mlp2": 0.03}.get(name, 0.03)
    net = eisnn.create_model(name, num_classes=3, T=2, width=width, image_size=side, norm=norm)
    for layer in net.modules():
        if isinstance(layer, EIModule):
            filled(layer)
    return net.eval()


def conv(**options: Any) -> EIModule:
    return filled(EIConv2d(2, 8, 3, **options))


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: filled(EILinear(6, 8)), (4, 6)),
    "linear in time": (lambda: filled(EILinear(6, 8)), (3, 4, 6)),
    "output": (lambda: filled(EIOutput(6, 8)), (4, 6)),
    "conv": (conv, (4, 2, 5, 5)),
    "conv in time": (lambda: conv(stride=2, padding=1), (3, 4, 2, 5, 5)),
    "wide conv": (lambda: filled(EIConv2d(32, 32, 3, padding=1)), (16, 32, 8, 8)),
    "grouped conv": (lambda: conv(groups=2), (4, 2, 5, 5)),
    "lif": (LIF, (3, 4, 5)),
    "lif arctan": (lambda: LIF(surrogate="arctan"), (3, 4, 5)),
    "lif leaky relu": (lambda: LIF(surrogate="leaky_relu"), (3, 4, 5)),
    "timewise": (lambda: TimeWise(nn.Conv2d(2, 4, 3)), (3, 4, 2, 5, 5)),
    "mlp": (lambda: model("mlp2"), (4, 3, 4, 4)),
    "mlp bn": (lambda: model("mlp2", "bn"), (4, 3, 4, 4)),
    "mlp none": (lambda: model("mlp2", "none"), (4, 3, 4, 4)),
    "mlp on events": (lambda: model("mlp2"), (4, 3, 3, 4, 4)),
    "vgg": (lambda: model("vgg8"), (2, 3, 32, 32)),
    "resnet": (lambda: model("resnet18"), (2, 3, 6, 6)),
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def case(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = MODULES[name]
    x = spikes(*shape, rate=0.4, seed=1, values=2).float()
    x[-1] = 0  # a silent sample or step
    return make(), x


def run(net: Callable[[Tensor], Tensor], owner: nn.Module, x: Tensor) -> dict[str, Tensor]:
    owner.zero_grad()
    x = x.clone().requires_grad_()
    out = net(x)
    out.square().sum().backward()
    grads = {name: p.grad.clone() for name, p in owner.named_parameters()}
    return {"out": out.detach(), "x": x.grad, **grads}


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in got.items():
        scale = expected[name].abs().max().item()
        torch.testing.assert_close(
            value, expected[name], rtol=1e-4, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", MODULES)
def test_compiles_as_one_graph_with_the_same_values_and_gradients(name: str) -> None:
    net, x = case(name)
    expected = run(net, net, x)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_equal(run(compiled, net, x), expected)


@pytest.mark.parametrize("name", ["conv", "grouped conv"])
def test_compiles_as_one_graph_where_zeros_are_not_exact(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = case(name)
    expected = run(net, net, x)
    monkeypatch.setattr("eisnn.nn.circuit.zeros_are_exact", lambda *_: False)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    assert_equal(run(compiled, net, x), expected)


def test_a_compiled_model_in_training_with_a_constrained_optimiser() -> None:
    net = model("mlp2").train()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD(net.parameters(), lr=10.0)
    eisnn.constrain(net, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        compiled(torch.rand(4, 3, 4, 4)).square().sum().backward()
        optimizer.step()
    assert all((p >= 0).all() for _, p in eisnn.nn.nonnegative_parameters(net))


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_the_default_compiler_gives_the_same() -> None:
    net, x = case("mlp")
    expected = run(net, net, x)
    assert_equal(run(torch.compile(net, fullgraph=True), net, x), expected)


@pytest.mark.parametrize("name", MODULES)
def test_exports(name: str) -> None:
    net, x = case(name)
    program = torch.export.export(net, (x,))
    torch.testing.assert_close(program.module()(x), net(x))


@pytest.mark.parametrize("name", ["linear", "conv", "output", "mlp"])
def test_exports_for_any_batch_size(name: str) -> None:
    net, x = case(name)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("N", max=64)},))
    for size in (1, 3, 7):
        x = spikes(size, *MODULES[name][1][1:], rate=0.4, seed=size).float()
        torch.testing.assert_close(program.module()(x), net(x), rtol=1e-4, atol=1e-4)


class NoWaiting(TorchDispatchMode):
    """Fails at anything that makes Python wait for a value from the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "_local_scalar_dense" not in str(func), "a value was read from the device"
        assert "nonzero" not in str(func), "a shape depends on values"
        assert str(func).removeprefix("aten.") != "equal.default", "tensors were compared"
        return func(*args, **(kwargs or {}))


def test_the_guard_catches_reading_a_value() -> None:
    for read in (lambda x: x.item(), lambda x: bool((x > 0).any()), lambda x: x[x > 0]):
        with pytest.raises(AssertionError), NoWaiting():
            read(torch.ones(()))


@pytest.mark.parametrize("name", MODULES)
def test_forward_and_backward_read_no_value_from_the_device(name: str) -> None:
    net, x = case(name)
    x.requires_grad_()
    with NoWaiting():
        net(x).sum().backward()


def test_the_projection_reads_no_value_from_the_device() -> None:
    net = model("mlp2")
    with NoWaiting():
        eisnn.project_(net)


@pytest.mark.parametrize("name", ["mlp", "vgg", "resnet"])
def test_a_step_of_the_trainer_reads_no_value_from_the_device(name: str) -> None:
    net, x = case(name)
    net.train()
    labels = torch.arange(len(x)) % 3
    optimiser = make_optimiser(net, OptimiserConfig(lr=0.01), fused=True)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for _ in range(2):  # the first makes the optimiser's state
        with NoWaiting():
            optimiser.zero_grad()
            F.cross_entropy(net(x), labels).backward()
            optimiser.step()
    assert any((p != before[name]).any() for name, p in net.named_parameters())
    assert all((p >= 0).all() for _, p in eisnn.nn.nonnegative_parameters(net))
