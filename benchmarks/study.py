"""Optimisation that fits the circuit, measured: `python -m benchmarks.study`.

Trains every contender of :data:`CONTENDERS` on the same data, in the same order, with the same
budget, and writes a line for each run into `benchmarks/results/SCALE-study.jsonl`. Runs that are
there already are not repeated, so that the command can be stopped and called again. In the end
it writes the tables and pictures of :mod:`benchmarks.study_report`.

At CPU scale networks have a quarter of their width and see 10,000 images; at GPU scale they are
as published. Learning rates are chosen with a seed that is not reported again (:data:`TUNING`).

Legend: B batch.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import eisnn
from benchmarks.environment import environment
from benchmarks.study_report import write_report
from eisnn.analysis import observe
from eisnn.data import Arrays, DataSource, load_data, split_validation
from eisnn.nn import EIModule, EIOutput
from eisnn.optim import add_homeostasis_
from eisnn.training.batches import Batches
from eisnn.training.module import learning_rate, make_optimiser
from eisnn.training.recipe import OptimiserConfig

RULES: dict[str, Any] = {"agc": 0.03, "centre": True, "homeostasis": 0.1, "tonic": 1.0}

CONTENDERS: dict[str, dict[str, Any]] = {
    "bn": {"weight_decay": 1e-4},
    "plain": {},
    "agc": {"agc": 0.01},
    "agc, centred": {"agc": 0.01, "centre": True},
    "fit": RULES,
    "fit, outputs clipped": {**RULES, "agc_outputs": True},
    "fit without agc": {**RULES, "agc": None},
    "fit without centring": {**RULES, "centre": False},
    "fit without tonic": {**RULES, "tonic": 0.0},
    "fit, slow homeostasis": {**RULES, "homeostasis": 0.01},
}
"""Optimiser settings beside the learning rate; "bn" is the BatchNorm twin."""

TUNING = 9
"""The seed of learning-rate grids; results are of seeds 0, 1, 2."""

Plan = dict[str, list["Run"]]


@dataclass(frozen=True)
class Run:
    """One network to train."""

    contender: str
    model: str
    epochs: int
    lr: float
    seed: int
    width: float
    data: str = "cifar10"
    samples: int = 10_000
    test: int = 3_000
    batch: int = 64
    augmentation: str = "flip"


def cpu() -> Plan:
    """Networks of a quarter of the width on 10,000 images; some hours on one core."""
    base = Run("fit", "vgg8", 1, 0.1, 0, 0.25)
    deep = replace(base, model="vgg16")
    digits: dict[str, Any] = {
        "data": "mnist",
        "samples": 60_000,
        "test": 10_000,
        "augmentation": "none",
    }
    mnist = replace(base, model="mlp16", width=1.0, **digits)
    fifty = replace(
        base,
        model="resnet50",
        epochs=6,
        batch=32,
        data="digits",
        samples=1_300,
        test=400,
        augmentation="none",
    )
    photographs = replace(base, model="resnet50", samples=2_500, test=1_000, batch=16)
    grids = {"bn": (0.03, 0.1, 0.3), "plain": (0.001, 0.003, 0.01), "fit": (0.03, 0.1, 0.3)}
    best = {"bn": 0.1, "plain": 0.003, "fit": 0.1}
    best_mnist = {"bn": 0.03, "fit": 0.03, "plain": 0.01}
    best_fifty = {"fit, outputs clipped": 0.3, "bn": 0.1}
    ablations = [name for name in CONTENDERS if name not in (*best, "fit, outputs clipped")]
    return {
        "one epoch": _seeds(base, best, ("fit", "bn")),
        "depth": _seeds(deep, best, ("fit", "bn")),
        "mnist": _seeds(mnist, best_mnist, ("fit", "bn", "plain")),
        "four epochs": _seeds(replace(base, epochs=4), best, ("fit", "bn")),
        "four epochs, deep": _seeds(replace(deep, epochs=4), best, ("fit", "bn")),
        "the twin at 0.03": [
            replace(base, model=model, epochs=epochs, contender="bn", lr=0.03, seed=seed)
            for model in ("vgg8", "vgg16")
            for epochs in (1, 4)
            for seed in range(3)
        ],
        "fifty layers": [
            *(
                replace(fifty, contender=name, epochs=12, lr=lr)
                for name in ("fit", "bn")
                for lr in (0.03, 0.1)
            ),
            *_seeds(fifty, best_fifty, ("fit, outputs clipped", "bn")),
            replace(fifty, lr=0.3),
        ],
        "fifty layers, grid": [
            replace(fifty, contender=name, lr=lr, seed=TUNING)
            for name, grid in (("fit, outputs clipped", (0.1, 0.3)), ("bn", (0.03, 0.1, 0.3)))
            for lr in grid
        ],
        "thirty-four layers": _seeds(
            replace(fifty, model="resnet34"), best_fifty, ("fit, outputs clipped", "bn")
        ),
        "fifty layers, images": [
            replace(base, model="resnet50"),
            *_seeds(photographs, best_fifty, ("fit, outputs clipped", "bn")),
            *_seeds(photographs, {"bn": 0.03}, ("bn",)),
        ],
        "ablation": [replace(base, contender=name) for name in ablations],
        "outputs clipped": [
            replace(base, model=model, contender="fit, outputs clipped", seed=seed)
            for model, seeds in (("vgg16", 3), ("vgg19", 1), ("vgg8", 3), ("resnet18", 1))
            for seed in range(seeds)
        ],
        "grid": [
            replace(base, contender=name, lr=lr, seed=TUNING)
            for name, grid in grids.items()
            for lr in grid
        ],
        "grid, deep": [
            replace(deep, contender=name, lr=lr, seed=TUNING)
            for name, grid in grids.items()
            for lr in grid
        ],
        "grid, mnist": [
            *(
                replace(mnist, contender=name, lr=lr, seed=TUNING)
                for name in ("bn", "fit")
                for lr in (0.03, 0.1)
            ),
            *(
                replace(mnist, contender="plain", lr=lr, seed=TUNING)
                for lr in (0.001, 0.003, 0.01, 0.03)
            ),
        ],
        "plain": [
            *_seeds(base, best, ("plain",)),
            replace(base, epochs=4, contender="plain", lr=best["plain"]),
            replace(deep, contender="plain", lr=best["plain"]),
        ],
        "other depths": [
            *(
                replace(base, model=model, contender=name, lr=best[name])
                for model in ("vgg11", "vgg19")
                for name in ("fit", "bn")
            ),
            *(
                replace(base, model=model, contender="bn", lr=0.03)
                for model in ("vgg11", "vgg19", "resnet18")
            ),
            *_seeds(replace(base, model="resnet18"), best, ("fit", "bn")),
        ],
        "shallower, mnist": [
            run
            for model in ("mlp4", "mlp8")
            for run in _seeds(replace(mnist, model=model), best_mnist, ("fit", "bn", "plain"))
        ],
    }


def gpu() -> Plan:
    """Networks of full width on all of CIFAR-10; some hours on one GPU."""
    full: dict[str, Any] = {
        "samples": 50_000,
        "test": 10_000,
        "batch": 128,
        "augmentation": "cifar",
    }
    base = Run("fit", "resnet18", 30, 0.1, 0, 1.0, **full)
    grids = {
        "bn": (0.03, 0.1, 0.3),
        "plain": (0.001, 0.003, 0.01, 0.03),
        "fit": (0.03, 0.1, 0.3),
    }
    best = {"bn": 0.1, "plain": 0.003, "fit": 0.1}
    short = replace(base, model="vgg8", epochs=5)
    return {
        "grid": [
            replace(short, contender=name, lr=lr, seed=TUNING)
            for name, grid in grids.items()
            for lr in grid
        ],
        "full width": [
            run
            for model in ("resnet18", "vgg16")
            for run in _seeds(replace(base, model=model), best, ("fit", "bn", "plain"))
        ],
        "depth": [
            replace(base, model=model, contender=name, lr=best[name], epochs=10)
            for model in ("vgg8", "vgg11", "vgg16", "vgg19", "resnet34", "resnet50")
            for name in best
        ],
        "fifty layers": [
            replace(base, model=model, contender="fit, outputs clipped", lr=0.3, epochs=10)
            for model in ("resnet34", "resnet50")
        ],
        "ablation": [
            replace(short, contender=name) for name in CONTENDERS if name not in ("bn", "plain")
        ],
    }


SCALES = {"cpu": cpu, "gpu": gpu}


def _seeds(run: Run, best: dict[str, float], names: tuple[str, ...]) -> list[Run]:
    return [
        replace(run, contender=name, lr=best[name], seed=seed)
        for seed in range(3)
        for name in names
    ]


def data(run: Run, root: Path | None) -> tuple[DataSource, Arrays, Arrays]:
    """The data set, its training samples and its test samples, drawn evenly from the classes."""
    source = load_data(run.data, None if run.data == "digits" else root)
    parts = []
    for arrays, wanted in ((source.train, run.samples), (source.test, run.test)):
        part = arrays
        if wanted < len(arrays):
            _, part = split_validation(arrays, wanted / len(arrays), 0)
        parts.append(part)
    return source, parts[0], parts[1]


def train(run: Run, device: torch.device, root: Path | None) -> dict[str, Any]:
    """Train one network.

    Returns:
        accuracy on the test samples in %, loss of each epoch and of the last 30 steps, firing
        rates and gradient ratios ``|g| / |w|`` of ``W_EE`` in the first step by layer, seconds.
    """
    start = time.perf_counter()
    source, training, test = data(run, root)
    torch.manual_seed(run.seed)
    settings = CONTENDERS[run.contender]
    steps = run.epochs * (len(training) // run.batch)
    config = OptimiserConfig(lr=run.lr, **settings)
    model = eisnn.create_model(
        run.model,
        num_classes=source.num_classes,
        in_channels=source.in_channels,
        image_size=source.image_size,
        norm="bn" if run.contender == "bn" else "ei",
        width=run.width,
    ).to(device)

    def epoch(number: int) -> Batches:
        return Batches(training, run.batch, device, run.augmentation, (run.seed, number))

    first, labels = next(iter(epoch(0)))
    eisnn.ei_init_(model, first, generator=torch.Generator().manual_seed(run.seed))
    if config.homeostasis is not None:
        add_homeostasis_(model, first, tonic=config.tonic)
    F.cross_entropy(model(first), labels).backward()
    gradients = [_ratio(weight) for weight in _weights(model)]
    optimiser = make_optimiser(model, config)
    losses: list[torch.Tensor] = []
    for number in range(run.epochs):
        for x, y in epoch(number):
            lr = learning_rate(len(losses), steps, round(0.1 * steps), config)
            for group in optimiser.param_groups:
                group["lr"] = lr
            loss = F.cross_entropy(model(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
    values = torch.stack(losses).tolist()
    correct = 0
    model.eval()
    with torch.no_grad():
        for x, y in Batches(test, 250, device):
            correct += int((model(x).argmax(1) == y).sum())
    each = len(values) // run.epochs
    return {
        "accuracy": 100 * correct / len(test),
        "epoch_losses": [sum(values[i : i + each]) / each for i in range(0, len(values), each)],
        "final_loss": sum(values[-30:]) / len(values[-30:]),
        "diverged": not all(map(math.isfinite, values)),
        "rates": [layer.rate for layer in observe(model, first)],
        "gradient_ratios": gradients,
        "seconds": time.perf_counter() - start,
    }


def _weights(model: nn.Module) -> Iterator[nn.Parameter]:
    """``W_EE`` or the weight of each layer but the last."""
    for module in model.modules():
        if isinstance(module, EIModule) and not isinstance(module, EIOutput):
            yield module.weight_ee
        elif isinstance(module, nn.Conv2d):
            yield module.weight


def _ratio(weight: nn.Parameter) -> float:
    assert weight.grad is not None
    return float(weight.grad.norm() / weight.detach().norm())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="some of the plan; all of it")
    parser.add_argument("--root", type=Path, help="folder of the data sets; the library's default")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after these")
    parser.add_argument("--threads", type=int, help="of the CPU; PyTorch's choice by default")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results"
    )
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if options.scale == "gpu" else "cpu")
    plan = SCALES[options.scale]()
    if unknown := set(options.parts or ()) - set(plan):
        parser.error(f"there is no part {', '.join(unknown)}. Parts: {', '.join(plan)}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.scale}-study.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    deadline = time.monotonic() + 60 * options.minutes
    where = environment(device, "python -m benchmarks.study")
    for part in options.parts or plan:
        for run in plan[part]:
            if any(row["run"] == asdict(run) for row in rows):
                continue
            if time.monotonic() > deadline:
                break
            row = {"run": asdict(run), **train(run, device, options.root), "environment": where}
            rows.append(row)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{run}: {row['accuracy']:.2f} % in {row['seconds']:.0f} s", flush=True)
    write_report(options.out, options.scale, rows)


if __name__ == "__main__":
    main()
