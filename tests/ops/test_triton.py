"""The Triton kernels against plain torch and against the equations in float64.

Where there is a CUDA device they run on it. Triton's interpreter runs them on the CPU; it has
to be asked for before anything imports Triton, so one test here runs this file once more in a
process of its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eisnn.functional import (
    SURROGATES,
    divisive_inhibition,
    inhibitory_output,
    integrate,
    lif_multistep,
    stabilise,
)
from eisnn.ops import (
    Neuron,
    Window,
    backend_for,
    spiking_circuit,
    torch_backend,
    triton_backend,
    use_backend,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TRITON = importlib.util.find_spec("triton") is not None

needs_triton = pytest.mark.skipif(not TRITON, reason="Triton is not installed")
needs_cuda = pytest.mark.skipif(
    not (TRITON and torch.cuda.is_available() and not INTERPRETED), reason="needs a CUDA device"
)
kernels_run = pytest.mark.skipif(
    not (TRITON and (INTERPRETED or torch.cuda.is_available())),
    reason="here only in the interpreter, in the process of its own",
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


class Case(NamedTuple):
    """Everything a circuit takes; some weights, currents and samples are silent."""

    currents: Tensor
    weight_div: Tensor
    gain_e: Tensor
    bias: Tensor
    neuron: Neuron
    grad: Tensor

    @property
    def i_div(self) -> Tensor:
        s_i = self.currents[..., len(self.gain_e) :].float().clamp(min=0)
        return s_i @ self.weight_div.T


def case(
    T: int,
    batch: int,
    positions: int,
    n_e: int,
    n_i: int,
    constant: bool = False,
    surrogate: str = "sigmoid",
    dtype: torch.dtype = torch.float32,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    seed: int = 0,
) -> Case:
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, active: float = 1.0) -> Tensor:
        kept = torch.rand(shape, generator=draw) < active
        return (0.05 + torch.rand(shape, generator=draw)) * kept

    steps = 1 if constant else T
    s_i = uniform(steps, batch, positions, n_i, active=0.6)
    balanced = n_i * torch.randn(steps, batch, positions, n_e, generator=draw)
    s_i[:, 0] = 0  # silent at all steps
    balanced[:, 0] = 0
    s_i[-1, -1] = 0  # without inhibition at the last step
    neuron = Neuron.of(T, tau, v_threshold, SURROGATES[surrogate])
    assert neuron is not None
    made = Case(
        torch.cat([balanced, s_i], -1).to(dtype),
        uniform(n_e, n_i, active=0.7),
        uniform(n_e),
        torch.randn(n_e, generator=draw) / 2,
        neuron,
        torch.randn(T, batch, positions, n_e, generator=draw),
    )
    return Case(*[x.to(DEVICE) if isinstance(x, Tensor) else x for x in made])


def equations(c: Case) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Spikes, which neurons are never close to the threshold, and gradients; all in float64.

    The gradients are those of neurons far from the threshold: rounding decides on the others.
    """
    T, batch, _, n_e = c.grad.shape
    inputs = [x.double().requires_grad_() for x in (c.currents, c.weight_div, c.gain_e, c.bias)]
    currents, weight_div, gain_e, bias = inputs
    units = currents.flatten(0, 1).movedim(2, 1)  # [N, C, P]
    s_i = inhibitory_output(units[:, n_e:])[..., None]
    i_div = divisive_inhibition(s_i, weight_div, torch.ones_like(weight_div[0]))
    i_int = integrate(units[:, :n_e, :, None], stabilise(i_div), gain_e, bias)
    i_int = i_int[..., 0].movedim(1, 2).unflatten(0, (-1, batch)).expand(T, -1, -1, -1)
    n = c.neuron
    spikes, _ = lif_multistep(i_int, None, n.tau, n.v_threshold, n.derivative)
    v, close = torch.zeros_like(i_int[0]), torch.zeros_like(i_int[0], dtype=torch.bool)
    for x, s in zip(i_int.detach(), spikes.detach(), strict=True):
        h = n.decay * v + x
        close |= (h - n.v_threshold).abs() < 1e-4 * (1 + x.abs() + v.abs())
        v = h - n.v_threshold * s
    grads = torch.autograd.grad((spikes * c.grad * ~close).sum(), inputs)
    return spikes.detach(), ~close, list(grads)


def assert_close(got: Tensor, expected: Tensor, what: str, tolerance: float) -> None:
    scale = expected[expected.isfinite()].abs().amax().item() if expected.numel() else 0.0
    torch.testing.assert_close(
        got.double(),
        expected.double(),
        rtol=tolerance,
        atol=tolerance * max(scale, 1.0),
        equal_nan=True,
        msg=lambda text: f"{what}: {text}",
    )


def check_against_torch(c: Case, i_div: Tensor | None = None) -> None:
    """From the same divisive currents: the same spikes, and gradients equal to rounding."""
    i_div = c.i_div if i_div is None else i_div
    taken = (c.currents, i_div, c.gain_e, c.bias)
    spikes, smallest = triton_backend.forward(*taken, c.neuron, Window())
    expected, expected_smallest = torch_backend.forward(*taken, c.neuron, Window())
    assert spikes.dtype == c.currents.dtype
    torch.testing.assert_close(smallest, expected_smallest, rtol=0, atol=0)
    torch.testing.assert_close(spikes, expected, rtol=0, atol=0, equal_nan=True)

    grad = c.grad.to(c.currents.dtype)
    got = triton_backend.backward(grad, *taken, smallest, c.neuron, Window())
    known = torch_backend.backward(grad, *taken, smallest, c.neuron, Window())
    assert [x.dtype for x in got] == [x.dtype for x in known]
    n_e = len(c.gain_e)
    rounding = 2 * torch.finfo(c.currents.dtype).eps
    assert_close(got[0][..., :n_e], known[0][..., :n_e], "d_currents", max(rounding, 1e-4))
    for x, y, what in zip(got[1:], known[1:], ("d_div", "d_gain", "d_bias"), strict=True):
        assert_close(x, y, what, 1e-4)


def check_against_equations(c: Case) -> None:
    expected, clear, expected_grads = equations(c)
    inputs = [x.clone().requires_grad_() for x in c[:4]]
    with use_backend("triton"):
        assert backend_for(c.currents.device) == "triton"
        spikes = spiking_circuit(*inputs, c.neuron)
        grads = torch.autograd.grad((spikes * (c.grad * clear)).sum(), inputs)
    assert clear.double().mean() > 0.95
    assert spikes.dtype == c.currents.dtype
    assert torch.equal(spikes.double() * clear, expected * clear)
    # where spikes are narrow, their gradient arrives rounded
    tolerance = max(4 * torch.finfo(c.currents.dtype).eps, 1e-4)
    names = ("currents", "weight_div", "gain_e", "bias")
    for got, known, what in zip(grads, expected_grads, names, strict=True):
        assert_close(got, known, what, tolerance)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return case(
        T=draw(st.integers(1, 16)),
        batch=draw(st.integers(1, 5)),
        positions=draw(st.sampled_from([1, 9])),
        n_e=draw(st.sampled_from([1, 3, 17, 70])),
        n_i=draw(st.sampled_from([1, 2, 5])),
        constant=draw(st.booleans()),
        surrogate=draw(st.sampled_from(sorted(SURROGATES))),
        dtype=draw(st.sampled_from(DTYPES)),
        tau=draw(st.sampled_from([1.0, 2.0, 3.7])),
        v_threshold=draw(st.sampled_from([0.5, 1.0])),
        seed=draw(st.integers(0, 1000)),
    )


def few(most: int) -> settings:
    """Fewer examples: a kernel takes the interpreter a thousand times longer than a device."""
    return settings(max_examples=max(2, settings().max_examples * most // 25))


@kernels_run
@given(cases())
@few(12)
def test_same_spikes_and_gradients_as_plain_torch(c: Case) -> None:
    check_against_torch(c)


@kernels_run
@given(cases())
@few(12)
def test_spikes_and_gradients_are_those_of_the_equations(c: Case) -> None:
    check_against_equations(c)


@kernels_run
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
def test_each_variant_of_the_kernels(constant: bool, surrogate: str, dtype: torch.dtype) -> None:
    c = case(4, 2, 9, 17, 3, constant, surrogate, dtype)
    check_against_torch(c)
    check_against_equations(c)


@kernels_run
@pytest.mark.parametrize(
    ("T", "batch", "positions", "n_e"),
    [(1, 3, 1, 1), (16, 2, 1, 3), (2, 5, 9, 70), (3, 3, 9, 64), (2, 9, 1, 128), (2, 1, 33, 1)],
)
def test_shapes_that_fill_blocks_and_that_do_not(
    T: int, batch: int, positions: int, n_e: int
) -> None:
    for constant in (False, True):
        check_against_torch(case(T, batch, positions, n_e, 2, constant))


@kernels_run
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_a_broken_neuron_stays_broken_and_alone(surrogate: str, constant: bool) -> None:
    c = case(3, 3, 9, 17, 3, constant, surrogate)
    i_div = c.i_div
    c.currents[0, 1, 2, 3] = torch.nan
    i_div[0, 2, 4, 5] = torch.nan
    check_against_torch(c, i_div)
    spikes, smallest = triton_backend.forward(
        c.currents, i_div, c.gain_e, c.bias, c.neuron, Window()
    )
    broken = spikes.isnan()
    assert broken[:, 1, 2, 3].all()
    assert broken[:, 2, 4, 5].all()
    assert broken.sum() == 2 * c.neuron.T
    assert not smallest.isnan().any()


@kernels_run
def test_a_neuron_at_the_threshold_fires() -> None:
    c = case(2, 2, 1, 3, 1, tau=1.0, v_threshold=0.5)
    c.currents.zero_()
    c.bias.copy_(torch.tensor([0.5, 0.5 - 2**-20, 0.5 + 2**-20]))
    spikes, _ = triton_backend.forward(c.currents, c.i_div, c.gain_e, c.bias, c.neuron, Window())
    assert torch.equal(spikes.cpu(), torch.tensor([1.0, 0.0, 1.0]).expand(2, 2, 1, 3))


@kernels_run
@pytest.mark.parametrize("size", [1, 5, 128, 4096, 4097, 9001])
def test_smallest_positive_divisor(size: int) -> None:
    x = torch.rand(2, 3, size, 1) + 0.5
    x[0, 0, size // 2] = 1e-40  # less than the least normal number
    x[0, 1] = -x[0, 1]
    x[0, 2, 0] = torch.nan
    x[1, 0] = 0
    x[1, 1, -1] = torch.inf
    x[1, 2, -1] = 2.0**-126
    x = x.to(DEVICE)
    expected = torch.where(x > 0, x, torch.inf).amin((2, 3))
    assert torch.equal(triton_backend._smallest_positive(x), expected)


@kernels_run
def test_the_same_to_the_last_bit_in_every_run() -> None:
    c = case(3, 5, 9, 70, 3)
    taken = (c.currents, c.i_div, c.gain_e, c.bias)

    def run() -> list[Tensor]:
        spikes, smallest = triton_backend.forward(*taken, c.neuron, Window())
        d_currents, *rest = triton_backend.backward(c.grad, *taken, smallest, c.neuron, Window())
        return [spikes, smallest, d_currents[..., :70], *rest]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@needs_cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
def test_sizes_of_a_real_layer(constant: bool, dtype: torch.dtype) -> None:
    c = case(4, 32, 256, 96, 24, constant, dtype=dtype)
    check_against_torch(c)
    check_against_equations(c)


@needs_cuda
def test_a_step_of_training_never_waits_for_the_device() -> None:
    c = case(4, 8, 64, 64, 16, dtype=torch.bfloat16)
    weight = torch.eye(80, device=DEVICE, requires_grad=True)
    parameters = [weight, *(x.clone().requires_grad_() for x in c[1:4])]
    optimizer = torch.optim.SGD(parameters, lr=1e-3)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            currents = c.currents @ weight
        spikes = spiking_circuit(currents, *parameters[1:], c.neuron)
        (spikes * c.grad).sum().backward()
        optimizer.step()
        return spikes

    with use_backend("triton"):
        step()  # compiles
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            spikes = step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    assert spikes.isfinite().all()


@needs_cuda
def test_kernels_are_compiled_once_for_all_batch_sizes() -> None:
    from eisnn.ops import triton_kernels

    def compiled() -> int:
        return sum(
            len(cache[0])
            for kernel in (triton_kernels.forward, triton_kernels.backward)
            for cache in kernel.device_caches.values()
        )

    counts = set()
    for batch in (1, 2, 3, 16, 32):
        check_against_torch(case(3, batch, 9, 48, 4))
        counts.add(compiled())
    assert len(counts) == 1


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the process of its own")
def test_in_the_interpreter() -> None:
    pytest.importorskip("numpy")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_says_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    why = triton_backend.unavailable.__wrapped__
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_backend, "_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why() == "there is no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def fails(_: Tensor) -> None:
        raise RuntimeError("no C compiler")

    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: zeros(*shape))
    monkeypatch.setattr(triton_backend, "_smallest_positive", fails)
    assert why() == "Triton does not run here: no C compiler"
    monkeypatch.setattr(triton_backend, "_installed", lambda: False)
    assert why() == "Triton is not installed"
    assert not triton_backend.interpreted()


def test_operations_of_the_cpu_do_not_import_triton() -> None:
    code = """
import sys, torch, eisnn.ops as ops
neuron = ops.Neuron(2, 2.0, 1.0, "Sigmoid", 4.0)
ops.spiking_circuit(torch.rand(2, 1, 1, 3), torch.rand(2, 1), torch.ones(2), torch.ones(2), neuron)
print("triton" in sys.modules)
"""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
