"""Runs as one HTML page that needs nothing else: no network, no other files.

The page is ``report.html``, ``report.css`` and ``report.js`` with the data of the runs in it, as
JSON; the script draws everything from them and sets text as text, never as markup.
"""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import eisnn
from eisnn.analysis.figures import LABELS
from eisnn.analysis.report.read import Record, Run, find_runs, read_run

__all__ = ["report_page", "write_report"]

MOST_RUNS = 8
"""Side by side: there are as many colours."""
MOST_CLASSES = 30
"""Of a confusion matrix with numbers."""
MOST_CHARACTERS = 2_500_000
"""Of the records in a page, about; epochs are left out to keep to it."""
ALL_OF_THE_FIRST = 10
"""Epochs that are kept in any case, for most happens in them."""
QUIET = 0.99
"""A layer is called silent if more than this share of its neurons is."""


def write_report(folders: Sequence[Path], path: Path) -> list[Path]:
    """Write a page on one run, or on several side by side.

    Args:
        folders: run folders of ``eisnn train``, or folders that hold some, such as that of a
            comparison.
        path: of the HTML file; its folder is created.

    Returns:
        the run folders that it shows.

    Raises:
        FileNotFoundError: a folder holds no run.
        ValueError: there are too many runs, or a file is damaged; the message names it.
    """
    found = find_runs(folders)
    if len(found) > MOST_RUNS:
        raise ValueError(
            f"a report shows at most {MOST_RUNS} runs side by side, and these are {len(found)}. "
            f"Name those you want, such as: eisnn report {found[0]} {found[1]}"
        )
    page = report_page([read_run(folder) for folder in found])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return found


def report_page(runs: Sequence[Run]) -> str:
    """The page, HTML.

    Args:
        runs: at least one.
    """
    names = _names(runs)
    every = _thinning(runs)
    data = {
        "runs": [_run(run, name, every) for run, name in zip(runs, names, strict=True)],
        "most_classes": MOST_CLASSES,
    }
    networks = dict.fromkeys(run.config["model.name"] for run in runs)
    sets = dict.fromkeys(run.config["data.name"] for run in runs)
    title = f"{', '.join(networks)} on {', '.join(sets)}"
    descriptions = dict.fromkeys(run.config.get("description", "") for run in runs)
    parts = resources.files(__name__)
    script = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Template((parts / "report.html").read_text("utf-8")).substitute(
        title=html.escape(title),
        description=html.escape(". ".join(filter(None, descriptions))),
        version=html.escape(eisnn.__version__),
        style=(parts / "report.css").read_text("utf-8").strip(),
        script=(parts / "report.js").read_text("utf-8").strip(),
        data=script,
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """By norm where that tells the runs apart, else by folder."""
    if len({run.norm for run in runs}) == len(runs):
        return [LABELS.get(run.norm, run.norm) for run in runs]
    folders = [run.folder.resolve() for run in runs]
    above = os.path.commonpath([folder.parent for folder in folders])
    return [folder.relative_to(above).as_posix() for folder in folders]


def _run(run: Run, name: str, kept: set[int]) -> Record:
    """What the script draws a run from."""
    summary, records = run.summary, [r for r in run.records if r["epoch"] in kept]
    columns = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
    versions = {} if summary is None else summary["versions"]
    return {
        "name": name,
        "accuracy": None if summary is None else summary["test_accuracy"],
        "kept": None if summary is None else summary["epoch"],
        "facts": _facts(run),
        "notes": _notes(run, len(records)),
        "metrics": {key: run.metrics[key] for key in columns if key in run.metrics},
        "names": {
            part: [layer["name"] for layer in run.records[0][part]] if run.records else []
            for part in ("layers", "gradients")
        },
        "records": [_embedded(record) for record in records],
        "confusion": run.evaluation,
        "evaluate": f"eisnn evaluate {run.folder}",
        "config": run.config | {f"version of {key}": text for key, text in versions.items()},
    }


def _facts(run: Run) -> dict[str, str]:
    """The summary table; every run has the same rows."""
    config, summary = run.config, run.summary
    epochs = len(run.metrics.get("epoch", []))
    facts = dict.fromkeys(
        (
            "Network", "Data set", "Samples", "Time steps", "Epochs trained", "Weights of epoch",
            "Best validation accuracy", "Parameters", "Training time", "Firing rates of layers",
            "Silent layers", "Smallest divisor", "Folder",
        ),
        "-",
    )  # fmt: skip
    facts["Network"] = f"{config['model.name']}, {LABELS.get(run.norm, run.norm)}"
    facts["Data set"] = config["data.name"]
    facts["Time steps"] = config["model.T"]
    facts["Epochs trained"] = f"{epochs} of {config['training.epochs']}"
    facts["Folder"] = str(run.folder)
    validation = [x for x in run.metrics.get("val_accuracy", []) if x is not None]
    if validation:
        facts["Best validation accuracy"] = f"{100 * max(validation):.2f} %"
    if run.records:
        layers = run.records[-1]["layers"]
        silent = [layer["name"] for layer in layers if (layer["silent"] or 0) > QUIET]
        facts["Silent layers"] = ", ".join(silent) or "none"
    if summary is not None:
        facts["Weights of epoch"] = str(summary["epoch"])
        facts["Samples"] = "{:,} training, {:,} test".format(*summary["samples"])
        facts["Parameters"] = f"{summary['parameters']:,}"
        facts["Training time"] = _duration(summary["seconds"])
        if rates := summary["rates"].values():
            facts["Firing rates of layers"] = (
                f"{min(rates):.2f} to {max(rates):.2f} spikes per step"
            )
        if (divisor := summary.get("smallest_divisor")) is not None:
            facts["Smallest divisor"] = f"{divisor:.2g}"
    return facts


def _notes(run: Run, records: int) -> list[str]:
    """What a reader has to know about a run."""
    notes = []
    if run.summary is None:
        notes.append(f"Its training is not finished. Continue: eisnn train --resume {run.folder}")
    elif run.summary.get("selected_on_test"):
        notes.append("The epoch was chosen on the test set, as in the published runs.")
    if not run.records:
        why = run.missing or "nothing is recorded yet"
        notes.append(f"There is nothing on layers and gradients: {why}.")
    elif records < len(run.records):
        notes.append(
            f"{records} of {len(run.records)} recorded epochs are shown for layers and gradients, "
            "to keep this page small."
        )
    return notes


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _thinning(runs: Sequence[Run]) -> set[int]:
    """The epochs to keep, the same for all runs: the first ones, the last, and evenly between."""
    epochs = sorted({record["epoch"] for run in runs for record in run.records})
    size = sum(len(json.dumps(_embedded(run.records[0]))) for run in runs if run.records)
    most = max(2 * ALL_OF_THE_FIRST, MOST_CHARACTERS // max(size, 1))
    if len(epochs) <= most:
        return set(epochs)
    first, rest = epochs[:ALL_OF_THE_FIRST], epochs[ALL_OF_THE_FIRST:]
    count = most - ALL_OF_THE_FIRST
    ends = {run.records[-1]["epoch"] for run in runs if run.records}
    return {*first, *ends, *(rest[round(i * (len(rest) - 1) / (count - 1))] for i in range(count))}


def _embedded(record: Record) -> Record:
    """A record without what the script knows, and with densities in 8 bits."""
    return {
        "epoch": record["epoch"],
        "layers": [
            {key: value for key, value in layer.items() if key not in ("name", "currents")}
            | {"currents": {name: _coded(d) for name, d in layer["currents"].items()}}
            for layer in record["layers"]
        ],
        "gradients": [
            {key: value for key, value in layer.items() if key != "name"}
            for layer in record["gradients"]
        ],
    }


def _coded(distribution: dict[str, Any]) -> dict[str, Any]:
    """The density as base64 of bytes, 255 for its peak."""
    density = distribution["density"]
    peak = max(density)
    heights = bytes(round(255 * value / peak) if peak > 0 else 0 for value in density)
    return distribution | {"peak": peak, "density": base64.b64encode(heights).decode("ascii")}
