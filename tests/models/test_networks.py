"""The networks: what is built, what it takes and gives, and that samples and time stay apart.

Widths are a fraction and images small wherever the property does not depend on them.
"""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eisnn
from eisnn.models import SpikingNetwork, create_model, list_models
from eisnn.models.resnet import ResidualBlock
from eisnn.nn import LIF, AvgPool2d, EIConv2d, EILinear, EIModule, EIOutput

DATA = Path(__file__).parents[1] / "data"
NORMS = ["ei", "bn", "none"]
FAMILIES = ["mlp4", "vgg8", "resnet18", "resnet50"]
NAMES = [
    *("mlp2", "mlp4", "mlp6", "mlp8", "mlp12", "mlp16"),
    *("vgg8", "vgg11", "vgg16", "vgg19"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
]
RUN = [name for name in NAMES if name not in ("resnet101", "resnet152")]


def side(name: str) -> int:
    return 32 if name.startswith("vgg") else 8


def small(name: str, norm: str = "ei", **options: Any) -> SpikingNetwork:
    """A fraction of the width; a low threshold keeps so few neurons from falling silent."""
    defaults = {
        "num_classes": 5,
        "in_channels": 2,
        "image_size": side(name),
        "T": 3,
        "width": 0.3 if name.startswith("mlp") else 0.1,
        "v_threshold": 0.5,
    }
    return create_model(name, norm=norm, **(defaults | options))


def frames(name: str, B: int = 3, T: int = 4, seed: int = 0) -> Tensor:
    """Event counts ``[B, T, 2, H, W]``, other ones at each step."""
    generator = torch.Generator().manual_seed(seed)
    rate = torch.full((B, T, 2, side(name), side(name)), 0.6)
    return torch.poisson(rate, generator=generator)


def ready(name: str, norm: str = "ei", **options: Any) -> SpikingNetwork:
    """A network in float64 whose layers all spike."""
    torch.manual_seed(0)
    model = small(name, norm, **options).double()
    if norm == "bn":
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.constant_(module.bias, 0.5)
                module.momentum = 1.0  # the running statistics become this batch's
        model(frames(name, B=8).double())
    elif norm == "none":
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.constant_(module.bias, 0.7)
    return eisnn.ei_init_(model, frames(name, B=8).double())


# -- what is built --------------------------------------------------------------------------------


def test_all_names_are_listed() -> None:
    assert list_models() == NAMES


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", RUN)
def test_every_network_takes_images_and_frames_and_uses_every_parameter(
    name: str, norm: str
) -> None:
    model = small(name, norm)
    x = frames(name, B=2, T=2).clamp(max=1)
    eisnn.ei_init_(model, frames(name, B=4, T=2).clamp(max=1))
    logits = model(x)
    assert logits.shape == (2, 5)
    assert logits.dtype == torch.float32
    images = model(x[:, 0])
    assert images.shape == (2, 5)
    assert logits.isfinite().all()
    assert images.isfinite().all()
    logits.square().sum().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert missing == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", [n for n in NAMES if n not in RUN])
def test_the_deepest_networks_are_built(name: str, norm: str) -> None:
    model = small(name, norm, width=0.05)
    blocks = [m for m in model.modules() if isinstance(m, ResidualBlock)]
    assert len(blocks) == {"resnet101": 33, "resnet152": 50}[name]
    assert sum(isinstance(m, LIF) for m in model.modules()) == 1 + 3 * len(blocks) + 4


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", FAMILIES)
def test_norm_decides_what_layers_are(name: str, norm: str) -> None:
    kinds = {type(m) for m in small(name, norm).modules()}
    batch_norm = {nn.BatchNorm1d} if name.startswith("mlp") else {nn.BatchNorm2d}
    plain = {nn.Linear} if name.startswith("mlp") else {nn.Linear, nn.Conv2d}
    circuits = {EILinear} if name.startswith("mlp") else {EIConv2d}
    expected = {"ei": circuits | {EIOutput}, "bn": plain | batch_norm, "none": plain}
    layers = {EILinear, EIConv2d, EIOutput, nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d}
    assert kinds & layers == expected[norm]


@pytest.mark.parametrize("norm", NORMS)
def test_convolutions_have_a_bias_unless_batch_norm_has_it(norm: str) -> None:
    convolutions = [m for m in small("vgg8", norm).modules() if isinstance(m, nn.Conv2d)]
    assert [m.bias is not None for m in convolutions] == [norm == "none"] * len(convolutions)


def test_options_reach_every_layer() -> None:
    surrogate = eisnn.functional.Sigmoid(alpha=2.0)
    options = {"ei_ratio": 2, "tau": 3.0, "v_threshold": 0.5, "surrogate": surrogate}
    for name in FAMILIES:
        model = small(name, **options)
        assert model.T == 3
        for module in model.modules():
            if isinstance(module, LIF):
                assert (module.tau, module.v_threshold) == (3.0, 0.5)
                assert module.surrogate is surrogate
            if isinstance(module, EIModule):
                n_e, n_i = module.weight_ei.shape
                assert n_i == n_e // 2


WIDTHS = {
    "mlp2": [500],
    "mlp4": [500, 500, 300],
    "mlp6": [500, 500, 300, 300, 300],
    "mlp8": [500, 500, 300, 300, 300, 100, 100],
    "mlp12": [500] * 4 + [300] * 4 + [100] * 3,
    "mlp16": [500] * 5 + [300] * 5 + [100] * 5,
}


@pytest.mark.parametrize("name", WIDTHS)
def test_widths_of_mlps(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=7, in_channels=1, image_size=(4, 9))
    layers = [m for m in model.modules() if isinstance(m, EIModule)]
    sizes = [36, *WIDTHS[name], 7]
    assert [(m.in_features, m.out_features) for m in layers] == list(pairwise(sizes))
    assert [type(m) for m in layers] == [EILinear] * len(WIDTHS[name]) + [EIOutput]
    assert len(layers) == int(name.removeprefix("mlp"))


PLANS = {
    "vgg8": "64 P 128 P 256 P 512 P 512 P",
    "vgg11": "64 P 128 P 256 256 P 512 512 P 512 512 P",
    "vgg16": "64 64 P 128 128 P 256 256 256 P 512 512 512 P 512 512 512 P",
    "vgg19": "64 64 P 128 128 P 256 256 256 256 P 512 512 512 512 P 512 512 512 512 P",
}


@pytest.mark.parametrize("name", PLANS)
def test_plan_of_vggs(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=10)
    plan = []
    for module in model.modules():
        if isinstance(module, EIConv2d):
            geometry = (module.kernel_size, module.stride, module.padding)
            assert geometry == ((3, 3), (1, 1), (1, 1))
            plan.append(str(module.out_channels))
        elif isinstance(module, AvgPool2d):
            assert module.size == 2
            plan.append("P")
    assert " ".join(plan) == PLANS[name]
    convolutions = [m for m in model.modules() if isinstance(m, EIConv2d)]
    assert sum(isinstance(m, LIF) for m in model.modules()) == len(convolutions)


def test_full_classifier_of_vggs() -> None:
    with torch.device("meta"):
        model = create_model("vgg8", num_classes=10, classifier="full")
        light = create_model("vgg8", num_classes=10)
    layers = [m for m in model.modules() if isinstance(m, EILinear | EIOutput)]
    assert [(m.in_features, m.out_features) for m in layers] == [
        (512, 4096), (4096, 4096), (4096, 10),
    ]  # fmt: skip
    assert [type(m) for m in layers] == [EILinear, EILinear, EIOutput]
    spiking = [m for m in model.modules() if isinstance(m, EILinear | LIF)]
    assert [type(m) for m in spiking[-4:]] == [EILinear, LIF, EILinear, LIF]
    (only,) = (m for m in light.modules() if isinstance(m, EILinear | EIOutput))
    assert isinstance(only, EIOutput)
    assert only.in_features == 512


@pytest.mark.parametrize("norm", NORMS)
def test_full_classifier_runs(norm: str) -> None:
    model = small("vgg8", norm, classifier="full", width=0.02)
    eisnn.ei_init_(model, frames("vgg8", B=4))
    assert model(frames("vgg8")).shape == (3, 5)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("resnet18", [2, 2, 2, 2]), ("resnet34", [3, 4, 6, 3]), ("resnet50", [3, 4, 6, 3])],
)
def test_plan_of_resnets(name: str, blocks: list[int]) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=10)
    bottleneck = name == "resnet50"
    stem, *_ = (m for m in model.modules() if isinstance(m, EIConv2d))
    assert (stem.out_channels, stem.kernel_size, stem.stride) == (64, (3, 3), (1, 1))
    got = [m for m in model.modules() if isinstance(m, ResidualBlock)]
    expected: list[tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int, int]]]] = []
    channels = 64
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True)):
        for i in range(count):
            stride = 2 if stage and not i else 1
            out = 4 * width if bottleneck else width
            plan = [(channels, width, 3, stride), (width, width, 3, 1)]
            if bottleneck:
                plan = [
                    (channels, width, 1, 1),
                    (width, width, 3, stride),
                    (width, out, 1, 1),
                ]
            changed = stride != 1 or channels != out
            expected.append((plan, [(channels, out, 1, stride)] if changed else []))
            channels = out

    def plan_of(part: nn.Module) -> list[tuple[int, int, int, int]]:
        return [
            (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
            for m in part.modules()
            if isinstance(m, EIConv2d)
        ]

    assert [(plan_of(block.main), plan_of(block.shortcut)) for block in got] == expected


def test_a_block_adds_its_spikes_to_its_input() -> None:
    torch.manual_seed(1)
    block = ResidualBlock(eisnn.models.layers.Layers(), 8, 8, 1, bottleneck=False)
    x = torch.randint(0, 3, (3, 4, 8, 5, 5)).float()
    eisnn.ei_init_(block, x)
    out = block(x)
    spikes = block.main(x)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(out, x + spikes)


# -- sizes as published ---------------------------------------------------------------------------

PUBLISHED = {
    "EI-SNN MLP4 (MNIST)": ("mlp4", "ei", {"in_channels": 1, "image_size": 28}),
    "EI-SNN VGG8 light": ("vgg8", "ei", {}),
    "EI-SNN VGG11 light": ("vgg11", "ei", {}),
    "EI-SNN VGG16 light": ("vgg16", "ei", {}),
    "EI-SNN VGG19 light": ("vgg19", "ei", {}),
    "EI-SNN VGG8 light, DVS (seq_input)": ("vgg8", "ei", {"in_channels": 2}),
    "EI-SNN VGG11 light, DVS (seq_input)": ("vgg11", "ei", {"in_channels": 2}),
    "EI-SNN VGG8 full classifier": ("vgg8", "ei", {"classifier": "full"}),
    "EI-SNN ResNet18": ("resnet18", "ei", {}),
    "EI-SNN ResNet50": ("resnet50", "ei", {}),
    "BN-SNN MLP4 (MNIST)": ("mlp4", "bn", {"in_channels": 1, "image_size": 28}),
    "BN-SNN VGG8 light": ("vgg8", "bn", {}),
    "BN-SNN VGG16 light": ("vgg16", "bn", {}),
    "BN-SNN VGG8 full classifier": ("vgg8", "bn", {"classifier": "full"}),
    "BN-SNN ResNet18": ("resnet18", "bn", {}),
}


@pytest.mark.parametrize("published", PUBLISHED)
def test_parameters_are_those_of_the_published_network(published: str) -> None:
    """As many parameters of the same sizes; what the published one never uses is left out."""
    shapes: dict[str, list[int]] = json.loads((DATA / "state_dict_keys.json").read_text())[
        published
    ]
    name, norm, options = PUBLISHED[published]
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    unused = [f"{list(shapes)[-1].rsplit('.', 1)[0]}.{n}" for n in ("gain_i", "gain_e", "bias")]
    sizes = sorted(
        math.prod(shape)
        for key, shape in shapes.items()
        if not key.endswith(buffers) and not (norm == "ei" and key in unused)
    )
    with torch.device("meta"):
        model = create_model(name, num_classes=10, norm=norm, **options)
    assert sorted(p.numel() for p in model.parameters()) == sizes
    assert sum(sizes) == sum(p.numel() for p in model.parameters())


def test_every_published_network_is_compared() -> None:
    assert set(PUBLISHED) == set(json.loads((DATA / "state_dict_keys.json").read_text()))


# -- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_are_registered_in_the_order_in_which_they_run(name: str) -> None:
    model = small(name)
    kinds = (EIModule, LIF)
    ran: list[nn.Module] = []
    registered = [m for m in model.modules() if isinstance(m, kinds)]
    eisnn.ei_init_(model, frames(name, B=4))
    for module in registered:
        module.register_forward_hook(lambda m, *_: ran.append(m))
    model(frames(name))
    assert [id(m) for m in ran] == [id(m) for m in registered]


# -- samples and time -----------------------------------------------------------------------------

SEPARATE = [(name, norm) for name in FAMILIES for norm in NORMS]


def fit_to_compare(model: SpikingNetwork, norm: str) -> SpikingNetwork:
    return model.eval() if norm == "bn" else model.train()


@pytest.mark.parametrize(("name", "norm"), SEPARATE)
def test_a_sample_does_not_see_the_others(name: str, norm: str) -> None:
    model = fit_to_compare(ready(name, norm), norm)
    x = frames(name, seed=1).double()
    for module in model.modules():
        if isinstance(module, EIModule):
            module.weight_ei.data[0] = 0  # not inhibited: divided by its sample's smallest divisor
    other = x.clone()
    other[1] = 0.01 * frames(name, B=1, seed=2)[0]  # has smaller ones
    before, after = model(x), model(other)
    assert not torch.allclose(before[1], after[1])
    for i in (0, 2):
        torch.testing.assert_close(after[i], before[i], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model(x[i : i + 1])[0], before[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mlp4", "vgg8", "resnet18"])
def test_per_sample_gradients_sum_to_the_gradient_of_the_batch(name: str) -> None:
    model = ready(name)
    x, labels = frames(name, T=3, seed=1).double(), torch.arange(3)
    parameters = {key: p.detach() for key, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, parameters, sample[None])
        return F.cross_entropy(logits, label[None])

    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, labels)
    F.cross_entropy(model(x), labels, reduction="sum").backward()
    for key, p in model.named_parameters():
        assert per_sample[key].shape == (3, *p.shape)
        torch.testing.assert_close(per_sample[key].sum(0), p.grad, rtol=1e-9, atol=1e-12)
        assert key.endswith("output.weight_ie") or per_sample[key].std(0).max() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_batch_norm_in_training_sees_the_batch(name: str) -> None:
    """So the test above can tell."""
    model = ready(name, "bn").train()
    x = frames(name, seed=1).double()
    assert not torch.allclose(model(x)[:2], model(x[:2]), rtol=1e-6)


@pytest.mark.parametrize(("name", "norm"), SEPARATE)
def test_the_order_of_frames_matters_and_their_number_is_free(name: str, norm: str) -> None:
    model = fit_to_compare(ready(name, norm), norm)
    x = frames(name, T=6, seed=1).double()
    assert model.T == 3
    logits = model(x)
    assert logits.shape == (3, 5)
    assert not torch.allclose(model(x.flip(1)), logits)
    assert not torch.allclose(model(x[:, :5]), logits)
    assert model(x[:, :1]).shape == (3, 5)


@pytest.mark.parametrize(("name", "norm"), SEPARATE)
def test_an_image_is_the_same_frame_at_each_of_the_steps(name: str, norm: str) -> None:
    model = fit_to_compare(ready(name, norm), norm)
    image = frames(name, T=1, seed=1).double()[:, 0]
    as_frames = torch.stack([image] * model.T, 1)
    torch.testing.assert_close(model(image), model(as_frames), rtol=1e-12, atol=1e-12)
    longer = torch.stack([image] * (model.T + 2), 1)
    assert not torch.allclose(model(image), model(longer))


def test_logits_are_the_mean_of_the_outputs_over_time() -> None:
    model = ready("mlp4")
    outputs: list[Tensor] = []
    model.body.output.register_forward_hook(lambda *args: outputs.append(args[-1]))
    x = frames("mlp4", T=5).double()
    logits = model(x)
    (per_step,) = outputs
    assert per_step.shape == (5, 3, 5)
    torch.testing.assert_close(logits, sum(per_step) / 5, rtol=1e-12, atol=1e-14)


def test_nothing_is_kept_between_calls() -> None:
    for name in FAMILIES:
        model = ready(name)
        x = frames(name).double()
        first = model(x)
        assert torch.equal(model(x), first)
        assert model(frames(name, B=2, T=2).double()).shape == (2, 5)
        assert torch.equal(model(x), first)


def test_modes_are_the_same_for_networks_without_batch_norm() -> None:
    for name in FAMILIES:
        model = ready(name)
        x = frames(name).double()
        assert torch.equal(model.train()(x), model.eval()(x))


def test_the_network_learns() -> None:
    """Two classes of the same pattern, early or late: only time tells them apart."""
    torch.manual_seed(0)
    model = create_model("mlp2", num_classes=2, in_channels=1, image_size=4, T=4, width=0.2)
    x = torch.zeros(16, 4, 1, 4, 4)
    pattern = torch.rand(1, 4, 4) + 0.2
    x[:8, :2], x[8:, 2:] = pattern, pattern
    x *= 0.8 + 0.4 * torch.rand(16, 1, 1, 1, 1)
    labels = torch.arange(16) // 8
    eisnn.ei_init_(model, x)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    eisnn.constrain(model, optimizer)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert (model(x).argmax(1) == labels).all()


# -- errors ---------------------------------------------------------------------------------------


def test_unknown_name_lists_what_there_is_and_suggests() -> None:
    with pytest.raises(ValueError, match=r"'vgg9'.*Did you mean 'vgg(8|19|16|11)'") as error:
        create_model("vgg9", num_classes=10)
    for name in NAMES:
        assert name in str(error.value)
    with pytest.raises(ValueError, match="'transformer'") as error:
        create_model("transformer", num_classes=10)
    assert "Did you mean" not in str(error.value)


@pytest.mark.parametrize("name", ["mlp2", "vgg8", "resnet18"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "batch"}, r"norm .*ei, bn, none.*'batch'"),
        ({"classifier": "heavy"}, r"classifier .*light or full.*'heavy'"),
        ({"width": 0.0}, r"width .*> 0, got 0.0"),
        ({"width": -1.0}, r"width .*got -1.0"),
        ({"width": math.inf}, r"width .*got inf"),
        ({"width": math.nan}, r"width .*got nan"),
        ({"num_classes": 0}, r"num_classes .*positive.*got 0"),
        ({"num_classes": -3}, r"num_classes .*got -3"),
        ({"in_channels": 0}, r"in_channels .*got 0"),
        ({"T": 0}, r"T .*>= 1, got 0"),
        ({"surrogate": "tanh"}, r"surrogate .*sigmoid, arctan, leaky_relu.*'tanh'"),
        ({"ei_ratio": 0}, r"ei_ratio .*got 0"),
        ({"tau": 0.5}, r"tau .*>= 1, got 0.5"),
        ({"v_threshold": 0.0}, r"v_threshold .*> 0, got 0.0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(name, **options)


def test_width_never_rounds_a_layer_away() -> None:
    model = small("mlp16", width=1e-6)
    assert {m.out_features for m in model.modules() if isinstance(m, EILinear)} == {1}


INPUTS = {
    "another size for an mlp": (
        "mlp2",
        (3, 2, 9, 8),
        r"\(8, 8\).*got \(9, 8\).*image_size=\(9, 8\)",
    ),
    "another size in frames for an mlp": ("mlp2", (3, 4, 2, 8, 7), r"\(8, 8\).*got \(8, 7\)"),
    "too small for a vgg": ("vgg8", (3, 2, 31, 40), r"at least 32x32 pixels, got \(31, 40\)"),
    "too small frames for a vgg": ("vgg8", (3, 4, 2, 32, 16), r"32x32 pixels, got \(32, 16\)"),
    "channels of images": ("resnet18", (3, 3, 8, 8), r"C = 2, got shape \(3, 3, 8, 8\)"),
    "channels of frames": ("mlp2", (3, 4, 1, 8, 8), r"C = 2, got shape \(3, 4, 1, 8, 8\)"),
    "frames with time and channels swapped": ("vgg8", (3, 2, 4, 32, 32), r"C = 2.*\(3, 2, 4, 32"),
    "no batch": ("vgg8", (2, 32, 32), r"\[B, C, H, W\].*got shape \(2, 32, 32\)"),
    "no image": ("mlp2", (3, 128), r"got shape \(3, 128\)"),
    "six axes": ("resnet18", (1, 3, 4, 2, 8, 8), r"got shape \(1, 3, 4, 2, 8, 8\)"),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("case", INPUTS)
def test_bad_inputs(case: str, norm: str) -> None:
    name, shape, message = INPUTS[case]
    model = small(name, norm)
    with pytest.raises(ValueError, match=message):
        model(torch.rand(shape))


def test_larger_images_are_taken_where_the_network_can() -> None:
    for name, size in (("vgg8", (48, 40)), ("vgg8", (64, 64)), ("resnet18", (9, 13))):
        model = small(name)
        x = torch.rand(4, 2, *size)
        eisnn.ei_init_(model, x)
        assert model(x).shape == (4, 5)


def test_an_mlp_takes_a_rectangle() -> None:
    model = small("mlp2", image_size=(4, 9))
    eisnn.ei_init_(model, torch.rand(4, 2, 4, 9))
    assert model(torch.rand(4, 2, 4, 9)).shape == (4, 5)
    with pytest.raises(ValueError, match=re.escape("got (9, 4)")):
        model(torch.rand(4, 2, 9, 4))


def test_without_init_the_error_says_what_to_call() -> None:
    for name in FAMILIES:
        with pytest.raises(RuntimeError, match=r"eisnn.ei_init_\(model, batch\)"):
            small(name)(frames(name))
