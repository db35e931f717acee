"""The theory's formulas against brute force, and against networks it is about."""

import math

import pytest
import torch
import torch.nn.functional as F

import eisnn
from eisnn.analysis.theory import LayerTheory, check_theory, gradient_ratio
from eisnn.functional.init import InputMoments, input_moments
from eisnn.nn import LIF, EIConv2d, EILinear, EIOutput, Spiking


def check(rate: float, draws: int, **sizes: int) -> list[LayerTheory]:
    """One hidden layer with spikes of a rate as its input, over draws of the weights."""
    d, n_e = sizes["d"], sizes["n_e"]
    found = []
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        x = (torch.rand(60, 2, d, generator=generator) < rate).float()
        model = Classifier(EILinear(d, n_e), LIF(), EIOutput(n_e, 5))
        eisnn.ei_init_(model, x, generator=generator)
        found.append(check_theory(model, x, torch.arange(60) % 5)[0])
    return found


class Classifier(torch.nn.Module):
    """From frames ``[B, T, ...]`` to logits."""

    def __init__(self, *layers: torch.nn.Module) -> None:
        super().__init__()
        self.body = Spiking(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.transpose(0, 1)).mean(0)


def average(values: list[float | None]) -> float:
    assert all(v is not None for v in values)
    return sum(v for v in values if v is not None) / len(values)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.7])
def test_mean_and_variance_over_draws_of_the_weights(rate: float) -> None:
    layers = check(rate, 25, d=200, n_e=32)
    deviation = average([layer.mean_deviation for layer in layers])
    error = average([layer.mean for layer in layers]) - average(
        [layer.mean_predicted for layer in layers]
    )
    assert abs(error) < 4 * deviation / math.sqrt(len(layers))
    spread = math.sqrt(average([(layer.mean or 0) ** 2 for layer in layers]))
    assert spread == pytest.approx(deviation, rel=0.5)
    variance = average([layer.variance for layer in layers])
    assert variance == pytest.approx(
        average([layer.variance_predicted for layer in layers]), rel=0.1
    )
    ideal = average([layer.variance_ideal for layer in layers])
    assert ideal == pytest.approx(1 / (2 - rate), rel=0.02)


def test_ratio_of_gradients() -> None:
    layers = check(0.2, 8, d=300, n_e=64)
    for layer in layers:
        assert layer.gradient_ratio == pytest.approx(layer.gradient_ratio_predicted, rel=0.35)
    measured = average([math.log(layer.gradient_ratio) for layer in layers])
    predicted = average([math.log(layer.gradient_ratio_predicted) for layer in layers])
    assert measured == pytest.approx(predicted, abs=0.12)


def test_formula_of_the_ratio_for_spikes() -> None:
    p, n_i = 0.2, 16
    moments = InputMoments(p, p, p * (1 - p))
    assert gradient_ratio(moments, n_i, math.inf) == pytest.approx(
        math.sqrt(n_i * (1 - p) / (2 - p))
    )
    assert gradient_ratio(moments, n_i, 1) == pytest.approx(math.sqrt(n_i * p * (1 - p) / (2 - p)))


def test_coherent_and_incoherent_gradients_have_the_predicted_ratio() -> None:
    """Gradients given by hand, of one circuit alone."""
    layer = EILinear(400, 32)
    x = (torch.rand(300, 400) < 0.3).float()
    eisnn.ei_init_(layer, x)
    moments = input_moments(x)
    for delta, coherence in ((torch.ones(300, 32), 300.0), (torch.randn(300, 32), 1.0)):
        layer.zero_grad()
        layer(x).backward(delta)
        assert layer.weight_ei.grad is not None
        assert layer.weight_ee.grad is not None
        ratio = 400 * layer.weight_ei.grad.norm() / layer.weight_ee.grad.norm()
        expected = gradient_ratio(moments, 8, coherence)
        assert ratio.item() == pytest.approx(expected, rel=0.2)


def test_borders_raise_the_variance_as_predicted() -> None:
    """A 3x3 kernel on 2x2 images sees 4 of 9 inputs everywhere."""
    model = Classifier(EIConv2d(64, 64, 3, padding=1), LIF(), torch.nn.Flatten(2), EIOutput(256, 3))
    x = (torch.rand(40, 2, 64, 2, 2) < 0.3).float()
    eisnn.ei_init_(model, x)
    layer = check_theory(model, x, torch.arange(40) % 3)[0]
    assert layer.variance is not None
    assert layer.variance_ideal is not None
    assert layer.variance == pytest.approx(layer.variance_predicted, rel=0.15)
    assert layer.variance / layer.variance_ideal == pytest.approx(9 / 4 * (1 + 1 / 16), rel=0.15)


def test_the_model_is_left_as_it_was() -> None:
    model = eisnn.create_model("mlp4", num_classes=3, image_size=4, width=0.1)
    x, labels = torch.rand(16, 3, 4, 4), torch.arange(16) % 3
    eisnn.ei_init_(model, x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers = check_theory(model, x, labels)
    assert [layer.layer for layer in layers] == ["linear1", "linear2", "linear3", "output"]
    assert layers[-1].mean is None
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(not m._forward_hooks for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    F.cross_entropy(model(x), labels).backward()


def test_a_network_without_circuits_is_a_clear_error() -> None:
    model = eisnn.create_model("mlp2", num_classes=3, image_size=4, width=0.1, norm="bn")
    with pytest.raises(ValueError, match="norm='ei'"):
        check_theory(model, torch.rand(4, 3, 4, 4), torch.arange(4) % 3)
