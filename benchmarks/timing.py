"""Contenders timed side by side, so that what disturbs one disturbs all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

__all__ = ["Budget", "Effort", "Timing", "race", "ratio"]

Name = TypeVar("Name", bound=Hashable)

WARM_UP = 4
"""Steps of each contender before anything is timed: the first still ask the system for memory."""

FEWEST_REPEATS = 3
"""Made even where the time is up, so that there are quartiles."""


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    repeats: int
    block_seconds: float
    """Contenders take turns of about this time, of one step at least."""


@dataclass(frozen=True)
class Timing:
    """Seconds for a step of one contender."""

    seconds: tuple[float, ...]
    """Of each repeat: the mean over a block of steps."""
    steps: int
    """In a block."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def summary(self) -> dict[str, object]:
        """For the record."""
        return {**quartiles(self.seconds), "steps": self.steps, "seconds": list(self.seconds)}


def quartiles(values: tuple[float, ...]) -> dict[str, float]:
    """``q1``, ``median`` and ``q3``."""
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": median, "q3": q3}


def ratio(a: Timing, b: Timing) -> dict[str, float]:
    """Quartiles over the repeats of the time of ``a`` divided by that of ``b``."""
    return quartiles(tuple(x / y for x, y in zip(a.seconds, b.seconds, strict=True)))


class Budget:
    """Shares the time that is left among the parts of a run that are left."""

    def __init__(self, minutes: float, parts: int) -> None:
        self._end = time.perf_counter() + 60 * minutes
        self._parts = parts

    @property
    def spent(self) -> bool:
        return time.perf_counter() >= self._end

    def next_part(self) -> float:
        """When the part that begins now should end."""
        now = time.perf_counter()
        share = (self._end - now) / max(1, self._parts)
        self._parts -= 1
        return now + share


def race(
    steps: Mapping[Name, Callable[[], None]],
    device: torch.device,
    effort: Effort,
    deadline: float,
) -> dict[Name, Timing]:
    """Time a step of each contender: in turns, and repeatedly.

    On a GPU, the clock runs until the device is done with the whole block, and nothing waits
    for it inside.

    Args:
        steps: by name, what makes one step.
        device: that the steps run on.
        effort: how often and how long.
        deadline: no further repeats after this time of ``time.perf_counter``.

    Returns:
        times by name, the same number of repeats for all; repeat ``i`` of one contender ran
        next to repeat ``i`` of the others.
    """

    def block(step: Callable[[], None], count: int) -> float:
        _wait(device)
        start = time.perf_counter()
        for _ in range(count):
            step()
        _wait(device)
        return (time.perf_counter() - start) / count

    counts = {}
    for name, step in steps.items():
        expected = [block(step, 1) for _ in range(WARM_UP)][-1]
        counts[name] = max(1, round(effort.block_seconds / expected))
    seconds: dict[Name, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for i in range(effort.repeats):
        if i >= FEWEST_REPEATS and time.perf_counter() >= deadline:
            break
        first = i % len(names)  # nobody always runs after the same neighbour's warm caches
        for name in (*names[first:], *names[:first]):
            seconds[name].append(block(steps[name], counts[name]))
    return {name: Timing(tuple(values), counts[name]) for name, values in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
