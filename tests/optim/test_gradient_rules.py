"""Centring and clipping of gradients, against their definitions and with any optimiser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import eisnn
from eisnn.nn import EIConv2d, EILinear, EIModule, EIOutput
from eisnn.optim import add_homeostasis_, agc, before_step, centre_gradients
from eisnn.optim.gradients import centred, clipped

seeds = st.integers(0, 10_000)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([(4, 6), (4, 3, 2, 2)]), st.floats(1e-3, 10))
def test_a_units_gradient_is_at_most_the_ratio_times_its_weight(
    seed: int, shape: tuple[int, ...], ratio: float
) -> None:
    weight, grad = draw(*shape, seed=seed).abs(), draw(*shape, seed=seed + 1)
    weight[0] = 0
    grad[1] = 0
    found = clipped("weight_ee", weight, grad, ratio)
    for w, g, c in zip(weight, grad, found, strict=True):
        limit = ratio * max(w.square().sum().sqrt().item(), 1e-3)
        length = g.square().sum().sqrt().item()
        expected = g if length <= limit else g * limit / length
        torch.testing.assert_close(c, expected)


def test_gains_are_clipped_by_entry_and_biases_to_the_ratio() -> None:
    gain, grad = torch.tensor([2.0, 2.0, 0.0]), torch.tensor([0.1, -3.0, 1.0])
    found = clipped("gain_e", gain, grad, 0.5)
    torch.testing.assert_close(found, torch.tensor([0.1, -1.0, 0.0005]))
    torch.testing.assert_close(clipped("bias", gain, grad, 0.5), torch.tensor([0.1, -0.5, 0.5]))


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([(4, 6), (4, 3, 2, 2)]))
def test_centred_gradients_do_not_move_the_response_to_the_mean_input(
    seed: int, shape: tuple[int, ...]
) -> None:
    grad, mean = draw(*shape, seed=seed), draw(shape[1], seed=seed + 1).abs()
    found = centred(grad, mean)
    by_channel = found.flatten(2).sum(2) if len(shape) == 4 else found
    torch.testing.assert_close(by_channel @ mean, torch.zeros(4).double(), rtol=0, atol=1e-10)
    removed = (grad - found).flatten(1)
    m = mean.view(-1, *[1] * (len(shape) - 2)).expand(shape[1:]).flatten()
    cosine = F.cosine_similarity(removed, m.expand_as(removed)).abs()
    torch.testing.assert_close(cosine, torch.ones(4).double())  # nothing else is removed


def test_with_equal_inputs_centring_removes_the_mean_over_the_fan_in() -> None:
    grad = draw(5, 3, 2, 2, seed=0)
    expected = grad - grad.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(centred(grad, torch.ones(()).double()), expected)
    torch.testing.assert_close(centred(grad, torch.full((3,), 0.2).double()), expected)


def network() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = eisnn.create_model("mlp2", num_classes=3, image_size=4, width=0.05).double()
    x = torch.rand(9, 3, 4, 4, dtype=torch.float64)
    eisnn.ei_init_(model, x)
    return model, x, torch.arange(9) % 3


def backward(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    model.zero_grad()
    loss = F.cross_entropy(model(x), labels)
    loss.backward()
    return loss


def expected_gradients(model: nn.Module, ratio: float, outputs: bool) -> dict[str, Tensor]:
    """Centred, then clipped; those of the output layer clipped only, if ``outputs``."""
    found = {}
    for prefix, layer in model.named_modules():
        if isinstance(layer, EIModule):
            for name, p in layer.named_parameters(recurse=False):
                grad = p.grad.clone()
                if not isinstance(layer, EIOutput):
                    if name in ("weight_ee", "weight_ie"):
                        grad = centred(grad, layer.homeostasis.input_mean)
                    if name == "weight_ei":
                        grad = centred(grad, layer.homeostasis.inhibition)
                if outputs or not isinstance(layer, EIOutput):
                    grad = clipped(name, p.detach(), grad, ratio)
                found[f"{prefix}.{name}"] = grad
    return found


OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "sgd for": lambda p: torch.optim.SGD(p, lr=0.1, foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=1),
}


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_any_optimiser_steps_along_the_rules_gradients(
    name: str, closure: bool, outputs: bool
) -> None:
    if name == "lbfgs" and not closure:
        pytest.skip("LBFGS needs a closure")
    model, x, labels = network()
    add_homeostasis_(model, x)
    optimiser = OPTIMISERS[name](model.parameters())
    centre_gradients(model, optimiser)
    agc(model, optimiser, 0.003, outputs=outputs)
    backward(model, x, labels)
    raw = {key: p.grad.clone() for key, p in model.named_parameters()}
    expected = expected_gradients(model, 0.003, outputs)
    changed = {key for key, grad in expected.items() if not torch.allclose(raw[key], grad)}
    head = {f"{n}.weight_ee" for n, m in model.named_modules() if isinstance(m, EIOutput)}
    assert changed
    assert bool(changed & head) == outputs
    optimiser.step((lambda: backward(model, x, labels)) if closure else None)
    if name == "lbfgs":  # it has moved and computed gradients there
        return
    for key, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[key], rtol=1e-9, atol=1e-12, msg=key)


def test_lbfgs_is_given_the_rules_gradients() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimiser = torch.optim.LBFGS([weight], lr=1.0, max_iter=1)
    before_step(optimiser, lambda: weight.grad.clamp_(max=0.25))

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (weight * torch.tensor([0.1, 5.0])).sum()
        loss.backward()
        return loss

    optimiser.step(closure)  # its first step is min(1, 1 / |g|_1) along g
    torch.testing.assert_close(weight.detach(), torch.tensor([0.9, 0.75]))


def test_rules_run_in_order_and_end_with_their_handles() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimiser = torch.optim.SGD([weight], lr=0.1)
    calls: list[str] = []
    handles = [before_step(optimiser, lambda name=name: calls.append(name)) for name in "ab"]
    weight.grad = torch.ones(1)
    optimiser.step()
    optimiser.step(closure=lambda: calls.append("closure"))
    assert calls == ["a", "b", "closure", "a", "b"]
    handles[0].remove()
    optimiser.step()
    assert calls[-1] == calls[5] == "b"


def test_layers_without_homeostasis_are_centred_over_their_fan_in() -> None:
    model, x, labels = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    centre_gradients(model, optimiser)
    backward(model, x, labels)
    layer = next(m for m in model.modules() if isinstance(m, EILinear))
    output = next(m for m in model.modules() if isinstance(m, EIOutput))
    untouched = output.weight_ee.grad.clone()
    weights = (layer.weight_ee, layer.weight_ie, layer.weight_ei)
    expected = [weight.grad - weight.grad.mean(1, keepdim=True) for weight in weights]
    optimiser.step()
    for weight, grad in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, grad)
    assert torch.equal(output.weight_ee.grad, untouched)


def test_grouped_convolutions_share_the_mean_of_their_groups() -> None:
    layer = EIConv2d(4, 8, 1, groups=2)
    mean = torch.tensor([1.0, 2.0, 3.0, 4.0])
    grad = torch.ones(8, 2, 1, 1)
    along = torch.tensor([2.0, 3.0])
    expected = grad - (grad.flatten(1) @ along / 13)[:, None, None, None] * along.view(2, 1, 1)
    torch.testing.assert_close(centred(grad, mean), expected)
    assert layer.weight_ee.shape == grad.shape


def test_frozen_parameters_and_models_without_circuits_are_left_alone() -> None:
    model, x, labels = network()
    layer = next(m for m in model.modules() if isinstance(m, EILinear))
    layer.weight_ee.requires_grad_(False)
    for one in (model, nn.Linear(2, 2).double()):
        optimiser = torch.optim.SGD(one.parameters(), lr=0.1)
        centre_gradients(one, optimiser)
        agc(one, optimiser)
        if one is model:
            backward(model, x, labels)
        optimiser.step()
    assert layer.weight_ee.grad is None


def test_gradients_of_a_step_that_unscales_by_itself_are_clipped_in_its_scale() -> None:
    model, x, labels = network()
    layer = next(m for m in model.modules() if isinstance(m, EILinear))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0, fused=True)
    agc(model, optimiser, 0.003)
    seen: list[Tensor] = []
    before_step(optimiser, lambda: seen.append(layer.weight_ee.grad / 1024))
    backward(model, x, labels)
    raw = layer.weight_ee.grad.clone()
    layer.weight_ee.grad.mul_(1024)
    optimiser.grad_scale = torch.tensor(1024.0)
    optimiser.step()
    expected = clipped("weight_ee", layer.weight_ee.detach(), raw, 0.003)
    torch.testing.assert_close(seen, [expected])


def test_a_ratio_that_is_not_positive_is_an_error() -> None:
    model, *_ = network()
    with pytest.raises(ValueError, match="must be > 0, got 0"):
        agc(model, torch.optim.SGD(model.parameters()), 0)
