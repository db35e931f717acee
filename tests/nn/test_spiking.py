"""Layers in sequence: fused where nobody looks, step by step, and with weights kept."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import eisnn
from circuits import filled, spikes
from eisnn.functional import Sigmoid
from eisnn.nn import LIF, AvgPool2d, EIConv2d, EILinear, EIModule, Spiking, TimeWise, present


class Counted(LIF):
    """Neurons of somebody's own."""

    def forward(self, x_seq: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x_seq)


class Wide(Sigmoid):
    """A surrogate of somebody's own, which no kernel knows."""


def run(net: Callable[[Tensor], Tensor], owner: nn.Module, x: Tensor) -> list[Tensor]:
    inputs = [*owner.parameters(), *([x] if x.requires_grad else [])]
    out = net(x)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), inputs)]


def assert_same(got: list[Tensor], expected: list[Tensor], tolerance: float = 1e-11) -> None:
    for a, b in zip(got, expected, strict=True):
        scale = b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(scale, 1.0))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[EIConv2d, Tensor]:
    kernel, stride, padding = (
        draw(st.tuples(st.integers(a, b), st.integers(a, b))) for a, b in ((1, 3), (1, 2), (0, 2))
    )
    channels, units = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 5, 8]))
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    assume(all(s + 2 * p >= k for s, p, k in zip(size, padding, kernel, strict=True)))
    seed = draw(st.integers(0, 1000))
    layer = EIConv2d(channels, units, kernel, stride, padding, ei_ratio=draw(st.integers(1, 4)))
    shape = (draw(st.integers(1, 16)), draw(st.sampled_from([1, 3, 12])), channels, *size)
    x = spikes(*shape, rate=draw(st.sampled_from([0.1, 0.5])), seed=seed, values=2)
    x[:, 0] = 0  # a silent item
    if draw(st.booleans()):
        x = x.contiguous().transpose(3, 4).contiguous().transpose(3, 4)  # neither layout
    return filled(layer.double(), seed, sparsity=draw(st.sampled_from([0.0, 0.5]))), x


@given(case=convolutions())
def test_a_convolution_with_its_neurons(case: tuple[EIConv2d, Tensor]) -> None:
    layer, x = case
    lif = LIF()
    x.requires_grad_()
    fused = run(lambda x: layer.spikes(x, lif), layer, x)
    assert_same(fused, run(lambda x: lif(layer(x)), layer, x))


@given(
    T=st.integers(1, 16),
    batch=st.integers(1, 5),
    units=st.sampled_from([1, 3, 8, 65]),
    seed=st.integers(0, 1000),
    tau=st.sampled_from([1.0, 2.0, 3.0]),
    surrogate=st.sampled_from(["sigmoid", "arctan", "leaky_relu"]),
)
def test_a_linear_layer_with_its_neurons(
    T: int, batch: int, units: int, seed: int, tau: float, surrogate: str
) -> None:
    layer, lif = filled(EILinear(6, units).double(), seed), LIF(tau, 0.75, surrogate)
    x = spikes(T, batch, 6, seed=seed).requires_grad_()
    fused = run(lambda x: layer.spikes(x, lif), layer, x)
    assert_same(fused, run(lambda x: lif(layer(x)), layer, x))


LAYERS: dict[str, Callable[[], EIModule]] = {
    "linear": lambda: EILinear(6, 9),
    "conv": lambda: EIConv2d(6, 9, 3, padding=1),
    "grouped conv": lambda: EIConv2d(6, 8, 3, groups=2),
}


def batch_for(name: str, *lead: int) -> Tensor:
    return spikes(*lead, 6, *(() if name == "linear" else (5, 5)), values=2)


@pytest.fixture(params=LAYERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_static_input_is_computed_once_with_the_gradients_of_all_steps(name: str) -> None:
    layer = filled(LAYERS[name]().double())
    lif = LIF()
    x = present(batch_for(name, 4), 5)
    products = []
    inner = layer._product
    layer._product = lambda x, w: products.append(len(x)) or inner(x, w)  # type: ignore[method-assign]
    fused = run(lambda x: layer.spikes(x, lif), layer, x)
    if name != "grouped conv":
        assert products == [4]  # not 20
    assert_same(fused, run(lambda x: lif(layer(x)), layer, x.clone()))


def test_a_static_input_with_a_gradient_gets_that_of_each_step(name: str) -> None:
    layer, lif = filled(LAYERS[name]().double()), LIF()
    image = batch_for(name, 4).requires_grad_()

    def gradient(function: Callable[[Tensor], Tensor]) -> list[Tensor]:
        return run(lambda x: function(present(x, 3)), layer, image)

    assert_same(gradient(lambda x: layer.spikes(x, lif)), gradient(lambda x: lif(layer(x))))


def test_in_sequence_what_nobody_watches_is_fused(name: str) -> None:
    layer, lif = filled(LAYERS[name]().double()), LIF()
    net = Spiking(layer, lif, TimeWise(nn.Flatten()))
    x = batch_for(name, 3, 4)
    expected = lif(layer(x)).flatten(2)
    torch.testing.assert_close(net(x), expected)
    seen: list[Tensor] = []
    handle = lif.register_forward_hook(lambda _, args, out: seen.extend((*args, out)))
    torch.testing.assert_close(net(x), expected)
    handle.remove()
    net(x)
    current, fired = seen
    torch.testing.assert_close(current, layer(x))  # the integrated current was there to be seen
    assert torch.equal(fired, lif(current))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("watched", ["nobody", "neurons", "pool"])
def test_a_pool_after_a_convolution_is_fused_too(size: int, watched: str) -> None:
    layer, lif, pool = filled(LAYERS["conv"]().double()), LIF(), AvgPool2d(size)
    net = Spiking(layer, lif, pool)
    x = batch_for("conv", 3, 4).double().requires_grad_()
    assert x.shape[-1] % size  # some pixels are in no window
    seen: list[Tensor] = []
    if watched != "nobody":
        module = lif if watched == "neurons" else pool
        module.register_forward_hook(lambda _, args, out: seen.extend((*args, out)))
    assert_same(run(net, layer, x), run(lambda x: pool(lif(layer(x))), layer, x))
    if watched == "neurons":
        assert seen[1].shape[3:] == (5, 5)
    elif watched == "pool":
        assert torch.equal(seen[0], lif(layer(x)))


def test_a_circuit_with_spikes_of_its_own_gets_no_pool() -> None:
    class Own(EIConv2d):
        def spikes(self, x_seq: Tensor, lif: LIF) -> Tensor:  # type: ignore[override]
            return 2 * super().spikes(x_seq, lif)

    layer, lif, pool = filled(Own(6, 9, 3, padding=1)), LIF(), AvgPool2d(2)
    x = batch_for("conv", 3, 4).float()
    assert torch.equal(Spiking(layer, lif, pool)(x), pool(2 * lif(layer(x))))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 5), (1, 2, 3, 4, 5, 6)])
def test_a_pool_takes_maps_over_time(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \[T, B, C, H, W\], got shape"):
        AvgPool2d(2)(torch.rand(shape))


def test_a_window_has_a_size() -> None:
    with pytest.raises(ValueError, match="positive number of pixels, got 0"):
        AvgPool2d(0)


def test_maps_smaller_than_a_window_are_refused() -> None:
    layer = filled(LAYERS["conv"]())
    for net in (Spiking(layer, LIF(), AvgPool2d(6)), Spiking(AvgPool2d(6))):
        with pytest.raises(ValueError, match="needs maps of 6x6 or more, got 5x5"):
            net(batch_for("conv", 3, 4).float())


def test_modules_and_surrogates_of_ones_own_are_run(name: str) -> None:
    layer = filled(LAYERS[name]().double())
    x = batch_for(name, 3, 4)
    own = Counted()
    assert_same(run(Spiking(layer, own), layer, x), run(lambda x: LIF()(layer(x)), layer, x))
    assert own.calls == 1
    surrogate = LIF(surrogate=Wide(1.5))
    assert_same(
        run(Spiking(layer, surrogate), layer, x), run(lambda x: surrogate(layer(x)), layer, x)
    )


def test_under_autocast_spikes_are_of_the_cheap_type_and_the_same(name: str) -> None:
    layer, lif = filled(LAYERS[name]()), LIF()
    x = batch_for(name, 3, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fused, one_by_one = layer.spikes(x, lif), lif(layer(x))
    assert torch.equal(fused.float(), one_by_one)
    if name != "grouped conv":
        assert fused.dtype == torch.bfloat16


# -- step by step -------------------------------------------------------------------------------

NETWORKS = [("mlp4", "ei"), ("vgg8", "ei"), ("resnet18", "ei"), ("resnet50", "ei"), ("vgg8", "bn")]


def network(model: str, norm: str = "ei") -> nn.Module:
    net = eisnn.create_model(model, num_classes=3, in_channels=2, width=0.04, norm=norm)
    for layer in net.modules():
        if isinstance(layer, EIModule):
            filled(layer)
    return net.double().eval()


@pytest.mark.parametrize(("model", "norm"), NETWORKS)
def test_step_by_step_a_network_gives_what_it_gives_at_once(model: str, norm: str) -> None:
    net = network(model, norm)
    frames = spikes(3, 5, 2, 32, 32, values=3)
    outputs, state = [], None
    for t in range(5):
        out, state = net.step(frames[:, t], state)
        outputs.append(out)
    torch.testing.assert_close(torch.stack(outputs).mean(0), net(frames))


def test_states_are_the_callers_and_streams_do_not_mix() -> None:
    net = network("resnet18")
    a, b = spikes(2, 4, 2, 32, 32, seed=1), spikes(2, 4, 2, 32, 32, seed=2)
    states: list[object] = [None, None]
    totals = [torch.zeros(2, 3).double(), torch.zeros(2, 3).double()]
    for t in range(4):
        for i, x in enumerate((a, b)):
            out, states[i] = net.step(x[:, t], states[i])
            totals[i] += out
    torch.testing.assert_close(totals[0] / 4, net(a))
    torch.testing.assert_close(totals[1] / 4, net(b))
    with pytest.raises(ValueError, match="one frame"):
        net.step(a)


# -- weights kept between calls -----------------------------------------------------------------

CHANGES: dict[str, Callable[[EIModule], object]] = {
    "in place": lambda m: m.weight_ee.mul_(2),
    "one entry": lambda m: m.weight_ei[0, 0].add_(1),
    "inhibitory": lambda m: m.weight_ie.add_(0.5),
    "projected": lambda m: (m.weight_ee.sub_(0.3), eisnn.project_(m)),
    "loaded": lambda m: m.load_state_dict({k: v + 0.5 for k, v in m.state_dict().items()}),
    "assigned": lambda m: m.load_state_dict(
        {k: v + 0.5 for k, v in m.state_dict().items()}, assign=True
    ),
    "another type": lambda m: m.float().double(),
    "replaced": lambda m: setattr(m, "weight_ie", nn.Parameter(m.weight_ie + 1)),
    "data replaced": lambda m: setattr(m.weight_ee, "data", m.weight_ee + 1),
    "initialised anew": lambda m: eisnn.ei_init_(m, torch.rand(8, 6, 5, 5).double().bernoulli()),
}


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_the_kept_weight_is_forgotten_when_a_parameter_changes(change: str) -> None:
    layer = filled(LAYERS["conv"]().double()).eval()
    x = batch_for("conv", 4)
    layer(x)
    CHANGES[change](layer)
    assert torch.equal(layer(x), copy.deepcopy(layer).train()(x))


def test_it_is_forgotten_after_an_optimiser_step() -> None:
    layer = filled(LAYERS["conv"]())
    x = batch_for("conv", 4).float()
    for fused in (False, True):
        optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3, momentum=0.9, fused=fused)
        for _ in range(2):
            with torch.no_grad():
                layer.eval()(x)
            layer.train()(x).square().sum().backward()
            optimizer.step()
            with torch.no_grad():
                assert torch.equal(layer.eval()(x), copy.deepcopy(layer).train()(x))


@torch.no_grad()
def test_it_is_kept_between_calls_and_goes_into_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = filled(LAYERS["conv"]()).eval()
    x = batch_for("conv", 4).float()
    folds = []
    inner = torch.ops.eisnn.circuit_weight
    monkeypatch.setattr("eisnn.nn.circuit.circuit_weight", lambda *p: folds.append(1) or inner(*p))
    expected = layer(x)
    for _ in range(3):
        assert torch.equal(layer(x), expected)
    assert len(folds) == 1
    assert set(layer.state_dict()) == {n for n, _ in layer.named_parameters()}
    plain = filled(LAYERS["conv"]())
    assert len(pickle.dumps(layer)) == len(pickle.dumps(plain.eval()))
    with torch.inference_mode():
        assert torch.equal(layer(x), expected)


def test_where_gradients_are_wanted_nothing_is_kept() -> None:
    layer = filled(LAYERS["conv"]()).eval()
    x = batch_for("conv", 4).float()
    with torch.no_grad():
        layer(x)
    layer(x).sum().backward()
    assert layer.weight_ie.grad is not None
    assert layer.weight_ie.grad.any()
