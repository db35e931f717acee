"""How fast batches come beside how fast they are trained on: `python -m benchmarks.input_pipeline`.

Batches of CIFAR-10's size (50,000 images in memory, pixels random) are gathered, scaled and
augmented as in training, and in turns with that VGG-8 makes training steps on batches of the
same size. Writes ``DEVICE-input-pipeline.json``.

Legend: B batch.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cases import CASES, quick
from benchmarks.contenders import Network
from benchmarks.environment import environment
from benchmarks.timing import Effort, race, ratio
from eisnn.data import Arrays
from eisnn.training.batches import Batches

IMAGES = 50_000

AIM = 3.0
"""Batches should come this many times as fast as VGG-8 trains on them."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.input_pipeline")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a tiny network: times mean nothing")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)

    case = quick(CASES["vgg8"]) if options.quick else CASES["vgg8"]
    inputs, labels = case.inputs(device)
    network = Network(case.network("ei", inputs), inputs, labels)
    network.mode(training=True)
    steps: dict[str, Callable[[], None]] = {"training step": network.training_step}
    for augment in ("none", "flip", "cifar"):
        steps[augment] = _each(_batches(case.batch, device, augment))
    deadline = time.perf_counter() + 300
    times = race(steps, device, Effort(options.repeats, 0.3), deadline)
    trained = times.pop("training step")
    content = {
        "environment": environment(device, "python -m benchmarks.input_pipeline"),
        "batch": case.batch,
        "images_per_second": {
            "training step": case.batch / trained.median,
            **{augment: case.batch / timing.median for augment, timing in times.items()},
        },
        "training / batch": {
            augment: ratio(trained, timing)["median"] for augment, timing in times.items()
        },
        "aim": AIM,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{device.type}-input-pipeline.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"VGG-8, B {case.batch}: {case.batch / trained.median:,.0f} images/s in training")
    for augment, factor in content["training / batch"].items():
        speed = content["images_per_second"][augment]
        met = "met" if factor >= AIM else "NOT MET"
        print(f"{augment:<6} {speed:12,.0f} images/s, {factor:7.1f} times as fast ({met})")
    print(f"written to {path}")


def _batches(size: int, device: torch.device, augment: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches without end, epoch after epoch, as a run has them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 3, 32, 32), generator=generator, dtype=torch.uint8)
    arrays = Arrays(images, torch.arange(IMAGES) % 10, scale=255).to(device)
    epoch = 0
    while True:
        yield from Batches(arrays, size, device, augment, (0, epoch))
        epoch += 1


def _each(batches: Iterator[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    def step() -> None:
        next(batches)

    return step


if __name__ == "__main__":
    main()
