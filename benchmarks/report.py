"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.contenders import BF16
from benchmarks.curves import Curve
from benchmarks.measure import MODES, CaseResult
from benchmarks.targets import Target
from benchmarks.timing import ratio

__all__ = ["describe_case", "describe_curves", "describe_targets"]


def describe_case(name: str, result: CaseResult) -> str:
    """Times, their ratio to eisnn of the same precision, and bytes."""
    case = result.case
    times = result.times["training"]
    rows = [["", *(f"{mode}, ms" for mode in MODES), *("/ eisnn",) * len(MODES), "kept, MiB"]]
    for contender in times:
        suffix = BF16 * contender.endswith(BF16)
        kept = result.kept.get(contender)
        best = {mode: contender == result.floor(mode, suffix) for mode in MODES}
        rows.append(
            [
                contender,
                *(_milliseconds(result, mode, contender, best[mode]) for mode in MODES),
                *(_to_eisnn(result, mode, contender, suffix) for mode in MODES),
                "" if kept is None else f"{kept / 2**20:.1f}",
            ]
        )
    repeats = " and ".join(str(len(result.times[mode]["eisnn"].seconds)) for mode in MODES)
    title = (
        f"{name}: {case.model}, width {case.width:g}, B {case.batch}, T {case.T}, "
        f"{case.channels}x{case.size}x{case.size}; median (quartiles) of {repeats} repeats"
    )
    notes = [f"without {contender}: {why}" for contender, why in result.skipped.items()]
    return "\n".join([title, _table(rows), "* the floor", *notes])


def describe_targets(targets: Iterable[Target]) -> str:
    """Each promise with what was measured."""
    rows = [["targets", "", "precision", "measured", "target", ""]]
    for target in targets:
        value = "" if target.value is None else f"{target.value:.3f}"
        if target.q1 is not None and target.q3 is not None:
            value += f" ({target.q1:.3f} to {target.q3:.3f})"
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[target.met]
        limit = f"{target.sign} {target.limit:g}"
        rows.append([target.case, target.quantity, target.precision, value, limit, verdict])
    return _table(rows)


def describe_curves(curves: Iterable[Curve]) -> str:
    """Times along each curve and the exponents of their growth."""
    rows = [["curves", "contender", "training, ms", "exponent"]]
    for curve in curves:
        for name, timings in curve.times.items():
            points = zip(curve.values, timings, strict=True)
            times = ", ".join(f"{value:g}: {1000 * t.median:.1f}" for value, t in points)
            rows.append([curve.setting, name, times, f"{curve.exponent(name):.2f}"])
    return _table(rows)


def _milliseconds(result: CaseResult, mode: str, contender: str, is_floor: bool) -> str:
    found = result.times[mode][contender].summary()
    q1, median, q3 = (f"{1000 * found[key]:.3g}" for key in ("q1", "median", "q3"))  # type: ignore[operator]
    return f"{median} ({q1} to {q3}){'*' if is_floor else ' '}"


def _to_eisnn(result: CaseResult, mode: str, contender: str, suffix: str) -> str:
    times = result.times[mode]
    return f"{ratio(times[contender], times[f'eisnn{suffix}'])['median']:.2f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)
