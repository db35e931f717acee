"""Published checkpoints: the official layout, round trips, and every way a file can be wrong."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import eisnn
from eisnn.interop import load_published, published_state_dict, save_published

DATA = Path(__file__).parents[1] / "data"
OFFICIAL: dict[str, dict[str, list[int]]] = json.loads((DATA / "state_dict_keys.json").read_text())


def config_of(name: str) -> dict[str, Any]:
    """The config.json of one entry of state_dict_keys.json, with a field of no interest."""
    arch = next(arch for arch in ("MLP", "VGG", "ResNet") if arch in name)
    depth = name.split(arch)[1].split()[0].rstrip(",")
    config: dict[str, Any] = {
        "batch_size": 128,
        "type": name.split()[0],
        "arch": arch,
        "num_layers": int(depth),
        "T": 2,
        "dataset": "MNIST" if "MNIST" in name else "CIFAR10DVS" if "DVS" in name else "CIFAR10",
        "neuron": {"tau": 2.0},
    }
    if config["type"] == "EI-SNN":
        config["ei_ratio"] = 4
    if arch == "VGG":
        config |= {"dropout": 0.0, "light_classifier": "full" not in name}
    if arch == "ResNet":
        config["zero_init_residual"] = False
    return config


def random_state(name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        key: torch.tensor(7)
        if key.endswith("num_batches_tracked")
        else torch.rand(shape, generator=generator)
        for key, shape in OFFICIAL[name].items()
    }


def write(folder: Path, config: Any, state: dict[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=4) + "\n")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A place for checkpoints of up to 120 MB, emptied at once."""
    yield tmp_path
    shutil.rmtree(tmp_path)


MLP = "EI-SNN MLP4 (MNIST)"


@pytest.fixture
def mlp(folder: Path) -> Path:
    """A small checkpoint for tests to damage."""
    return write(folder / "mlp", config_of(MLP), random_state(MLP))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a checkpoint's config."""
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))


def edit_state(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change a checkpoint's tensors."""
    state = {key: tensor.clone() for key, tensor in load_file(path / "model.safetensors").items()}
    change(state)
    save_file(state, path / "model.safetensors")


# Round trips


@pytest.mark.parametrize("name", OFFICIAL)
def test_round_trip_is_exact(name: str, folder: Path) -> None:
    source = write(folder / "in", config_of(name), random_state(name))
    model = load_published(source)
    assert not model.training
    assert eisnn.is_initialised(model)

    official = published_state_dict(model)
    shapes = {key: list(tensor.shape) for key, tensor in official.items()}
    assert list(shapes.items()) == list(OFFICIAL[name].items())

    save_published(model, folder / "out")
    for file in ("config.json", "model.safetensors"):
        assert (source / file).read_bytes() == (folder / "out" / file).read_bytes(), file
    assert sorted(os.listdir(folder / "out")) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_of_the_file_is_kept(mlp: Path, folder: Path, dtype: torch.dtype) -> None:
    edit_state(mlp, lambda s: s.update({key: t.to(dtype) for key, t in s.items()}))
    model = load_published(mlp)
    assert {p.dtype for p in model.parameters()} == {dtype}
    save_published(model, folder / "out")
    out = load_file(folder / "out" / "model.safetensors")
    for key, tensor in load_file(mlp / "model.safetensors").items():
        assert out[key].dtype == dtype
        assert torch.equal(out[key], tensor), key


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_save_the_same_file(
    mlp: Path, folder: Path, clone: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    save_published(clone(load_published(mlp)), folder / "out")  # type: ignore[arg-type]
    for file in ("config.json", "model.safetensors"):
        assert (mlp / file).read_bytes() == (folder / "out" / file).read_bytes()


def test_unused_tensors_follow_the_dtype_of_the_model(mlp: Path) -> None:
    state = published_state_dict(load_published(mlp).double())
    assert {tensor.dtype for tensor in state.values()} == {torch.float64}
    assert torch.equal(state["layers.18.gain_e"], random_state(MLP)["layers.18.gain_e"].double())


def test_saving_over_the_loaded_folder(mlp: Path) -> None:
    model = load_published(mlp)
    save_published(model, mlp, config={"note": "second"})
    assert json.loads((mlp / "config.json").read_text()) == {**config_of(MLP), "note": "second"}
    again = load_published(mlp).state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", [MLP, "BN-SNN MLP4 (MNIST)"])
def test_loading_draws_nothing_and_gives_parameters_to_train(name: str, folder: Path) -> None:
    source = write(folder / "in", config_of(name), random_state(name))
    before = torch.get_rng_state()
    model = load_published(source)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())
    model(torch.rand(2, 1, 28, 28)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_files_are_as_readable_as_any_other(mlp: Path, folder: Path) -> None:
    save_published(load_published(mlp), folder / "out")
    (folder / "plain").touch()
    modes = {path.stat().st_mode for path in [folder / "plain", *(folder / "out").iterdir()]}
    assert len(modes) == 1


def test_the_model_does_not_hang_on_the_file(folder: Path) -> None:
    name = "BN-SNN MLP4 (MNIST)"
    file = write(folder / "in", config_of(name), random_state(name)) / "model.safetensors"
    model = load_published(file.parent)
    with file.open("r+b") as stream:
        stream.write(bytes(file.stat().st_size))
    assert all(bool(tensor.any()) for tensor in model.state_dict().values())


def test_memory_format_does_not_matter(folder: Path) -> None:
    model = bn_vgg8()
    plain = published_state_dict(model, config={"dataset": "CIFAR10"})
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_published(model, folder / "out", config={"dataset": "CIFAR10"})
    saved = load_file(folder / "out" / "model.safetensors")
    assert all(torch.equal(saved[key], tensor) for key, tensor in plain.items())


# What a loaded network computes


def lif(current: Tensor) -> Tensor:
    """tau 2, threshold 1, soft reset; [T, B, ...]."""
    v = torch.zeros_like(current[0])
    spikes = []
    for x in current:
        h = v / 2 + x
        spikes.append((h >= 1).to(x))
        v = h - spikes[-1]
    return torch.stack(spikes)


class Reference:
    """A slow network computed from official tensors by their official names."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def current(self, x: Tensor, weights: str, norm: str, stride: int = 1) -> Tensor:
        """Integrated current of one layer; the balanced one for an output layer."""
        steps = x.shape[:2]
        x = x.flatten(0, 1)
        of = self.state.get

        def apply(weight: Tensor, bias: Tensor | None = None) -> Tensor:
            if weight.dim() == 2:
                return x @ weight.T + (0 if bias is None else bias)
            return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

        if f"{norm}.weight_ei" in self.state:
            kind = "conv_{}.weight" if x.dim() == 4 else "weight_{}"
            w_ee, w_ie = (self.state[f"{weights}.{kind.format(p)}"] for p in ("ee", "ie"))
            w_ei = self.state[f"{norm}.weight_ei"]
            i_ie = apply(w_ie)
            balanced = apply(w_ee) - torch.einsum("ei,ni...->ne...", w_ei, i_ie)
            if norm in ("layers.18", "layers.38", "final_ei_norm"):  # output layers
                return balanced.unflatten(0, steps)
            gained = self.state[f"{norm}.gain_i"] * i_ie
            divisor = torch.einsum("ei,ni...->ne...", w_ei, gained)
            for sample in divisor:
                positive = sample[sample > 0]
                sample[sample == 0] = positive.min() if positive.numel() else math.inf
            out = self.state[f"{norm}.gain_e"] * balanced / divisor + self.state[f"{norm}.bias"]
        else:
            kind = "conv" if x.dim() == 4 else "linear"
            out = apply(self.state[f"{weights}.{kind}.weight"], of(f"{weights}.{kind}.bias"))
            if f"{norm}.bn.weight" in self.state:
                names = ("running_mean", "running_var", "weight", "bias")
                shape = (-1, 1, 1) if x.dim() == 4 else (-1,)
                mean, var, scale, shift = (
                    self.state[f"{norm}.bn.{name}"].reshape(shape) for name in names
                )
                out = (out - mean) / torch.sqrt(var + 1e-5) * scale + shift
        return out.unflatten(0, steps)

    def layer(self, x: Tensor, weights: str, norm: str, stride: int = 1) -> Tensor:
        return lif(self.current(x, weights, norm, stride))

    def vgg8(self, x: Tensor, layers: list[int], output: int) -> Tensor:
        for n in layers:
            x = self.layer(x, f"layers.{n}", f"layers.{n + 1}")
            x = F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])
        return self.current(x.flatten(2), f"layers.{output}", f"layers.{output + 1}").mean(0)

    def resnet18(self, x: Tensor, norm: str) -> Tensor:
        x = self.layer(x, "conv1", f"{norm}1")
        for stage in range(1, 5):
            for block in range(2):
                name = f"layer{stage}.{block}"
                stride = 2 if stage > 1 and block == 0 else 1
                y = self.layer(x, f"{name}.conv1", f"{name}.{norm}1", stride)
                y = self.layer(y, f"{name}.conv2", f"{name}.{norm}2")
                if stride == 2:
                    x = self.layer(x, f"{name}.downsample.0", f"{name}.downsample.1", 2)
                x = x + y
        return self.current(x.mean((-2, -1)), "fc", "final_ei_norm").mean(0)


def lively(name: str, x: Tensor) -> dict[str, Tensor]:
    """A published state in float64 whose layers all spike on ``x``, no two tensors alike."""
    config = config_of(name)
    torch.manual_seed(2)
    model = eisnn.create_model(
        f"{config['arch'].lower()}{config['num_layers']}",
        num_classes=10,
        in_channels=x.shape[-3],
        T=config["T"],
        norm="ei" if config["type"] == "EI-SNN" else "bn",
    ).double()
    eisnn.ei_init_(model, x)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith(("weight_ei", "gain_i", "gain_e", "running_var", "1.weight")):
                tensor.mul_(torch.empty_like(tensor).uniform_(0.8, 1.2))
            elif key.endswith(("bias", "running_mean")):
                tensor.add_(torch.empty_like(tensor).uniform_(0.0, 0.2))
        if config["type"] == "BN-SNN":  # running statistics of this input
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = 0.5
            model.train()(x)
    return published_state_dict(model, config=config)


@pytest.mark.parametrize(
    ("name", "shape", "forward"),
    [
        (
            "EI-SNN VGG8 light, DVS (seq_input)",
            (2, 2, 2, 48, 48),
            lambda net, x: net.vgg8(x.transpose(0, 1), [1, 8, 15, 22, 29], 37),
        ),
        (
            "BN-SNN VGG8 light",
            (2, 3, 32, 32),
            lambda net, x: net.vgg8(torch.stack([x, x]), [2, 8, 14, 20, 26], 33),
        ),
        (
            "EI-SNN ResNet18",
            (2, 3, 32, 32),
            lambda net, x: net.resnet18(torch.stack([x, x]), "norm"),
        ),
        (
            "BN-SNN ResNet18",
            (2, 3, 32, 32),
            lambda net, x: net.resnet18(torch.stack([x, x]), "bn"),
        ),
    ],
)
def test_forward_is_that_of_the_official_layout(
    name: str, shape: tuple[int, ...], forward: Callable[[Reference, Tensor], Tensor], folder: Path
) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    state = lively(name, x)
    model = load_published(write(folder / "in", config_of(name), state))
    with torch.no_grad():
        logits = model(x)
        expected = forward(Reference(state), x)
    assert logits.std() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-10)


def test_forward_is_that_of_the_published_code(folder: Path) -> None:
    """The MLP took 36 inputs when its logits were recorded; here, 748 more that are zero."""
    golden = load_file(DATA / "ei_mlp4_forward.safetensors")
    images = F.pad(golden.pop("images").double(), (0, 784 - 36)).view(-1, 1, 28, 28)
    logits = golden.pop("f64.logits")
    for key in ("layers.2.weight_ee", "layers.2.weight_ie"):
        golden[key] = F.pad(golden[key], (0, 784 - 36))
    config = {**config_of(MLP), "T": 4}
    model = load_published(write(folder / "in", config, golden)).double()
    torch.testing.assert_close(model(images), logits, rtol=1e-8, atol=1e-10)


def test_negative_weights_become_zero_and_biases_stay(mlp: Path) -> None:
    def negate(state: dict[str, Tensor]) -> None:
        for tensor in state.values():
            tensor.view(-1)[0] = -0.25

    edit_state(mlp, negate)
    model = load_published(mlp)
    for key, tensor in model.state_dict().items():
        assert tensor.flatten()[0] == (-0.25 if key.endswith("bias") else 0.0), key


def test_config_reaches_the_network(mlp: Path) -> None:
    edit(mlp, lambda c: c.update(T=3, neuron={"tau": 1.5, "v_threshold": 0.5}))
    model = load_published(mlp)
    assert model.T == 3
    neurons = [m for m in model.modules() if isinstance(m, eisnn.nn.LIF)]
    assert [(lif.tau, lif.v_threshold) for lif in neurons] == [(1.5, 0.5)] * 3


# Networks that were never loaded


@pytest.mark.parametrize("norm", ["ei", "bn"])
@pytest.mark.parametrize(
    ("name", "dataset", "options"),
    [
        ("mlp6", "CIFAR10", {"tau": 1.5}),
        ("vgg11", "CIFAR100", {"num_classes": 100, "T": 6}),
        ("vgg8", "DVSGesture", {"in_channels": 2, "num_classes": 11, "v_threshold": 0.5}),
        ("resnet34", "TinyImageNet200", {"num_classes": 200, "ei_ratio": 8}),
    ],
)
def test_new_networks_are_described_from_themselves(
    name: str, dataset: str, options: dict[str, Any], norm: str, folder: Path
) -> None:
    model = eisnn.create_model(name, norm=norm, **{"num_classes": 10, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0, 1)
    for module in model.modules():
        if isinstance(module, eisnn.nn.EIModule):
            module.mark_initialised()
    save_published(model, folder / "a" / "b", config={"dataset": dataset})
    loaded = load_published(folder / "a" / "b")
    assert loaded.T == model.T
    assert str(loaded) == str(model)  # every option is in the representation of its module
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_unused_tensors_of_a_new_network(folder: Path) -> None:
    model = eisnn.create_model("mlp2", num_classes=10, in_channels=1, image_size=28)
    eisnn.ei_init_(model, torch.rand(8, 1, 28, 28))
    state = published_state_dict(model, config={"dataset": "MNIST"})
    assert state["layers.8.gain_i"].tolist() == [[1.0] * 2]
    assert state["layers.8.gain_e"].tolist() == [[1.0] * 10]
    assert state["layers.8.bias"].tolist() == [[0.0] * 10]


# Files that are wrong


def test_missing_folder_and_files(mlp: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*nowhere'"):
        load_published(mlp / "nowhere")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_published(mlp / "config.json")
    (mlp / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no file model\.safetensors"):
        load_published(mlp)
    (mlp / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no file config\.json"):
        load_published(mlp)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is not JSON"),
        (b'{"type": ', "is not JSON"),
        (b"\xff\xfe\xfd", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1, 2]", "must hold a JSON object, got list"),
    ],
)
def test_malformed_config(mlp: Path, text: bytes, message: str) -> None:
    (mlp / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        load_published(mlp)


@pytest.mark.parametrize("field", ["type", "arch", "num_layers", "T", "dataset", "neuron"])
def test_missing_field(mlp: Path, field: str) -> None:
    edit(mlp, lambda c: c.pop(field))
    with pytest.raises(ValueError, match=rf"config\.json .* {field} is missing: it must be"):
        load_published(mlp)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "ANN"}, r'type must be one of "EI-SNN", "BN-SNN", got \'ANN\''),
        ({"arch": ["MLP"]}, r'arch must be one of "MLP", "VGG", "ResNet", got \[\'MLP\'\]'),
        ({"num_layers": 5}, "num_layers must be one of 2, 4, 6, 8, 12, 16 for MLP, got 5"),
        ({"num_layers": 4.0}, r"num_layers must be one of .*, got 4\.0"),
        ({"num_layers": "4"}, "num_layers must be one of .*, got '4'"),
        ({"T": 0}, "T must be a whole number >= 1, got 0"),
        ({"T": True}, "T must be a whole number >= 1, got True"),
        ({"dataset": "ImageNet"}, "dataset must be one of \"MNIST\", .*, got 'ImageNet'"),
        ({"dataset": "DVSGesture"}, "dataset must be one of .* for MLP, got 'DVSGesture'"),
        ({"neuron": 2.0}, r"neuron must be an object such as .*, got 2\.0"),
        ({"neuron": {}}, r"neuron\.tau is missing"),
        ({"neuron": {"tau": 0.5}}, r"neuron\.tau must be a number >= 1, got 0\.5"),
        ({"neuron": {"tau": math.nan}}, r"neuron\.tau must be a number >= 1, got nan"),
        ({"neuron": {"tau": 10**400}}, r"neuron\.tau must be a number >= 1, got 1000"),
        ({"neuron": {"tau": 2.0, "v_threshold": 0}}, r"neuron\.v_threshold must be .* > 0, got 0"),
        ({"neuron": {"tau": 2.0, "v_reset": 0}}, r"neuron\.v_reset is not known"),
        ({"ei_ratio": None}, "ei_ratio must be a whole number >= 1, got None"),
        (
            {"arch": "VGG", "num_layers": 8, "light_classifier": 1},
            "light_classifier must be one of true, false, got 1",
        ),
    ],
)
def test_wrong_field(mlp: Path, change: dict[str, Any], message: str) -> None:
    edit(mlp, lambda c: c.update(change))
    with pytest.raises(ValueError, match=message):
        load_published(mlp)


def test_all_wrong_fields_at_once(mlp: Path) -> None:
    edit(mlp, lambda c: c.update(T=-1, ei_ratio=0, dataset="?"))
    with pytest.raises(ValueError, match=r"T must be .*; dataset must be .*; ei_ratio must be"):
        load_published(mlp)


def test_wrong_tensors_are_all_listed(mlp: Path) -> None:
    def damage(state: dict[str, Tensor]) -> None:
        del state["layers.2.weight_ee"], state["layers.18.bias"]
        state["layers.3.gain_e"] = state["layers.3.gain_e"].flatten()
        state["layers.7.weight_ie"] = torch.zeros(125, 500, dtype=torch.int64)
        state["layers.12.weight_ee"] = state["layers.12.weight_ee"].double()
        state["layers.99.weight"] = torch.zeros(3)

    edit_state(mlp, damage)
    with pytest.raises(ValueError, match="Check that the two files belong together") as error:
        load_published(mlp)
    assert str(error.value).split("\n  ")[1:] == [
        "layers.2.weight_ee [500, 784] is missing",
        "layers.3.gain_e must have shape [1, 500], got [500]",
        "layers.7.weight_ie must be torch.float32, got torch.int64",
        "layers.12.weight_ee must be torch.float32, got torch.float64",
        "layers.18.bias [1, 10] is missing",
        "layers.99.weight [3] does not belong there",
    ]


def test_integer_weights(mlp: Path) -> None:
    edit_state(mlp, lambda s: s.update({k: t.to(torch.int32) for k, t in s.items()}))
    with pytest.raises(ValueError, match=r"must be torch\.float32, got torch\.int32") as error:
        load_published(mlp)
    assert len(str(error.value).splitlines()) == 1 + len(OFFICIAL[MLP])


def test_config_of_another_network(mlp: Path) -> None:
    edit(mlp, lambda c: c.update(dataset="CIFAR10"))
    with pytest.raises(ValueError, match=r"EI-SNN mlp4 for CIFAR10") as error:
        load_published(mlp)
    assert "layers.2.weight_ee must have shape [500, 3072], got [500, 784]" in str(error.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_diverged_weights(mlp: Path, value: float) -> None:
    edit_state(mlp, lambda s: s["layers.7.weight_ie"][3, 4].fill_(value))
    with pytest.raises(ValueError, match=r"diverged\. They are in:\n  layers\.7\.weight_ie$"):
        load_published(mlp)


def test_unused_tensors_may_hold_anything(mlp: Path) -> None:
    edit_state(mlp, lambda s: s["layers.18.gain_i"].fill_(math.nan))
    assert published_state_dict(load_published(mlp))["layers.18.gain_i"].isnan().all()


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_truncated_weights(mlp: Path, size: int) -> None:
    content = (mlp / "model.safetensors").read_bytes()
    (mlp / "model.safetensors").write_bytes(content[:size])
    with pytest.raises(ValueError, match=r"is not a complete safetensors file .* Fetch it again"):
        load_published(mlp)


class Hostile:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("dump", [torch.save, lambda o, f: f.write_bytes(pickle.dumps(o))])
def test_pickles_are_refused_unopened(mlp: Path, dump: Callable[[Any, Path], Any]) -> None:
    trace = mlp / "executed"
    pickle.loads(pickle.dumps(Hostile(trace)))
    assert trace.exists()  # it does work
    trace.unlink()
    dump({"layers.2.weight_ee": Hostile(trace)}, mlp / "model.safetensors")
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        load_published(mlp)
    assert not trace.exists()


# Models that cannot be saved


def test_uninitialised_network(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="has no weights yet"):
        save_published(
            eisnn.create_model("vgg8", num_classes=10),
            folder / "out",
            config={"dataset": "CIFAR10"},
        )
    assert not (folder / "out").exists()


def bn_vgg8(**options: Any) -> eisnn.models.SpikingNetwork:
    return eisnn.create_model("vgg8", **{"num_classes": 10, "norm": "bn", **options})


@pytest.mark.parametrize(
    ("options", "config", "message"),
    [
        ({}, None, r'dataset is missing.*Pass .* config=\{"dataset": "CIFAR10"\}'),
        ({"norm": "none"}, {"dataset": "CIFAR10"}, "has neither"),
        (
            {"width": 0.25},
            {"dataset": "CIFAR10"},
            r"(?s)width 1 .*body\.conv1\.0\.weight must have shape \[64, 3, 3, 3\], got \[16, 3, 3",
        ),
        (
            {"num_classes": 12},
            {"dataset": "CIFAR10"},
            r"(?s)body\.output\.bias must have shape \[10\], got \[12\]",
        ),
        ({}, {"dataset": "CIFAR10", "T": 9}, "T must be 9, the model has 4"),
        ({}, {"dataset": "CIFAR10", "num_layers": 11}, r"body\.conv6\.0\.weight .* is missing"),
        (
            {"tau": 3.0},
            {"dataset": "CIFAR10", "neuron": {"tau": 2.0}},
            r"neurons must have tau 2\.0 .* some with tau 3\.0 and v_threshold 1\.0",
        ),
    ],
)
def test_network_that_is_not_the_published_one(
    options: dict[str, Any], config: dict[str, Any] | None, message: str, folder: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        save_published(bn_vgg8(**options), folder / "out", config=config)
    assert not (folder / "out").exists()


def test_circuits_of_several_ratios(folder: Path) -> None:
    model = eisnn.create_model("mlp2", num_classes=10, in_channels=1, image_size=28)
    model.body.add_module("output", eisnn.nn.EIOutput(500, 10, ei_ratio=1))
    eisnn.ei_init_(model, torch.rand(8, 1, 28, 28))
    with pytest.raises(ValueError, match=r"share one ei_ratio.*\[\(10, 10\), \(500, 125\)\]"):
        save_published(model, folder / "out", config={"dataset": "MNIST"})


def test_module_that_is_no_network(mlp: Path, folder: Path) -> None:
    wrapped: Any = torch.nn.Sequential(load_published(mlp))
    with pytest.raises(ValueError, match=r"got Sequential\. Pass the network itself"):
        save_published(wrapped, folder / "out")


def test_loaded_network_that_was_changed(mlp: Path, folder: Path) -> None:
    model = load_published(mlp)
    model.T = 8
    with pytest.raises(ValueError, match="T must be 2, the model has 8"):
        save_published(model, folder / "out")
    save_published(model, folder / "out", config={"T": 8})
    assert load_published(folder / "out").T == 8


def test_circuits_that_depart_from_the_method(mlp: Path, folder: Path) -> None:
    model = eisnn.nn.set_options(load_published(mlp), eisnn.nn.CircuitOptions(dale=False))
    with pytest.raises(ValueError, match=r"published method, body\.linear1 has .*dale=False"):
        save_published(model, folder / "out")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, r"diverged\. They are in:\n  body\.linear2\.weight_ie$"),
        (-0.5, r"eisnn\.project_\(model\) first:\n  body\.linear2\.weight_ie$"),
    ],
)
def test_values_that_cannot_be_saved(mlp: Path, folder: Path, value: float, message: str) -> None:
    model = load_published(mlp)
    with torch.no_grad():
        model.get_parameter("body.linear2.weight_ie")[0, 0] = value
    with pytest.raises(ValueError, match=message):
        save_published(model, folder / "out")
    assert not (folder / "out").exists()


def test_failed_write_leaves_the_old_checkpoint(mlp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in mlp.iterdir()}
    model = load_published(mlp)

    def full_disk(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)  # the second of the two files
    with pytest.raises(OSError, match="no space left"):
        save_published(model, mlp, config={"note": "second"})
    assert {file.name: file.read_bytes() for file in mlp.iterdir()} == before


def test_config_that_is_no_json(mlp: Path, folder: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_published(load_published(mlp), folder / "out", config={"note": {1, 2}})
    assert not (folder / "out").exists()


# The package


def test_core_does_not_import_safetensors() -> None:
    code = "import sys, eisnn; print('safetensors' in sys.modules, 'eisnn.interop' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_missing_safetensors(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("eisnn.interop")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("safetensors")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr(eisnn, "interop")
    with pytest.raises(ImportError, match=r"pip install 'eisnn\[interop\]'"):
        _ = eisnn.interop
