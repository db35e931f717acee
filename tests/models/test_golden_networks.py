"""Whole networks give the numbers recorded from the published implementation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eisnn
from eisnn.functional import input_moments, weight_scale
from eisnn.models.resnet import ResidualBlock
from eisnn.nn import LIF, EIModule
from golden import DTYPES, NETWORKS, Block, Golden, assert_same, build, images, key_map, translate

TRAINED = ["ei_mlp4", "ei_mlp4_narrow", "bn_mlp4_narrow"]
INITIALISED = ["ei_mlp4", "ei_mlp4_narrow", "ei_vgg8_narrow", "ei_basicblock"]


def batches(golden: Golden, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """The recorded inputs and labels, one pair for each optimiser step."""
    if "inputs" in golden:
        pairs = list(zip(golden["inputs"], golden["labels"], strict=True))
    else:
        pairs = [(golden["input"], golden["labels"])]
    return [(images(x).to(dtype), labels) for x, labels in pairs]


def recorded(golden: Golden, prefix: str, model: nn.Module) -> dict[str, Tensor]:
    """The entries below a prefix by our keys; integers are left out."""
    entries = {k: v for k, v in golden.under(prefix).items() if "." in k}  # not the input's
    found = translate(golden.name, entries, model.state_dict())
    return {key: value for key, value in found.items() if value.is_floating_point()}


def assert_gradients(model: nn.Module, golden: Golden, dtype: torch.dtype) -> None:
    """All gradients are the recorded ones; ``weight_ei``'s were recorded after their scaling.

    Some gradients are zero in exact arithmetic and rounding in the file, so an error is also
    measured against a hundredth of the network's largest gradient.
    """
    twins = recorded(golden, "f64.grad.", model)
    expected = twins if dtype == torch.float64 and twins else recorded(golden, "grad.", model)
    got = {name: p.grad for name, p in model.named_parameters()}
    assert got.keys() == expected.keys()
    largest = max(value.abs().max().item() for value in expected.values())
    rtol = 1e-8 if expected is twins else 1e-4
    for name, value in expected.items():
        assert got[name] is not None, name
        scale = max(value.abs().max().item(), largest / 100)
        close_to(got[name], value, name, rtol, scale)


def close_to(got: Tensor, expected: Tensor, what: str, rtol: float, scale: float) -> None:
    torch.testing.assert_close(
        got.detach().double(),
        expected.double().reshape(got.shape),
        rtol=rtol,
        atol=rtol * scale,
        msg=lambda text: f"{what}: {text}",
    )


@pytest.fixture
def spike_counter() -> Iterator[Callable[[nn.Module], list[float]]]:
    handles = []

    def count(model: nn.Module) -> list[float]:
        """A list to which each LIF adds its number of spikes when it runs."""
        counts: list[float] = []
        for module in model.modules():
            if isinstance(module, LIF):
                handles.append(
                    module.register_forward_hook(lambda *args: counts.append(args[-1].sum().item()))
                )
        return counts

    yield count
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_forward_and_backward(
    name: str, dtype: torch.dtype, spike_counter: Callable[[nn.Module], list[float]]
) -> None:
    golden = Golden(name)
    model = build(golden, dtype)
    counts = spike_counter(model)
    x, labels = batches(golden, dtype)[0]
    rtol = 1e-10 if dtype == torch.float64 else 1e-4

    logits = model(x)
    loss = F.cross_entropy(logits, labels)
    loss.backward()

    assert counts == golden["spike_sums"].tolist()
    assert_same(logits, golden.expected("logits", dtype), "logits", rtol)
    assert_same(loss, golden.expected("loss", dtype), "loss", rtol)
    assert_gradients(model, golden, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_mode(name: str, dtype: torch.dtype) -> None:
    golden = Golden(name)
    model = build(golden, dtype).eval()
    logits = model(batches(golden, dtype)[0][0])
    assert_same(logits, golden.expected("eval_logits", dtype), "eval_logits")
    if name == "bn_mlp4_narrow":  # the stored statistics were used, not the batch's
        assert not torch.allclose(logits, golden.expected("logits", dtype), rtol=1e-2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TRAINED)
def test_five_steps_of_training(name: str, dtype: torch.dtype) -> None:
    golden = Golden(name)
    model = build(golden, dtype)
    start = {key: value.clone() for key, value in model.state_dict().items()}
    options = {key: golden.meta["optim"][key] for key in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(model.parameters(), **options)
    eisnn.constrain(model, optimizer)

    def assert_changed_as(prefix: str, rtol: float) -> None:
        """The changes since the start are compared: the values hardly move in five steps."""
        for key, value in recorded(golden, prefix, model).items():
            begun = start[key].double()
            change = value.double() - begun
            unit = torch.finfo(value.dtype).eps * value.abs().max().item()  # of the subtraction
            got = model.state_dict()[key].double() - begun
            scale = change.abs().max().item() + 4 * unit / rtol
            close_to(got, change, f"{prefix}{key}", rtol, scale)

    losses = []
    for step, (x, labels) in enumerate(batches(golden, dtype), 1):
        loss = F.cross_entropy(model(x), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if step == 1:  # the published optimiser begins with a buffer of (1 + momentum) g
            for p in model.parameters():
                assert p.grad is not None
                g = p.grad + options["weight_decay"] * p.detach()
                optimizer.state[p]["momentum_buffer"] = g
        optimizer.step()
        if step == 1:
            assert_changed_as("after1.", 2e-4)

    expected_losses = golden.expected("losses", dtype)
    assert len(losses) == len(expected_losses) == golden.meta["optim"]["steps"]
    got_losses = torch.tensor(losses, dtype=torch.float64)
    close_to(got_losses, expected_losses, "losses", 1e-9 if dtype == torch.float64 else 1e-4, 0)

    exact = dtype == torch.float64 and bool(recorded(golden, "f64.after5.", model))
    assert_changed_as("f64.after5." if exact else "after5.", 1e-8 if exact else 2e-4)
    if dtype == torch.float64:  # the wide network's twins are recorded as norms
        state = model.state_dict()
        for official, norm in golden.under("f64.after5_norm.").items():
            for key in translate(name, {official: golden[f"after5.{official}"]}, state):
                close_to(state[key].norm(), norm, key, 1e-11, 0)

    buffers = recorded(golden, "momentum5.", model)
    assert buffers.keys() == dict(model.named_parameters()).keys() or name == "ei_mlp4"
    largest = max((value.abs().max().item() for value in buffers.values()), default=0.0)
    for key, value in buffers.items():
        got = optimizer.state[model.get_parameter(key)]["momentum_buffer"]
        close_to(got, value, key, 2e-4, max(value.abs().max().item(), largest / 100))


@pytest.mark.parametrize("dtype", DTYPES)
def test_residual_block(
    dtype: torch.dtype, spike_counter: Callable[[nn.Module], list[float]]
) -> None:
    golden = Golden("ei_basicblock")
    block = build(golden, dtype)
    assert isinstance(block, ResidualBlock)
    counts = spike_counter(block)
    x = golden["x"].to(dtype).requires_grad_()

    y = Block(block, golden.meta["T"])(x)
    y.backward(golden["upstream"].to(dtype))

    assert torch.equal(y, golden["y"].to(dtype))  # sums of spikes
    _, after_main, after_shortcut = counts
    assert after_main + after_shortcut == y.sum()
    assert_gradients(block, golden, dtype)
    assert_same(x.grad, golden.expected("grad.x", dtype), "grad.x")


# -- E-I Init -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INITIALISED)
def test_init_finds_the_recorded_statistics_and_draws_the_recorded_weights(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same random numbers in the same order: layers as they run, W_EE before W_IE."""
    golden = Golden(name)
    model = build(golden, torch.float64)
    given = {key: value.clone() for key, value in model.state_dict().items()}
    if isinstance(model, ResidualBlock):
        model, x = Block(model, golden.meta["T"]), golden["x"].double()
    else:
        x = batches(golden, torch.float64)[0][0]

    source = np.random.default_rng(golden.meta["weight_seed"])

    def exponential_(self: Tensor, lambd: float = 1.0, *, generator: object = None) -> Tensor:
        assert generator is None
        return self.copy_(torch.from_numpy(source.standard_exponential(self.shape)) / lambd)

    monkeypatch.setattr(torch.Tensor, "exponential_", exponential_)
    seen: dict[str, Tensor] = {}
    layers = {
        n.removeprefix("block."): m for n, m in model.named_modules() if isinstance(m, EIModule)
    }
    for layer, module in layers.items():
        module.load_state_dict({k: v * torch.nan for k, v in module.state_dict().items()})
        module.register_forward_pre_hook(
            lambda _, args, layer=layer: seen.update({layer: args[0].flatten(0, 1)})
        )
    assert not eisnn.is_initialised(model)
    eisnn.ei_init_(model, x)

    ours = key_map(name)
    checked = set()
    for key, value in golden.under("init.").items():
        official, statistic = key.rsplit(".", 1)
        layer = ours[official]
        moments = input_moments(seen[layer])
        got = {
            "E_x": moments.mean,
            "E_x_square": moments.mean_square,
            "Var_x": moments.variance,
            "exp_scale": weight_scale(moments, layers[layer].fan_in),
        }[statistic]
        assert got == pytest.approx(value.item(), rel=2e-6), key
        checked.add((layer, statistic))
    assert len(checked) == 4 * len(layers)
    assert {layer for layer, _ in checked} == set(seen)

    halves = golden.meta.get("f16_rounded", False)
    rtol, atol = (5e-4, 3e-8) if halves else (2e-6, 0.0)
    for layer, module in layers.items():
        for leaf, p in module.named_parameters():
            expected, got = given[f"{layer}.{leaf}"], p.detach()
            if golden.meta.get("jittered", "jittered" in golden.meta or name == "ei_vgg8_narrow"):
                if leaf not in ("weight_ee", "weight_ie"):
                    continue  # replaced by random values after the recording of the statistics
                got = got * (expected != 0)  # and some weights by zero
            torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)
