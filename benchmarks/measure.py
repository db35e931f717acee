"""One case: times of all contenders, and bytes kept for the backward pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from benchmarks.cases import Case
from benchmarks.contenders import BF16, Contender, Network
from benchmarks.floor import LAYOUTS
from benchmarks.timing import Budget, Effort, Timing, race, ratio
from eisnn.analysis.memory import saved_bytes

__all__ = ["MODES", "CaseResult", "measure"]

MODES = ("training", "inference")


@dataclass(frozen=True)
class CaseResult:
    """What was measured of one case."""

    case: Case
    times: dict[str, dict[str, Timing]]
    """By mode and contender."""
    kept: dict[str, int]
    """Bytes kept for the backward pass, by contender."""
    skipped: dict[str, str]
    """Contenders that did not take part, with the reason."""

    def floor(self, mode: str, suffix: str) -> str:
        """Name of the faster of the two floors."""
        return min(
            (f"floor {layout}{suffix}" for layout in LAYOUTS),
            key=lambda name: self.times[mode][name].median,
        )

    def record(self) -> dict[str, object]:
        """For the JSON file."""
        return {
            "settings": asdict(self.case),
            **{mode: {k: t.summary() for k, t in self.times[mode].items()} for mode in MODES},
            "ratio_to_eisnn": {
                mode: {k: ratio(t, self.times[mode]["eisnn"]) for k, t in self.times[mode].items()}
                for mode in MODES
            },
            "saved_bytes": self.kept,
            "saved_bytes_of_eisnn_divided_by": {
                name: self.kept["eisnn" + BF16 * name.endswith(BF16)] / count
                for name, count in self.kept.items()
            },
            "skipped": self.skipped,
        }


def measure(
    case: Case,
    entrants: dict[str, Contender],
    skipped: dict[str, str],
    device: torch.device,
    effort: Effort,
    budget: Budget,
) -> CaseResult:
    """Training steps of all contenders, inference of all, and what networks keep."""
    kept = {
        name: _kept(contender)
        for name, contender in entrants.items()
        if isinstance(contender, Network) and name.removesuffix(BF16) in _COUNTED
    }
    times = {}
    for mode in MODES:
        for contender in entrants.values():
            contender.mode(mode == "training")
        steps = {name: getattr(contender, f"{mode}_step") for name, contender in entrants.items()}
        times[mode] = race(steps, device, effort, budget.next_part())
    return CaseResult(case, times, kept, skipped)


_COUNTED = ("eisnn", "literal", "bn twin")


def _kept(network: Network) -> int:
    with torch.autocast(network.batch.device.type, torch.bfloat16, enabled=network.bf16):
        return sum(saved_bytes(network.model, network.batch).values())
