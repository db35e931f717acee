"""Networks that are copied, converted or trained on several processes stay the same networks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import eisnn
from eisnn.nn import EIModule, nonnegative_parameters
from processes import leave

B = 8


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(B, 2, 32, 32, generator=generator).double(), torch.arange(B) % 3


def network(name: str, seed: int = 0) -> nn.Module:
    """A network after E-I Init, in float64 so that the order of sums does not matter."""
    model = eisnn.create_model(
        name, num_classes=3, in_channels=2, image_size=32, T=2, width=0.05, v_threshold=0.5
    ).double()
    return eisnn.ei_init_(model, data()[0], generator=torch.Generator().manual_seed(seed))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    x, labels = data()
    model.zero_grad()
    F.cross_entropy(model(x), labels).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def through_state_dict(model: nn.Module) -> nn.Module:
    other = eisnn.create_model(
        "vgg8", num_classes=3, in_channels=2, T=2, width=0.05, v_threshold=0.5
    ).double()
    assert not eisnn.is_initialised(other)
    other.load_state_dict(model.state_dict(), strict=True)
    return other


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "state_dict": through_state_dict,
    "float64 again": lambda model: copy.deepcopy(model).to(torch.float64),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copied_network_is_the_same_and_its_own(name: str) -> None:
    model = network("vgg8")
    twin = COPIES[name](model)
    assert eisnn.is_initialised(twin)
    registry, twins = dict(nonnegative_parameters(model)), dict(nonnegative_parameters(twin))
    assert list(twins) == list(registry)
    assert not set(twins.values()) & set(registry.values())
    expected = gradients(model)
    for key, grad in gradients(twin).items():
        assert torch.equal(grad, expected[key]), key
    with torch.no_grad():
        for p in twin.parameters():
            p.sub_(100)
    eisnn.project_(twin)
    assert all((p == 0).all() for p in twins.values())
    assert all(p.min() >= 0 for p in registry.values())
    assert eisnn.is_initialised(model)


def test_a_network_of_float32_goes_to_float64() -> None:
    model = network("vgg8").float()
    wide = copy.deepcopy(model).to(torch.float64)
    assert eisnn.is_initialised(wide)
    assert {p.dtype for p in wide.parameters()} == {torch.float64}
    assert [n for n, _ in nonnegative_parameters(wide)] == [
        n for n, _ in nonnegative_parameters(model)
    ]
    layers = [m for m in wide.modules() if isinstance(m, EIModule)]
    calls: list[float] = []
    scaled = eisnn.functional.circuit.scale_grad

    def watched(x: Tensor, factor: float) -> Tensor:
        calls.append(factor)
        return scaled(x, factor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eisnn.functional.circuit.scale_grad", watched)
        gradients(wide)
    assert set(calls) == {1 / layer.fan_in for layer in layers}


@pytest.mark.parametrize("convert", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_network_without_weights_stays_so(convert: Callable[[nn.Module], nn.Module]) -> None:
    model = eisnn.create_model("mlp2", num_classes=3, image_size=4, width=0.1)
    assert not eisnn.is_initialised(convert(model))
    assert not eisnn.is_initialised(copy.deepcopy(model).double())


# -- several processes ----------------------------------------------------------------------------

DISTRIBUTED = ["mlp4", "vgg8"]


def two_steps(model: nn.Module, x: Tensor, labels: Tensor) -> list[dict[str, Tensor]]:
    """Gradients of two steps of training, and the parameters at the end."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    eisnn.constrain(model, optimizer)
    found = []
    for _ in range(2):  # the second step is an error if a parameter was not used in the first
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
        optimizer.step()
    found.append({name: p.detach().clone() for name, p in model.named_parameters()})
    return [{k.removeprefix("module."): v for k, v in part.items()} for part in found]


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/door", rank=rank, world_size=2)
    try:
        for name in DISTRIBUTED:
            model = network(name, seed=rank)  # other weights on rank 1: rank 0's are sent
            x, labels = (part.chunk(2)[rank] for part in data())
            torch.save(
                two_steps(DistributedDataParallel(model), x, labels), f"{folder}/{name}-{rank}"
            )
        leave()
    finally:
        dist.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    assert not torch.equal(network("mlp4", 1).body[1].weight_ee, network("mlp4").body[1].weight_ee)
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    for name in DISTRIBUTED:
        alone = two_steps(network(name), *data())
        for rank in range(2):
            together = torch.load(tmp_path / f"{name}-{rank}")
            for got, expected in zip(together, alone, strict=True):
                assert got.keys() == expected.keys()
                for key, value in got.items():
                    scale = expected[key].abs().max().item()
                    torch.testing.assert_close(
                        value,
                        expected[key],
                        rtol=1e-9,
                        atol=1e-10 * scale + 1e-13,
                        msg=lambda text, what=(name, rank, key): f"{what}: {text}",
                    )
