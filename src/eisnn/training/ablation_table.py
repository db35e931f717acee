"""The table of an ablation: what came out of each run, and each variant beside the full method."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from eisnn.training.ablation_cost import StepCost
from eisnn.training.result import write_text

__all__ = ["Outcome", "Row", "summarise", "write_csv", "write_markdown"]

DEFINITIONS = """\
* **accuracy**: test accuracy in %, of the epoch that is best on the validation set; mean and
  standard deviation over the n runs that came to their end.
* **difference** to the full method: mean over the seeds that both finished, in points.
* **non-finite**: a NaN or infinite loss ended the run.
* **silent**: at the end some layer has not a single spike on the probe batch (256 samples).
* **chance**: accuracy not above the share of the test set's largest class by more than three
  standard errors.
* **time, memory**: processor time of one training step (forward, backward, optimiser, projection)
  and what it keeps for the backward pass, relative to the full method. "as run": with circuit
  and neurons fused where the variant allows it. "same path": nothing is fused, for any of them;
  this is what the changed part itself costs. Variants with another initialisation compute the
  same steps as the full method: how far their times are from 1 shows how exact the others are.
"""


@dataclass(frozen=True)
class Outcome:
    """What came out of one run."""

    variant: str
    seed: int
    accuracy: float | None
    """0 to 1; ``None`` if it did not come to its end."""
    silent: tuple[str, ...]
    """Layers without a spike."""
    reason: str | None
    """Which NaN or infinite value ended it."""

    def describe(self) -> str:
        """In a line."""
        if self.accuracy is None:
            return f"non-finite: {self.reason}"
        silent = f", silent: {', '.join(self.silent)}" if self.silent else ""
        return f"{100 * self.accuracy:.2f} %{silent}"


@dataclass(frozen=True)
class Row:
    """One variant."""

    variant: str
    words: str
    n: int
    """Runs that came to their end."""
    mean: float | None
    """Of their accuracies, in %."""
    std: float | None
    """Of their accuracies, in points; ``None`` for fewer than two."""
    difference: float | None
    """To the full method, in points, over the seeds that both finished."""
    non_finite: int
    """Runs that a NaN or infinite loss ended."""
    silent: int
    """Runs with a silent layer."""
    chance: int
    """Runs that are stuck at chance."""
    accuracies: tuple[float, ...]
    """In %, in the order of the seeds."""
    cost: StepCost

    @property
    def problems(self) -> str:
        """What went wrong, in words."""
        total = self.n + self.non_finite
        counts = {"non-finite": self.non_finite, "silent": self.silent, "chance": self.chance}
        return ", ".join(f"{what} {n}/{total}" for what, n in counts.items() if n)


def summarise(
    outcomes: Sequence[Outcome],
    words: Mapping[str, str],
    largest: int,
    samples: int,
    costs: Mapping[str, StepCost],
) -> list[Row]:
    """A row for each variant, in the order of ``words``; the first is the full method.

    Args:
        outcomes: of all runs.
        words: variant to what it changes.
        largest: samples of the largest class of the test set.
        samples: of the test set.
        costs: variant to its cost.
    """
    chance = largest / samples
    threshold = chance + 3 * math.sqrt(chance * (1 - chance) / samples)
    full = {o.seed: o.accuracy for o in outcomes if o.variant == next(iter(words))}
    rows = []
    for variant, what in words.items():
        own = [o for o in outcomes if o.variant == variant]
        done = {o.seed: o.accuracy for o in own if o.accuracy is not None}
        accuracies = tuple(100 * a for a in done.values())
        differences = [
            100 * (a - reference)
            for seed, a in done.items()
            if (reference := full.get(seed)) is not None
        ]
        rows.append(
            Row(
                variant,
                what,
                n=len(done),
                mean=statistics.fmean(accuracies) if accuracies else None,
                std=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
                difference=statistics.fmean(differences) if differences else None,
                non_finite=len(own) - len(done),
                silent=sum(bool(o.silent) for o in own),
                chance=sum(a <= threshold for a in done.values()),
                accuracies=accuracies,
                cost=costs[variant],
            )
        )
    return rows


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Every number, one line for each variant."""
    names = [f.name for f in fields(Row) if f.name not in ("cost", "accuracies")]
    costs = [f.name for f in fields(StepCost)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "accuracies", *costs])
    for row in rows:
        accuracies = " ".join(f"{a:.2f}" for a in row.accuracies)
        values = [getattr(row, name) for name in names]
        writer.writerow([*values, accuracies, *(getattr(row.cost, name) for name in costs)])
    write_text(path, text.getvalue())


def write_markdown(path: Path, rows: Sequence[Row], title: str) -> None:
    """The table for people, with what its words mean."""
    full = rows[0].cost
    lines = [
        f"# Ablation: {title}\n",
        "| variant | what is changed | accuracy % | n | difference | what went wrong "
        "| time as run | time same path | memory as run | memory same path |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        spread = "" if row.std is None else f" ± {row.std:.2f}"
        accuracy = "-" if row.mean is None else f"{row.mean:.2f}{spread}"
        change = "-" if row.difference is None else f"{row.difference:+.2f}"
        cost = row.cost.relative_to(full)
        cells = [
            row.variant,
            row.words.replace("|", "\\|"),
            accuracy,
            str(row.n),
            change if row is not rows[0] else "",
            row.problems,
            *(f"{ratio:.2f}" for ratio in cost),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    scale = (
        f"A step of the full method takes {1000 * full.seconds:.1f} ms as run and "
        f"{1000 * full.seconds_unfused:.1f} ms with nothing fused, and keeps "
        f"{full.saved / 2**20:.1f} and {full.saved_unfused / 2**20:.1f} MiB for the backward "
        f"pass. E-I Init takes as long as {full.init_seconds / full.seconds:.1f} steps, once."
    )
    write_text(path, "\n".join([*lines, "", scale, "", DEFINITIONS]))
