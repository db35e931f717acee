"""``python -m benchmarks``: everything that is measured, in one command."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.cases import CASES, CURVE_CASE, CURVES, quick, quick_curve
from benchmarks.contenders import contenders
from benchmarks.curves import measure_curve, plot_curves
from benchmarks.environment import environment
from benchmarks.measure import MODES, measure
from benchmarks.report import describe_case, describe_curves, describe_targets
from benchmarks.synchronisation import synchronisation
from benchmarks.targets import targets
from benchmarks.timing import Budget, Effort

__all__ = ["main"]

PARTS = (*CASES, "curves")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, write ``DEVICE.json`` and ``DEVICE-curves.png``."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.repeats < 2:
        parser.error("--repeats must be 2 or more, for quartiles")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here")
    device = torch.device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # for all: each finds its fastest algorithms
    effort = Effort(options.repeats, 0 if options.quick else 0.1)
    curves = CURVES if "curves" in options.cases else {}
    cases = [name for name in options.cases if name in CASES]
    budget = Budget(options.minutes, len(cases) * len(MODES) + len(curves))
    options.out.mkdir(parents=True, exist_ok=True)

    record: dict[str, object] = {"environment": environment(device, _command(options))}
    results = {}
    for name in cases:
        case = quick(CASES[name]) if options.quick else CASES[name]
        no_compilation = "--quick" if options.quick else "no time left" if budget.spent else None
        entrants, skipped = contenders(case, device, no_compilation=no_compilation)
        results[name] = measure(case, entrants, skipped, device, effort, budget)
        del entrants  # their memory
        print(describe_case(name, results[name]), end="\n\n", flush=True)
        record["cases"] = {key: result.record() for key, result in results.items()}
        _write(options, record)
    promises = list(targets(results, device))
    record["targets"] = [target.record() for target in promises]
    if device.type == "cuda":
        record["synchronisation"] = synchronisation(CURVE_CASE, device)
        print(f"synchronisation: {record['synchronisation']}", end="\n\n")

    measured = []
    for setting, values in curves.items():
        case = quick(CURVE_CASE) if options.quick else CURVE_CASE
        points = quick_curve(values) if options.quick else values
        measured.append(measure_curve(case, setting, points, device, effort, budget))
    record["curves"] = {curve.setting: curve.record() for curve in measured}
    if measured:
        print(describe_curves(measured), end="\n\n")
        title = f"Training step of {CURVE_CASE.model}, {device.type}, float32"
        plot_curves(options.out / f"{device.type}-curves.png", measured, title)
    if promises:
        print(describe_targets(promises))
    _write(options, record)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU; PyTorch's choice by default")
    parser.add_argument("--repeats", type=int, default=20, help="of each timing, at most; 20")
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        metavar="NAME",
        help=f"some of {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--minutes", type=float, default=8, help="stop adding repeats after these; 8"
    )
    parser.add_argument("--quick", action="store_true", help="tiny networks: does it run at all?")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results", help="folder of the results"
    )
    return parser


def _command(options: argparse.Namespace) -> str:
    """The command with its options, given or not, except for the folder."""
    words = ["python", "-m", "benchmarks"]
    for name, value in vars(options).items():
        if value is True:
            words.append(f"--{name}")
        elif name != "out" and not any(value is x for x in (None, False, PARTS)):
            words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
    return shlex.join(words)


def _write(options: argparse.Namespace, record: dict[str, object]) -> None:
    path = options.out / f"{options.device}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
