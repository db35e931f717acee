"""What probes record equals direct computation, and training does not notice them."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import eisnn
from eisnn.analysis import Probe
from eisnn.analysis.probes import LayerStatistics
from eisnn.analysis.watching import Snapshot, layers_of, watch
from eisnn.nn import LIF, AvgPool2d, EIConv2d, EILinear, EIOutput, Spiking
from processes import leave


def small() -> tuple[Spiking, Tensor]:
    """A network whose layers run fused, and event frames [T, B, C, H, W]."""
    model = Spiking(
        EIConv2d(2, 8, 3, padding=1), LIF(), nn.Flatten(2), EILinear(8 * 16, 12), LIF(),
        EIOutput(12, 4),
    )  # fmt: skip
    x = torch.rand(3, 6, 2, 4, 4)
    eisnn.ei_init_(model, x)
    return model, x


def seen(model: nn.Module, x: Tensor) -> list[Snapshot]:
    snapshots: list[Snapshot] = []
    with watch(model, snapshots.append):
        model(x)
    return snapshots


def test_spikes_before_a_pool_are_spikes() -> None:
    circuit, lif, pool = EIConv2d(2, 8, 3, padding=1), LIF(), AvgPool2d(2)
    model = Spiking(circuit, lif, pool)  # one operation when nobody watches
    x = torch.rand(3, 6, 2, 5, 5)
    eisnn.ei_init_(model, x)
    expected = model(x)
    snapshots: list[Snapshot] = []
    with watch(model, snapshots.append):
        assert torch.equal(model(x), expected)
    (snapshot,) = snapshots
    assert torch.equal(snapshot.quantities["spikes"], lif(circuit(x)))
    assert snapshot.quantities["spikes"].shape == snapshot.quantities["v"].shape


def test_quantities_equal_those_of_the_layers_run_one_by_one() -> None:
    model, x = small()
    snapshots = seen(model, x)
    assert [s.layer for s in snapshots] == ["0", "3", "5"]
    assert [s.kind for s in snapshots] == ["ei", "ei", "output"]
    assert [s.neurons for s in snapshots] == ["1", "4", None]
    for snapshot, i in zip(snapshots[:2], (0, 3), strict=True):
        circuit, lif, got = model[i], model[i + 1], snapshot.quantities
        i_int = circuit(x)
        currents = circuit.currents(x)
        for name in ("i_ee", "i_ie", "i_sub", "i_div", "divisor"):
            torch.testing.assert_close(got[name].flatten(0, 1), getattr(currents, name))
        torch.testing.assert_close(got["i_int"], i_int, rtol=1e-4, atol=1e-5)
        assert torch.equal(got["spikes"], lif(i_int))
        v = None
        for t in range(3):
            _, v = lif.step(got["i_int"][t], v)
            assert torch.equal(got["v"][t], v)
        x = lif(i_int).flatten(2)
    torch.testing.assert_close(snapshots[2].quantities["i_int"], model[5](x))
    assert "spikes" not in snapshots[2].quantities


@pytest.mark.parametrize("norm", ["ei", "bn", "none"])
def test_all_layers_of_a_residual_network_are_seen(norm: str) -> None:
    model = eisnn.create_model("resnet18", num_classes=4, norm=norm, width=0.1).eval()
    x = torch.rand(4, 3, 16, 16)
    eisnn.ei_init_(model, x)
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, LIF):
            module.register_forward_hook(
                lambda _, args, out, name=name: found.update({name: args[0]})
            )
    model(x)
    inputs = dict(found)
    snapshots = {s.layer: s for s in seen(model, x)}
    names = ["conv", "stage1_1.main.conv1", "stage1_1.main.conv2"]
    assert list(snapshots)[:3] == names
    assert "stage2_1.shortcut.conv" in snapshots
    assert len(snapshots) == 1 + 16 + 3 + (norm == "ei")
    for snapshot in snapshots.values():
        if snapshot.kind == "output":
            continue
        assert snapshot.kind == norm
        expected = inputs[f"body.{snapshot.neurons}"]
        torch.testing.assert_close(snapshot.quantities["i_int"], expected, rtol=1e-4, atol=1e-4)
    assert set(snapshots) <= set(layers_of(model))


def test_a_static_image_is_seen_at_each_step() -> None:
    model = eisnn.create_model("mlp2", num_classes=3, image_size=4, width=0.1)
    x = torch.rand(8, 3, 4, 4)
    eisnn.ei_init_(model, x)
    first = seen(model, x)[0].quantities
    assert {len(value) for value in first.values()} == {4}
    assert torch.equal(first["i_ee"][0], first["i_ee"][3])


def test_streaming_is_seen_with_the_potentials_it_carries() -> None:
    model, x = small()
    whole = seen(model, x)[0].quantities["v"]
    snapshots: list[Snapshot] = []
    with watch(model, snapshots.append):
        state = None
        for t in range(3):
            _, state = model.step(x[t], state)
    potentials = [s.quantities["v"] for s in snapshots if s.layer == "0"]
    torch.testing.assert_close(torch.cat(potentials), whole, rtol=1e-4, atol=1e-5)


def train(model: nn.Module, x: Tensor, probe: Probe | None) -> list[Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    eisnn.constrain(model, optimizer)
    labels = torch.arange(len(x)) % 4
    model.train()
    for _ in range(4):
        optimizer.zero_grad()
        if probe is None:
            loss = F.cross_entropy(model(x), labels)
        else:
            with probe:
                loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
    return [*model.state_dict().values(), torch.rand(3)]


@pytest.mark.parametrize("norm", ["ei", "bn", "none"])
def test_training_with_a_probe_gives_the_same_bits(norm: str) -> None:
    torch.manual_seed(1)
    model = eisnn.create_model("vgg8", num_classes=4, width=0.1, norm=norm, v_threshold=0.5)
    x = torch.rand(8, 3, 32, 32)
    eisnn.ei_init_(model, x)
    twin = copy.deepcopy(model)
    probe = Probe(twin)
    torch.manual_seed(2)
    expected = train(model, x, None)
    torch.manual_seed(2)
    got = train(twin, x, probe)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert probe.layers["conv1"].distributions["i_int"].count == 4 * 4 * 8 * 6 * 32 * 32


def test_nothing_is_left_of_a_closed_probe() -> None:
    model, x = small()
    before = {name: dict(m.__dict__) for name, m in model.named_modules()}
    with Probe(model):
        model(x)
        assert any(dict(m.__dict__) != before[n] for n, m in model.named_modules())
    for name, module in model.named_modules():
        assert module.__dict__.keys() == before[name].keys()
        assert not module._forward_hooks
    pickle.dumps(model)
    with pytest.raises(ZeroDivisionError), Probe(model):
        _ = 1 / 0
    assert all("forward" not in m.__dict__ for m in model.modules())


def test_two_probes_at_once_are_a_clear_error() -> None:
    model, x = small()
    with Probe(model):
        with pytest.raises(RuntimeError, match="another probe"), Probe(model):
            pass
        model(x)


def test_figures_equal_direct_computation() -> None:
    model, x = small()
    other = torch.rand_like(x)
    with Probe(model) as probe:
        model(x)
        model(other)
    both = torch.cat([x, other], 1)  # [T, 2B, ...]
    circuit, layer = model[0], probe.layers["0"]
    currents = circuit.currents(both)
    i_ee, i_sub, i_int = (
        value.unflatten(0, both.shape[:2]).double()
        for value in (currents.i_ee, currents.i_sub, currents.i_int)
    )
    spikes = model[1](circuit(both))
    assert layer.rate == pytest.approx(spikes.mean((1, 2, 3, 4)).tolist())
    fired = spikes.flatten(0, 1)
    assert layer.silent == pytest.approx((fired.amax(0) == 0).float().mean().item())
    assert layer.saturated == pytest.approx((fired.amin(0) == 1).float().mean().item())
    balance = i_sub.mean((1, 2, 3, 4)) / i_ee.mean((1, 2, 3, 4))
    assert layer.balance == pytest.approx(balance.tolist())
    per_unit = [
        torch.corrcoef(torch.stack([i_ee[:, :, e].flatten(), i_sub[:, :, e].flatten()]))[0, 1]
        for e in range(8)
    ]
    assert layer.correlation == pytest.approx(torch.stack(per_unit).mean().item(), abs=1e-6)
    assert layer.smallest_divisor == pytest.approx(currents.divisor.min().item())
    distance = i_int - i_int.mean()
    skewness = (distance**3).mean() / distance.square().mean() ** 1.5
    kurtosis = (distance**4).mean() / distance.square().mean() ** 2
    assert layer.bimodality == pytest.approx(((skewness**2 + 1) / kurtosis).item(), rel=1e-4)
    assert layer.distributions["i_int"].std == pytest.approx(
        i_int.std(correction=0).item(), rel=1e-4
    )
    output = probe.layers["5"]
    assert (output.rate, output.silent, output.smallest_divisor) == (None, None, None)
    assert output.balance is not None


def test_silent_input_gives_no_figures_but_no_error() -> None:
    model, x = small()
    with Probe(model) as probe:
        model(torch.zeros_like(x))
    layer = probe.layers["0"]
    assert layer.silent == 1
    assert layer.smallest_divisor is None
    assert layer.balance is not None
    assert all(value != value for value in layer.balance)


def test_sequences_of_different_length_are_added_step_by_step() -> None:
    model, x = small()
    with Probe(model) as probe:
        model(x)
        model(x[:1])
    expected = model[1](model[0](x)).mean((1, 2, 3, 4))
    assert probe.layers["0"].rate == pytest.approx(expected.tolist())


def test_another_image_size_is_a_clear_error() -> None:
    model = nn.Sequential(EIConv2d(1, 4, 3), LIF())
    eisnn.ei_init_(model, torch.rand(2, 4, 1, 8, 8))
    with Probe(model):
        model(torch.rand(2, 4, 1, 8, 8))
        with pytest.raises(ValueError, match="Use a probe for each size"):
            model(torch.rand(2, 4, 1, 9, 9))


def figures(layer: LayerStatistics) -> list[object]:
    distribution = layer.distributions["i_int"]
    return [
        layer.rate,
        layer.silent,
        layer.saturated,
        layer.balance,
        [layer.correlation, layer.bimodality, layer.smallest_divisor],
        [distribution.mean, distribution.std, *distribution.quantiles([0.1, 0.9])],
    ]


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo", init_method=f"file://{folder}/door", rank=rank, world_size=2)
    try:
        model, x = small()
        with Probe(model) as probe:
            model(x.chunk(2, 1)[rank])
        probe.gather()
        torch.save([figures(probe.layers[name]) for name in ("0", "3")], f"{folder}/{rank}")
        leave()
    finally:
        dist.destroy_process_group()


def test_processes_gather_the_statistics_of_all(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    torch.manual_seed(0)
    model, x = small()
    with Probe(model) as probe:
        model(x)
    probe.gather()  # nothing to gather here
    for rank in range(2):
        for got, name in zip(torch.load(tmp_path / str(rank)), ("0", "3"), strict=True):
            for a, b in zip(got, figures(probe.layers[name]), strict=True):
                assert a == pytest.approx(b, rel=1e-5, abs=1e-6)
