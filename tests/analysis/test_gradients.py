"""Gradient norms equal those of an ordinary backward pass."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eisnn
from eisnn.analysis import gradient_norms
from eisnn.nn import EIModule


def network(norm: str) -> tuple[nn.Module, Tensor, Tensor]:
    model = eisnn.create_model(
        "mlp4", num_classes=3, image_size=4, width=0.1, norm=norm, v_threshold=0.3
    )
    x, labels = torch.rand(12, 3, 4, 4), torch.arange(12) % 3
    eisnn.ei_init_(model, x)
    return model.eval(), x, labels


@pytest.mark.parametrize("norm", ["ei", "bn", "none"])
@pytest.mark.parametrize("at_once", [None, 5])
def test_norms_equal_those_of_a_backward_pass(norm: str, at_once: int | None) -> None:
    model, x, labels = network(norm)
    norms = gradient_norms(model, x, labels, samples_at_once=at_once)
    assert all(p.grad is None for p in model.parameters())
    F.cross_entropy(model(x), labels).backward()
    expected = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    flat = [value for kinds in norms.values() for value in kinds.values()]
    assert flat == pytest.approx(list(expected.values()), rel=1e-4, abs=1e-6)
    assert any(value > 0 for value in flat)
    kinds = {
        "ei": ["weight_ee", "weight_ie", "weight_ei", "gain_i", "gain_e", "bias"],
        "bn": ["weight", "bias", "norm_weight", "norm_bias"],
        "none": ["weight", "bias"],
    }
    assert list(norms["linear1"]) == kinds[norm]
    assert list(norms) == ["linear1", "linear2", "linear3", "output"]


def test_without_scaling_the_lateral_gradient_is_larger_by_the_fan_in() -> None:
    model, x, labels = network("ei")
    scaled = gradient_norms(model, x, labels)
    unscaled = gradient_norms(model, x, labels, scaled=False)
    for name, kinds in scaled.items():
        layer = model.get_submodule(f"body.{name}")
        assert isinstance(layer, EIModule)
        for kind, value in kinds.items():
            factor = layer.fan_in if kind == "weight_ei" else 1
            assert unscaled[name][kind] == pytest.approx(value * factor, rel=1e-5)


def test_frozen_parameters_are_left_out() -> None:
    model, x, labels = network("ei")
    model.get_parameter("body.linear1.gain_i").requires_grad_(False)
    assert "gain_i" not in gradient_norms(model, x, labels)["linear1"]


def test_labels_that_do_not_fit_are_a_clear_error() -> None:
    model, x, labels = network("ei")
    with pytest.raises(ValueError, match="one label for each sample, got 12 samples and 3"):
        gradient_norms(model, x, labels[:3])
