"""Where the straight-through estimator matters: `python -m benchmarks.straight_through`.

It changes gradients only where a divisor is replaced although the sample is not silent, so where
all of a neuron's inhibition is zero. With the published method that hardly happens. Here it is
brought about in several ways (:data:`CASES`), and each is trained with the estimator and with
the ordinary derivative of the stabilisation: MLP-8 of half width on 4,000 MNIST images.

Legend: E / I excitatory / inhibitory units.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eisnn
from eisnn.analysis import watch
from eisnn.analysis.watching import Snapshot
from eisnn.data import load_data, split_validation
from eisnn.nn import CircuitOptions, EIModule, EIOutput, set_options
from eisnn.training.batches import Batches
from eisnn.training.module import learning_rate, make_optimiser
from eisnn.training.recipe import OptimiserConfig

CPU = torch.device("cpu")
BATCH = 64


@dataclass(frozen=True)
class Case:
    """One way to get neurons without inhibition."""

    words: str
    kept: float = 1.0
    """Share of ``W_EI`` that is not zero at the start; the rest of a row is scaled up."""
    empty: float = 0.0
    """Share of neurons that have no inhibition at all at the start."""
    unscaled: int = 0
    """First steps in which the gradient of ``W_EI`` is not divided by the fan-in."""
    faster: float = 1.0
    """Factor of the learning rate of ``W_EI``."""


CASES = {
    "published": Case("as published"),
    "sparse": Case("90 % of W_EI is zero at the start", kept=0.1),
    "empty": Case("2 % of the neurons start without inhibition", empty=0.02),
    "unscaled start": Case("gradient of W_EI unscaled for 20 steps", unscaled=20),
    "faster": Case("learning rate of W_EI x 100", faster=100.0),
}


@dataclass
class Result:
    """Of one run; shares are those of the trained network."""

    accuracy: float
    """On the test set, in %."""
    zeros: float
    """Share of exact zeros in ``W_EI``."""
    replaced: float
    """Share of divisors that are replaced in samples that are not silent."""
    first: float
    """``|g - g'| / |g|`` of the first batch: gradient with the estimator and without."""
    last: float
    """The same for the trained network."""


def circuits(model: nn.Module) -> list[EIModule]:
    """The layers that divide."""
    return [m for m in model.modules() if isinstance(m, EIModule) and not isinstance(m, EIOutput)]


@torch.no_grad()
def thin_out_(model: nn.Module, case: Case, generator: torch.Generator) -> None:
    """Set random entries and rows of ``W_EI`` to zero; the other rows keep their sum, 1."""
    for circuit in circuits(model):
        shape = circuit.weight_ei.shape
        stays = torch.rand(shape, generator=generator) < case.kept
        stays &= torch.rand(shape[0], 1, generator=generator) >= case.empty
        circuit.weight_ei.copy_(stays / stays.sum(1, keepdim=True).clamp_min(1))


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Of all parameters, as one vector."""
    grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
    return torch.cat([g.flatten() for g in grads])


def difference(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """``|g - g'| / |g|``, with the options of the model afterwards as before."""
    before = circuits(model)[0].options
    grads = []
    for straight in (True, False):
        set_options(model, CircuitOptions(straight_through=straight))
        grads.append(gradient(model, x, y))
    set_options(model, before)
    return float((grads[0] - grads[1]).norm() / grads[0].norm())


def replaced(model: nn.Module, x: Tensor) -> float:
    """Share of divisors that are replaced in samples that are not silent."""
    counts = [0, 0]

    def look(layer: Snapshot) -> None:
        if (i_div := layer.quantities.get("i_div")) is not None:
            awake = i_div.flatten(2).amax(2) > 0  # [T, B]
            counts[0] += int((i_div == 0)[awake].sum())
            counts[1] += i_div.numel()

    with watch(model, look), torch.no_grad():
        model(x)
    return counts[0] / counts[1]


def run(case: Case, straight: bool, seed: int, epochs: int, root: Path | None) -> Result:
    """Train one network."""
    source = load_data("mnist", root)
    _, training = split_validation(source.train, 4000 / len(source.train), 0)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = eisnn.create_model("mlp8", num_classes=10, in_channels=1, image_size=28, width=0.5, T=4)
    x, y = next(iter(Batches(training, BATCH, CPU, "none", (seed, 0))))
    eisnn.ei_init_(model, x, generator=generator)
    if case.kept < 1 or case.empty:
        thin_out_(model, case, generator)
    first = difference(model, x, y)
    config = OptimiserConfig(lr=0.005, weight_decay=5e-4)
    optimiser = make_optimiser(model, config)
    lateral = [c.weight_ei for c in circuits(model)]
    rest = [p for p in model.parameters() if all(p is not w for w in lateral)]
    optimiser.param_groups[0]["params"] = rest
    optimiser.add_param_group({"params": lateral})
    steps = epochs * (len(training) // BATCH)
    step = 0
    for number in range(epochs):
        for x, y in Batches(training, BATCH, CPU, "none", (seed, number)):
            scale = step >= case.unscaled
            set_options(model, CircuitOptions(straight_through=straight, scale_gradient=scale))
            rate = learning_rate(step, steps, steps // (2 * epochs), config)
            for group, factor in zip(optimiser.param_groups, (1, case.faster), strict=True):
                group["lr"] = rate * factor
            optimiser.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimiser.step()
            step += 1
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in Batches(source.test, 500, CPU):
            right += int((model(x).argmax(1) == y).sum())
    zeros = torch.cat([w.detach().flatten() for w in lateral]) == 0
    return Result(
        100 * right / len(source.test),
        zeros.float().mean().item(),
        replaced(model, x),
        first,
        difference(model, x, y),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.straight_through", description=__doc__
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--root", type=Path, help="folder of the data sets")
    options = parser.parse_args()
    print("| case | STE | accuracy %, by seed | mean | zeros in W_EI % | replaced % "
          "| gradients differ, first % | last % |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name in options.cases:
        for straight in (True, False):
            results = [
                run(CASES[name], straight, seed, options.epochs, options.root)
                for seed in range(options.seeds)
            ]
            accuracies = ", ".join(f"{r.accuracy:.2f}" for r in results)
            mean: Callable[[str], float] = lambda key, r=results: statistics.fmean(  # noqa: E731
                getattr(x, key) for x in r
            )
            cells = [
                CASES[name].words, "on" if straight else "off", accuracies,
                f"{mean('accuracy'):.2f}",
                *(f"{100 * mean(key):.3g}" for key in ("zeros", "replaced", "first", "last")),
            ]  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
