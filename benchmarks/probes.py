"""What probes cost: `python -m benchmarks.probes`.

Times a training step of the same network as it is, after a probe was open and closed, and with
an open one, in turns within one run (:func:`benchmarks.timing.race`).
"""

from __future__ import annotations

import argparse
import time

import torch

from benchmarks.cases import CASES, Case, quick
from benchmarks.contenders import Network
from benchmarks.timing import Effort, race, ratio
from eisnn.analysis import Probe

__all__ = ["PRICES", "probe_costs"]

PRICES = ("again", "off", "on")
"""The network once more, which shows how exact the ratios are; after a probe; with a probe."""


def probe_costs(
    case: Case, device: torch.device, effort: Effort, deadline: float
) -> dict[str, dict[str, float]]:
    """Quartiles of the time of a training step, divided by that of a network never probed.

    Args:
        case: the network and its batch.
        device: to run on.
        effort: how long to measure.
        deadline: as for :func:`benchmarks.timing.race`.

    Returns:
        for each of :data:`PRICES`.
    """
    batch, labels = case.inputs(device)
    networks = {
        name: Network(case.network("ei", batch), batch, labels) for name in ("never", *PRICES)
    }
    with Probe(networks["off"].model):
        networks["off"].training_step()
    probe = Probe(networks["on"].model)

    def probed() -> None:
        with probe:
            networks["on"].training_step()

    steps = {name: network.training_step for name, network in networks.items()}
    times = race({**steps, "on": probed}, device, effort, deadline)
    return {name: ratio(times[name], times["never"]) for name in PRICES}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; PyTorch's choice by default")
    parser.add_argument("--repeats", type=int, default=40, help="of each timing, at most; 40")
    parser.add_argument("--minutes", type=float, default=3, help="no more repeats after these; 3")
    parser.add_argument("--quick", action="store_true", help="a tiny network: does it run at all?")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    case = quick(CASES["vgg8"]) if options.quick else CASES["vgg8"]
    device = torch.device(options.device)
    effort = Effort(options.repeats, 0 if options.quick else 0.1)
    deadline = time.perf_counter() + 60 * options.minutes
    costs = probe_costs(case, device, effort, deadline)
    words = {
        "again": "never probed, timed once more",
        "off": "probed before, probe closed",
        "on": "with an open probe",
    }
    print("training step / that of a network never probed: median (quartiles)")
    for name, cost in costs.items():
        print(f"{words[name]:30}  {cost['median']:.3f} ({cost['q1']:.3f} to {cost['q3']:.3f})")


if __name__ == "__main__":
    main()
