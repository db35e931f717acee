"""What the library promises about its speed and memory, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import torch

from benchmarks.contenders import BF16
from benchmarks.measure import CaseResult
from benchmarks.timing import ratio

__all__ = ["Target", "targets"]

LIMITS: dict[str, dict[str, dict[str, dict[str, tuple[str, float]]]]] = {
    "cpu": {
        "float32": {
            "vgg8": {
                "step / floor": ("<=", 1.35),
                "step / spikingjelly": ("<=", 0.65),
                "literal / step": (">=", 2.7),
                "bytes / literal": ("<=", 0.35),
            },
            "resnet18": {"step / floor": ("<=", 1.4), "step / spikingjelly": ("<=", 0.7)},
        },
        "bfloat16": {
            "vgg8": {
                "step / floor": ("<=", 1.5),
                "step / spikingjelly": ("<=", 0.65),
                "literal / step": (">=", 4.0),
                "bytes / literal": ("<=", 0.25),
            },
        },
    },
    "cuda": {
        "bfloat16": {
            "vgg8": {
                "step / floor": ("<=", 1.3),
                "step / spikingjelly": ("<=", 1.0),
                "literal / step": (">=", 5.0),
                "bytes / literal": ("<=", 0.25),
            },
            "resnet18": {"step / floor": ("<=", 1.35)},
        },
    },
}
"""By device, precision (of both sides of a ratio), case and quantity."""


@dataclass(frozen=True)
class Target:
    """One promise, for one case."""

    case: str
    precision: str
    quantity: str
    value: float | None
    """The median over the repeats; ``None`` where the contender did not take part."""
    q1: float | None
    q3: float | None
    sign: str
    limit: float

    @property
    def met(self) -> bool | None:
        """Whether the promise holds; ``None`` where there is nothing to judge."""
        if self.value is None:
            return None
        return self.value <= self.limit if self.sign == "<=" else self.value >= self.limit

    def record(self) -> dict[str, object]:
        """For the JSON file."""
        return {**asdict(self), "met": self.met}


def targets(results: Mapping[str, CaseResult], device: torch.device) -> Iterator[Target]:
    """The promises for the cases that were measured."""
    for precision, cases in LIMITS[device.type].items():
        for case in (name for name in cases if name in results):
            found = _quantities(results[case], BF16 if precision == "bfloat16" else "")
            for quantity, (sign, limit) in cases[case].items():
                value = found.get(quantity, {})
                quartiles = (value.get(key) for key in ("median", "q1", "q3"))
                yield Target(case, precision, quantity, *quartiles, sign, limit)


def _quantities(result: CaseResult, suffix: str) -> dict[str, dict[str, float]]:
    """Quartiles by quantity; a quantity whose contender is missing has none."""
    times = result.times["training"]
    if f"eisnn{suffix}" not in times:
        return {}
    step = times[f"eisnn{suffix}"]
    floor = times[result.floor("training", suffix)]
    kept = result.kept[f"eisnn{suffix}"] / result.kept[f"literal{suffix}"]
    found = {
        "step / floor": ratio(step, floor),
        "literal / step": ratio(times[f"literal{suffix}"], step),
        "bytes / literal": {"median": kept},
    }
    twin = times.get(f"spikingjelly bn twin{suffix}")
    if twin is not None:
        found["step / spikingjelly"] = ratio(step, twin)
    return found
