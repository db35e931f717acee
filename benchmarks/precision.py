"""What bfloat16 does to a trained network: `python -m benchmarks.precision RUN`.

Runs the test set through the network in float32 and under autocast to bfloat16, with the same
weights, and compares spikes layer by layer, logits and answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from eisnn.data import load_data
from eisnn.nn import LIF
from eisnn.training.trained import load_trained


@contextmanager
def recorded_spikes(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The output of each neuron layer in the last forward pass, by name."""
    found: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, LIF):

            def keep(_: nn.Module, __: object, spikes: Tensor, name: str = name) -> None:
                found[name] = spikes.bool()

            handles.append(module.register_forward_hook(keep))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def compare(run: Path, root: Path | None) -> str:
    """A table as text."""
    trained = load_trained(run)
    source = load_data(trained.data.name, root or trained.data.root, **trained.data.options)
    test, model = source.test, trained.model
    agreed: dict[str, int] = {}
    spikes: dict[str, int] = {}
    total: dict[str, int] = {}
    difference = size = same = 0.0
    right = [0, 0]
    for start in range(0, len(test), 250):
        x, labels = test.batch(range(start, min(start + 250, len(test))), torch.device("cpu"))
        with recorded_spikes(model) as found:
            exact = model(x)
            expected = dict(found)
            with torch.autocast("cpu", torch.bfloat16):
                rounded = model(x).float()
            for name, layer in expected.items():
                agreed[name] = agreed.get(name, 0) + int((layer == found[name]).sum())
                spikes[name] = spikes.get(name, 0) + int(layer.sum())
                total[name] = total.get(name, 0) + layer.numel()
        difference += float((rounded - exact).square().sum())
        size += float(exact.square().sum())
        same += int((rounded.argmax(1) == exact.argmax(1)).sum())
        for i, logits in enumerate((exact, rounded)):
            right[i] += int((logits.argmax(1) == labels).sum())
    lines = [f"{'layer':16}  same in both, %   spikes per step"]
    for name in total:
        same_spikes, rate = 100 * agreed[name] / total[name], spikes[name] / total[name]
        lines.append(f"{name:16}  {same_spikes:16.3f}  {rate:16.3f}")
    n = len(test)
    lines += [
        f"logits: |bfloat16 - float32| / |float32| = {(difference / size) ** 0.5:.4f}",
        f"same answer: {100 * same / n:.2f} % of {n} test samples",
        f"accuracy: float32 {100 * right[0] / n:.2f} %, bfloat16 {100 * right[1] / n:.2f} %",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run trained in float32")
    parser.add_argument("--root", type=Path, help="folder of the data sets")
    options = parser.parse_args()
    print(compare(options.run, options.root))


if __name__ == "__main__":
    main()
