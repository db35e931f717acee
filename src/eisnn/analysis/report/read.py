"""Reads run folders of ``eisnn train`` for the report.

Every file is checked as far as the page relies on it, so that a damaged one gives an error here
rather than an empty chart there.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from eisnn.analysis.dynamics import DYNAMICS, read_dynamics

__all__ = ["CONFIG", "Run", "find_runs", "read_run"]

CONFIG = "config.yaml"
METRICS, SUMMARY, EVALUATION = "metrics.csv", "summary.json", "evaluation.json"
ORDER = ("ei", "bn", "none")
"""Of the twins of a comparison."""
STATISTICS = (
    "rate", "silent", "saturated", "balance", "correlation", "bimodality", "smallest_divisor"
)  # fmt: skip

Record = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """The files of a run folder.

    Attributes:
        folder: as it was given.
        config: the recipe, keys joined by dots, values as text.
        metrics: column of ``metrics.csv`` to its values, ``None`` where they are not finite; no
            columns before the first epoch is over.
        summary: of a finished run, else ``None``.
        evaluation: of ``eisnn evaluate``, else ``None``.
        records: of ``dynamics.jsonl``, see :func:`eisnn.analysis.dynamics.describe_dynamics`.
        missing: why there are no records, else empty.
    """

    folder: Path
    config: dict[str, str]
    metrics: dict[str, list[float | None]]
    summary: Record | None
    evaluation: Record | None
    records: list[Record]
    missing: str

    @property
    def norm(self) -> str:
        """``"ei"``, ``"bn"`` or ``"none"``."""
        return self.config["model.norm"]


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The run folders among ``folders`` and one or two levels below them, each once.

    Raises:
        FileNotFoundError: one of them holds no run.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        configs = [folder / CONFIG] if (folder / CONFIG).is_file() else []
        configs = configs or sorted([*folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}")])
        if not configs:
            raise FileNotFoundError(
                f"{folder} holds no run: there is no {CONFIG} in it or in the folders below it. "
                "Runs are in runs/, or where --out put them"
            )
        for config in sorted(configs, key=_twins_in_order):
            found.setdefault(config.parent.resolve(), config.parent)
    return list(found.values())


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        ValueError: a file is damaged; the message names it.
    """
    missing, records = "", []
    try:
        records = _checked(folder / DYNAMICS, _dynamics)
    except FileNotFoundError as error:
        missing = str(error)
    return Run(
        folder=folder,
        config=_checked(folder / CONFIG, _config),
        metrics=_checked(folder / METRICS, _metrics) if (folder / METRICS).is_file() else {},
        summary=_checked(folder / SUMMARY, _summary) if (folder / SUMMARY).is_file() else None,
        evaluation=(
            _checked(folder / EVALUATION, _evaluation) if (folder / EVALUATION).is_file() else None
        ),
        records=records,
        missing=missing,
    )


def _twins_in_order(config: Path) -> tuple[Path, int, str]:
    name = config.parent.name
    return config.parent.parent, ORDER.index(name) if name in ORDER else len(ORDER), name


def _checked(path: Path, read: Callable[[Path], T]) -> T:
    """What ``read`` makes of a file, or an error that names it."""
    try:
        return read(path)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        reason = f"there is no {reason}" if isinstance(error, KeyError) else reason
        raise ValueError(
            f"{path} is damaged or of another version of eisnn: {reason}. Train again, or leave "
            "this run out"
        ) from None


def _config(path: Path) -> dict[str, str]:
    content = yaml.safe_load(path.read_text())
    content.pop("twins", None)  # of other runs
    flat = _flat(content)
    for key in ("data.name", "model.name", "model.norm", "model.T", "training.epochs"):
        flat[key]  # the page relies on them
    return flat


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _metrics(path: Path) -> dict[str, list[float | None]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    columns = {"epoch", "train_loss", "train_accuracy", *(rows[0] if rows else ())}
    return {name: [_number(row[name] or "nan") for row in rows] for name in columns} if rows else {}


def _summary(path: Path) -> Record:
    content: Record = json.loads(path.read_text())
    for key in ("test_accuracy", "seconds", "epoch", "parameters"):
        float(content[key])
    data = content["data"]
    return {
        **content,
        "rates": {str(layer): float(rate) for layer, rate in content["rates"].items()},
        "samples": (int(data["training_samples"]), int(data["test_samples"])),
        "versions": {str(name): str(value) for name, value in content["versions"].items()},
    }


def _evaluation(path: Path) -> Record:
    content = json.loads(path.read_text())
    classes = [str(row["class"]) for row in content["classes"]]
    counts = [[int(count) for count in row] for row in content["confusion"]]
    if {len(counts), *map(len, counts)} != {len(classes)}:
        raise ValueError(f"the confusion matrix has another size than the {len(classes)} classes")
    return {"classes": classes, "counts": counts}


def _dynamics(path: Path) -> list[Record]:
    records = read_dynamics(path.parent)
    lines = len(path.read_text().splitlines())
    if len(records) < lines - 1:  # the last line may have been cut off
        raise ValueError(f"line {len(records) + 1} of {lines} is not JSON")
    records = [_record(record) for record in records]
    for record in records:
        for part in ("layers", "gradients"):
            if _names(record[part]) != _names(records[0][part]):
                raise ValueError(f"the layers of epoch {record['epoch']} are others than before")
    return records


def _names(layers: Sequence[Record]) -> list[str]:
    return [layer["name"] for layer in layers]


def _record(record: Record) -> Record:
    """What the page shows of a record."""
    return {
        "epoch": int(record["epoch"]),
        "layers": [_layer(layer) for layer in record["layers"]],
        "gradients": [
            {"name": str(layer["name"])}
            | {kind: _number(norm) for kind, norm in layer.items() if kind != "name"}
            for layer in record["gradients"]
        ],
    }


def _layer(layer: Record) -> Record:
    return {
        "name": str(layer["name"]),
        **{key: _numbers(layer[key]) for key in STATISTICS},
        "currents": {name: _density(values) for name, values in layer["currents"].items()},
        "parameters": {
            kind: {key: _number(values[key]) for key in ("mean", "std", "zero")}
            for kind, values in layer["parameters"].items()
        },
    }


def _density(values: Record) -> Record:
    low, high, bins = values["edges"]
    density = [float(value or 0) for value in values["density"]]
    if not (low < high and len(density) == bins):
        raise ValueError(f"{len(density)} values in {bins} bins from {low} to {high}")
    return {
        "mean": _number(values["mean"]),
        "std": _number(values["std"]),
        "edges": [float(low), float(high), int(bins)],
        "density": density,
    }


def _numbers(value: Any) -> Any:
    """A number, or a list of them."""
    return [_number(inner) for inner in value] if isinstance(value, list) else _number(value)


def _number(value: Any) -> float | None:
    """A number of 5 significant digits, ``None`` for what is not finite."""
    if value is None or not math.isfinite(number := float(value)):
        return None
    return float(f"{number:.5g}")
