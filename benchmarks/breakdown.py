"""Where the time of a training step goes: `python -m benchmarks.breakdown CASE`.

The step of `eisnn` in one of :data:`benchmarks.cases.CASES`, on the CPU, by kind of operation.
"""

from __future__ import annotations

import argparse

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import CASES
from benchmarks.contenders import contenders

KINDS = {
    "convolutions": (
        "mkldnn_convolution",
        "convolution_backward",
        "eisnn::convolution3x3",
        "_slow_conv",
        "thnn_conv",
    ),
    "matrix products": (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "_linear_pointwise",
        "eisnn::product",
    ),
    "circuit and neurons": ("eisnn::",),
    "optimiser": ("aten::_fused_sgd",),
    "copies and layout": ("aten::copy_", "aten::clone", "aten::index", "aten::cat"),
}
"""Operations by a part of their name; the first kind that fits."""


def breakdown(case: str, steps: int) -> str:
    """A table as text: milliseconds and share of a step for each kind of operation."""
    step = contenders(CASES[case], torch.device("cpu"), no_compilation="not needed")[0]["eisnn"]
    step.training_step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step.training_step()
    times = dict.fromkeys((*KINDS, "everything else"), 0.0)
    for event in profiler.key_averages():
        kinds = (kind for kind, names in KINDS.items() if any(name in event.key for name in names))
        times[next(kinds, "everything else")] += event.self_cpu_time_total / 1000 / steps
    total = sum(times.values())
    lines = [f"{kind:20} {ms:9.1f} ms {100 * ms / total:6.1f} %" for kind, ms in times.items()]
    return "\n".join([*lines, f"{'together':20} {total:9.1f} ms"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.breakdown", description=__doc__)
    parser.add_argument("case", nargs="?", choices=CASES, default="vgg8")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    print(breakdown(options.case, options.steps))


if __name__ == "__main__":
    main()
