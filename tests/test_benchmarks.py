"""The benchmark suite: what it compares computes the same, and one command leaves the record."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks are not part of the package

from benchmarks import input_pipeline
from benchmarks.__main__ import main
from benchmarks.cases import CASES, CURVE_CASE, Case, quick
from benchmarks.contenders import Network
from benchmarks.curves import Curve
from benchmarks.floor import LAYOUTS, Floor, operations
from benchmarks.literal import literal
from benchmarks.probes import PRICES, probe_costs
from benchmarks.spikingjelly_twin import spikingjelly_twin, unavailable
from benchmarks.straight_through import Case as Start
from benchmarks.straight_through import difference, replaced, thin_out_
from benchmarks.timing import FEWEST_REPEATS, WARM_UP, Budget, Effort, Timing, race, ratio

from eisnn.nn import AvgPool2d, EIConv2d, EIModule, EIOutput

CPU = torch.device("cpu")
TINY = {name: quick(case) for name, case in CASES.items()}
cases = pytest.mark.parametrize("case", TINY.values(), ids=TINY)


@cases
def test_literal_network_has_the_values_and_gradients_of_eisnn(case: Case) -> None:
    x, labels = case.inputs(CPU)
    fused = case.network("ei", x).double()
    with torch.no_grad():  # fresh W_EI are all alike, and the output layer's gradients cancel
        for p in fused.parameters():
            p.mul_(torch.rand_like(p) + 0.5)
    written_out = literal(fused)
    x = x.double()
    logits, expected = written_out(x), fused(x)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-10)
    for y in (logits, expected):
        nn.functional.cross_entropy(y, labels).backward()
    for (name, p), q in zip(fused.named_parameters(), written_out.parameters(), strict=True):
        assert p.grad is not None
        scale = p.grad.abs().max().item()
        torch.testing.assert_close(
            q.grad, p.grad, rtol=1e-7, atol=1e-8 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_literal_network_is_a_copy_and_obeys_dales_law() -> None:
    case = TINY["vgg8"]
    x, labels = case.inputs(CPU)
    net = case.network("ei", x)
    kinds = [type(m) for m in net.modules()]
    before = {name: p.clone() for name, p in net.state_dict().items()}
    twin = Network(literal(net), x, labels)
    twin.training_step()
    assert [type(m) for m in net.modules()] == kinds
    assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())
    assert all((m.weight_ee >= 0).all() for m in twin.model.modules() if isinstance(m, EIModule))


@cases
def test_the_floor_has_the_shapes_of_the_network(case: Case) -> None:
    x, _ = case.inputs(CPU)
    net = case.network("ei", x)
    shapes: list[tuple[int, ...]] = []

    def record(module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
        channels = y.shape[2]
        if isinstance(module, EIModule) and not isinstance(module, EIOutput):
            channels += module.weight_ie.shape[0]
        n = case.batch if args[0].stride(0) == 0 else case.batch * case.T
        shapes.append((n, channels, *y.shape[3:]))

    kinds = [m for m in net.modules() if isinstance(m, (EIModule, AvgPool2d))]
    handles = [m.register_forward_hook(record) for m in kinds]
    net(x)
    for handle in handles:
        handle.remove()
    plan = operations(net, x)
    for layout in LAYOUTS.values():
        floor = Floor(plan, CPU, torch.float32, layout)
        assert [tuple(gradient.shape) for gradient in floor.gradients] == shapes
        floor.training_step()
        floor.inference_step()


def test_the_floor_convolves_as_the_network_does() -> None:
    case = TINY["resnet18"]
    x, _ = case.inputs(CPU)
    net = case.network("ei", x)
    convolutions = [m for m in net.modules() if isinstance(m, EIConv2d)]
    plan = [op for op in operations(net, x) if op.weight is not None and len(op.weight) == 4]
    found = sorted((op.weight, op.stride, op.padding) for op in plan)
    expected = sorted(
        ((m.weight_ee.shape[0] + m.weight_ie.shape[0], *m.weight_ee.shape[1:]), m.stride, m.padding)
        for m in convolutions
    )
    assert found == expected
    assert [op.input_gradient for op in plan] == [False] + [True] * (len(plan) - 1)
    assert plan[0].input[0] == case.batch  # images are convolved once, not T times


@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
@pytest.mark.filterwarnings("ignore")  # SpikingJelly's
@cases
def test_spikingjelly_computes_what_the_bn_twin_does(case: Case) -> None:
    x, _ = case.inputs(CPU)
    net = case.network("bn", x)
    twin = spikingjelly_twin(net)
    for _ in range(2):  # nothing is left over from the batch before
        torch.testing.assert_close(twin(x), net(x), rtol=1e-4, atol=1e-5)


def test_contenders_take_turns_until_the_time_is_up() -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    times = race(steps, CPU, Effort(repeats=100, block_seconds=0), deadline=time.perf_counter())
    assert "".join(order) == "a" * WARM_UP + "b" * WARM_UP + "abbaab"
    assert all(len(timing.seconds) == FEWEST_REPEATS for timing in times.values())


def test_ratios_compare_neighbours() -> None:
    a, b = Timing((2.0, 4.0, 60.0), 1), Timing((1.0, 2.0, 30.0), 1)  # disturbed, both
    assert ratio(a, b) == {"q1": 2.0, "median": 2.0, "q3": 2.0}


def test_time_left_over_goes_to_later_parts() -> None:
    budget = Budget(minutes=1, parts=2)
    first, second = budget.next_part(), budget.next_part()
    assert second > first
    assert not budget.spent
    assert Budget(minutes=0, parts=1).spent


def test_linear_growth_has_exponent_one() -> None:
    times = {"eisnn": [Timing((0.1 * batch,), 1) for batch in (8, 16, 32)]}
    curve = Curve(CURVE_CASE, "batch", (8, 16, 32), times)
    assert curve.exponent("eisnn") == pytest.approx(1)


@pytest.mark.filterwarnings("ignore")  # SpikingJelly's, where it is installed
def test_one_command_leaves_tables_numbers_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--quick", "--threads", "1", "--repeats", "2", "--cases", "vgg8", "curves"]
    main([*options, "--out", str(tmp_path)])
    record = json.loads((tmp_path / "cpu.json").read_text())
    assert set(record) == {"environment", "cases", "targets", "curves"}
    environment = record["environment"]
    assert environment["command"] == (
        "python -m benchmarks --device cpu --threads 1 --repeats 2 --cases vgg8 curves "
        "--minutes 8 --quick"
    )
    assert environment["threads"] == 1
    assert {"date", "cpu", "python", "torch", "eisnn", "eisnn_backend"} <= set(environment)
    vgg8 = record["cases"]["vgg8"]
    floors = {f"floor {layout}" for layout in LAYOUTS}
    for mode in ("training", "inference"):
        assert {"eisnn", "literal", "bn twin", *floors} <= set(vgg8[mode])
        assert {"q1", "median", "q3", "seconds", "steps"} == set(vgg8[mode]["eisnn"])
        assert vgg8["ratio_to_eisnn"][mode]["eisnn"]["median"] == 1
    kept = vgg8["saved_bytes"]
    assert kept["eisnn"] < kept["bn twin"] < kept["literal"]
    assert vgg8["saved_bytes_of_eisnn_divided_by"]["literal"] == kept["eisnn"] / kept["literal"]
    assert "eisnn compiled" in vgg8["skipped"]
    by_quantity = {t["quantity"]: t for t in record["targets"] if t["precision"] == "float32"}
    assert len(by_quantity) == 4
    assert by_quantity["bytes / literal"]["met"] is True
    if unavailable() is not None:
        assert by_quantity["step / spikingjelly"]["met"] is None
    assert set(record["curves"]) == {"T", "batch", "width"}
    assert set(record["curves"]["T"]["exponent"]) == {"eisnn", "literal", "bn twin"}
    assert (tmp_path / "cpu-curves.png").stat().st_size > 0
    assert str(tmp_path) not in json.dumps(record)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("literal", "floor", "exponent", "targets"))


def test_the_input_pipeline_is_timed_beside_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    input_pipeline.main(["--quick", "--repeats", "3", "--out", str(tmp_path)])
    content = json.loads((tmp_path / "cpu-input-pipeline.json").read_text())
    assert set(content["training / batch"]) == {"none", "flip", "cifar"}
    assert min(content["images_per_second"].values()) > 0
    assert "images/s in training" in capsys.readouterr().out


def test_the_cost_of_probes_is_measured_beside_the_same_network_without() -> None:
    costs = probe_costs(TINY["mlp4"], CPU, Effort(4, 0), time.perf_counter() + 60)
    assert tuple(costs) == PRICES
    assert all(0 < cost["q1"] <= cost["median"] <= cost["q3"] for cost in costs.values())
    assert costs["on"]["median"] > costs["off"]["median"]  # it takes about four times as long


def test_the_straight_through_estimator_matters_where_neurons_lack_inhibition() -> None:
    x, labels = TINY["mlp4"].inputs(CPU)
    model = TINY["mlp4"].network("ei", x)
    assert replaced(model, x) == 0
    assert difference(model, x, labels) < 1e-5
    thin_out_(model, Start("", empty=0.3), torch.Generator().manual_seed(0))
    assert replaced(model, x) > 0
    assert difference(model, x, labels) > 1e-3
