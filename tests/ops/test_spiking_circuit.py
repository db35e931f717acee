"""The fused operation against its readable form, in every backend that runs on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, library

from eisnn import functional, ops
from eisnn.functional import SURROGATES, ArcTan, LeakyReLU, Sigmoid, Surrogate

BACKENDS = [
    pytest.param(
        "native",
        marks=pytest.mark.skipif(
            ops.unavailable("native", torch.device("cpu")) is not None, reason="no C compiler"
        ),
    ),
    "torch",
]


@dataclass(frozen=True)
class Case:
    """Inputs on a grid so coarse that sums of products are exact in any order."""

    currents: Tensor
    weight_div: Tensor
    gain_e: Tensor
    bias: Tensor
    reach: Tensor | None
    T: int
    tau: float
    threshold: float
    surrogate: Surrogate
    window: ops.Window = ops.Window()  # noqa: RUF009

    def tensors(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        parts = (self.currents, self.weight_div, self.gain_e, self.bias)
        return [x.to(dtype).clone().requires_grad_() for x in parts]

    def fused(self, currents: Tensor, *rest: Tensor) -> Tensor:
        neuron = ops.Neuron.of(self.T, self.tau, self.threshold, self.surrogate)
        assert neuron is not None
        return ops.spiking_circuit(currents, *rest, neuron, self.reach, self.window)

    def readable(
        self, currents: Tensor, weight_div: Tensor, gain_e: Tensor, bias: Tensor
    ) -> Tensor:
        steps, batch, positions, _ = currents.shape
        samples = currents.flatten(0, 1).transpose(1, 2)  # [N, C, P]
        balanced, i_ie = samples.split(list(weight_div.shape), 1)
        reach = None if self.reach is None else self.reach.flatten(0, 1).transpose(1, 2)
        s_i = functional.inhibitory_output(i_ie, reach)
        i_div = functional.subtractive_inhibition(s_i.unsqueeze(-1), weight_div).squeeze(-1)
        i_int = functional.integrate(
            balanced.unsqueeze(-1), functional.stabilise(i_div).unsqueeze(-1), gain_e, bias
        ).squeeze(-1)
        i_int = i_int.transpose(1, 2).reshape(steps, batch, positions, -1)
        i_int = i_int.expand(self.T, -1, -1, -1)
        spikes = functional.lif_multistep(i_int, None, self.tau, self.threshold, self.surrogate)[0]
        size, columns = self.window
        maps = spikes.unflatten(2, (-1, columns)).movedim(-1, 2).flatten(0, 1)  # [TB, E, H, W]
        means = F.avg_pool2d(maps, size).unflatten(0, spikes.shape[:2])
        return means.flatten(3).mT

    def upstream(self) -> Tensor:
        """A gradient for what is put out."""
        _, batch, positions, _ = self.currents.shape
        return torch.randn(self.T, batch, self.window.count(positions), len(self.gain_e))


def make(
    T: int = 4,
    steps: int = 4,
    batch: int = 3,
    positions: int = 5,
    n_e: int = 7,
    n_i: int = 2,
    *,
    seed: int = 0,
    density: float = 0.5,
    reach: bool = False,
    surrogate: Surrogate = SURROGATES["sigmoid"],
    tau: float = 2.0,
    threshold: float = 1.0,
    window: ops.Window = ops.Window(),  # noqa: B008
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def grid(*shape: int, least: int, most: int) -> Tensor:
        return torch.randint(least, most + 1, shape, generator=generator) / 8

    def present(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) < density

    shape = (steps, batch, positions)
    balanced = grid(*shape, n_e, least=-16, most=24)
    i_ie = grid(*shape, n_i, least=0, most=24) * present(*shape, n_i)
    currents = torch.cat([balanced, i_ie], -1)
    currents[:, 0] = 0  # a silent sample
    return Case(
        currents,
        grid(n_e, n_i, least=0, most=8) * present(n_e, n_i),
        grid(n_e, least=0, most=12),
        grid(n_e, least=-8, most=12),
        present(*shape, n_i) | (i_ie > 1) if reach else None,
        T,
        tau,
        threshold,
        surrogate,
        window,
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    T = draw(st.integers(1, 16))
    rows, columns = draw(st.sampled_from([(1, 1), (2, 1), (1, 9), (3, 3), (4, 4), (5, 3)]))
    size = draw(st.integers(1, min(rows, columns)))
    return make(
        T,
        draw(st.sampled_from([1, T])),
        draw(st.integers(1, 4)),
        rows * columns,
        draw(st.sampled_from([1, 3, 17, 64, 70])),
        draw(st.sampled_from([1, 2, 5, 16])),
        seed=draw(st.integers(0, 10_000)),
        density=draw(st.sampled_from([0.1, 0.5, 1.0])),
        reach=draw(st.booleans()),
        surrogate=draw(st.sampled_from([Sigmoid(), Sigmoid(2.5), ArcTan(), LeakyReLU(0.1)])),
        tau=draw(st.sampled_from([1.0, 2.0, 4.0])),
        threshold=draw(st.sampled_from([1.0, 0.5])),
        window=ops.Window(size, columns),
    )


def run(function: Any, inputs: list[Tensor], weight: Tensor) -> list[Tensor]:
    out = function(*inputs)
    return [out.detach(), *torch.autograd.grad((out * weight.to(out.dtype)).sum(), inputs)]


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    names = ("spikes", "currents", "weight_div", "gain_e", "bias")
    for name, a, b in zip(names, got, expected, strict=True):
        scale = b.abs().max().item()
        torch.testing.assert_close(
            a,
            b,
            rtol=tolerance,
            atol=tolerance * max(scale, 1e-3),
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize("backend", BACKENDS)
@given(case=cases())
def test_values_and_gradients_are_those_of_the_readable_form(backend: str, case: Case) -> None:
    weight = case.upstream()
    expected = run(case.readable, case.tensors(), weight)
    with ops.use_backend(backend):
        got = run(case.fused, case.tensors(), weight)
    assert torch.equal(got[0], expected[0])  # the same spikes to the last bit
    assert_close(got, expected, 2e-5)


@given(case=cases())
def test_in_double_precision_they_agree_to_its_rounding(case: Case) -> None:
    weight = case.upstream()
    expected = run(case.readable, case.tensors(torch.float64), weight)
    got = run(case.fused, case.tensors(torch.float64), weight)
    assert_close(got, expected, 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [ops.Window(), ops.Window(2, 4)], ids=["spikes", "means"])
def test_low_precision_currents_are_computed_with_in_float32(
    backend: str, dtype: torch.dtype, window: ops.Window
) -> None:
    case = make(positions=16, n_e=19, n_i=5, seed=3, window=window)  # exact in these types
    weight = torch.randint(-8, 9, case.upstream().shape) / 8
    expected = run(case.readable, case.tensors(), weight)
    low = case.tensors()
    low[0] = low[0].detach().to(dtype).requires_grad_()
    with ops.use_backend(backend):
        got = run(case.fused, low, weight)
    assert got[0].dtype == got[1].dtype == dtype
    assert torch.equal(got[0].float(), expected[0])
    torch.testing.assert_close(got[1].float(), expected[1], rtol=1e-2, atol=1e-2)
    assert_close([expected[0], expected[1], *got[2:]], expected, 2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_broken_current_does_not_pass_for_silence(backend: str) -> None:
    case = make()
    currents = case.currents.clone()
    currents[1, 1, 2, 3] = torch.nan  # one excitatory neuron, from step 1 on
    with ops.use_backend(backend):
        spikes = case.fused(currents, case.weight_div, case.gain_e + 1, case.bias)
    broken = torch.zeros_like(spikes, dtype=torch.bool)
    broken[1:, 1, 2, 3] = True
    assert torch.equal(spikes.isnan(), broken)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_overflow_at_a_step_does_not_reach_back(backend: str) -> None:
    currents = torch.ones(3, 1, 1, 2)
    currents[2, 0, 0] = torch.tensor([1e9, 1e-30])
    currents.requires_grad_()
    one, neuron = torch.ones(1), ops.Neuron(3, 2.0, 1.0, "LeakyReLU", 0.01)
    with ops.use_backend(backend):
        out = ops.spiking_circuit(currents, torch.ones(1, 1), one, torch.zeros(1), neuron)
        (grad,) = torch.autograd.grad(out.sum(), currents)
    assert torch.equal(grad[:2, 0, 0], torch.tensor([[1.75, -1.75], [1.5, -1.5]]))
    assert grad[2].isinf().any()


@pytest.mark.parametrize("window", [ops.Window(2, 5), ops.Window(5, 4), ops.Window(0, 4)])
def test_windows_that_do_not_fit_are_refused(window: ops.Window) -> None:
    case = make(positions=12, window=window)
    with pytest.raises(ValueError, match="got 12 positions in rows of"):
        case.fused(*case.tensors())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sample_that_is_silent_fires_by_its_biases_alone(backend: str) -> None:
    case = make(n_e=3)
    bias = torch.tensor([0.0, 0.75, 1.0])
    with ops.use_backend(backend):
        spikes = case.fused(case.currents, case.weight_div, case.gain_e, bias)
    # potentials of the second neuron: .75, 1.125 (fires), .8125, 1.15625 (fires)
    expected = torch.tensor([[0, 0, 1], [0, 1, 1], [0, 0, 1], [0, 1, 1]]).float()
    assert torch.equal(spikes[:, 0], expected[:, None].expand(-1, 5, -1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_memory_layout_gives_the_same(backend: str) -> None:
    case = make()
    inputs = case.tensors()
    weight = torch.randn(4, 3, 5, 7)
    with ops.use_backend(backend):
        expected = run(case.fused, inputs, weight)
        strided = [
            torch.stack([x.detach(), x.detach() + 1], -1)[..., 0].requires_grad_() for x in inputs
        ]
        strided[0] = case.currents.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        strided[0].requires_grad_()
        assert not any(x.is_contiguous() for x in strided)
        got = run(lambda *x: case.fused(*x).transpose(0, 2), strided, weight.transpose(0, 2))
    assert torch.equal(got[0].transpose(0, 2), expected[0])
    assert_close(got[1:] + got[:1], expected[1:] + got[:1], 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("window", [ops.Window(), ops.Window(2, 3)], ids=["spikes", "means"])
def test_an_empty_batch_is_no_batch(backend: str, window: ops.Window) -> None:
    case = make(batch=1, positions=6, window=window)
    inputs = case.tensors()
    inputs[0] = inputs[0].detach()[:, :0].requires_grad_()
    shape = (4, 0, window.count(6), 7)
    with ops.use_backend(backend):
        out, *grads = run(case.fused, inputs, torch.zeros(shape))
    assert out.shape == shape
    assert all(not g.any() for g in grads)


@pytest.mark.skipif(
    ops.unavailable("native", torch.device("cpu")) is not None, reason="no C compiler"
)
def test_the_number_of_threads_changes_rounding_only_and_a_repeat_nothing() -> None:
    case = make(batch=16, positions=16, n_e=70, n_i=16)
    weight = torch.randn(4, 16, 16, 70)
    results = {}
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with ops.use_backend("native"):
                results[threads] = run(case.fused, case.tensors(), weight)
                again = run(case.fused, case.tensors(), weight)
            for a, b in zip(results[threads], again, strict=True):
                assert torch.equal(a, b)
    finally:
        torch.set_num_threads(1)
    for threads in (2, 3):
        assert torch.equal(results[threads][0], results[1][0])
        assert_close(results[threads], results[1], 1e-5)


@pytest.mark.parametrize("reach", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("window", [(1, 1), (2, 3)])
def test_operators_are_registered_as_pytorch_wants(
    window: tuple[int, int], steps: int, reach: bool
) -> None:
    case = make(steps=steps, positions=6, reach=reach)
    settings = (*window, case.T, case.tau, case.threshold, "Sigmoid", 4.0)
    currents, *rest = case.tensors()
    library.opcheck(torch.ops.eisnn.spiking_circuit, (currents, *rest, case.reach, *settings))
    with torch.no_grad():
        spikes, smallest = torch.ops.eisnn.spiking_circuit(currents, *rest, case.reach, *settings)
        fixed = [x.detach() for x in (currents, *rest)]
        library.opcheck(
            torch.ops.eisnn.spiking_circuit_backward,
            (torch.rand_like(spikes), *fixed, case.reach, smallest, *settings),
        )


def test_a_second_derivative_is_refused_with_the_way_to_get_it() -> None:
    case = make()
    inputs = case.tensors()
    (grad,) = torch.autograd.grad(case.fused(*inputs).sum(), inputs[:1], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"lif\(layer\(x\)\)"):
        grad.sum().backward()


def test_only_the_currents_are_kept_for_the_backward_pass() -> None:
    case = make(T=16, steps=16, batch=8, positions=9, n_e=64, n_i=16)
    inputs = case.tensors()
    kept: list[int] = []

    def count(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        case.fused(*inputs)
    assert sum(kept) == sum(x.numel() for x in inputs) + 16 * 8  # and a minimum per sample
