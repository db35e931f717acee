"""The paper's figures of a run (``eisnn figures RUN``), and the depth study (``eisnn depth``).

In ``RUN/figures`` are then::

    figure4.png      integrated current in three layers before and after training
    figure5.png      gradient norms at initialisation, scaling off
    evolution.gif    integrated current, epoch by epoch
    theory.png       E-I Init's predictions beside measurements (E-I networks)
    theory.json      the same in numbers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from eisnn.analysis import gradient_norms
from eisnn.analysis.depth import DEPTHS, plot_depth, study_depth, write_depth
from eisnn.analysis.dynamics import read_dynamics
from eisnn.analysis.figures import LABELS
from eisnn.analysis.paper import (
    animate_distributions,
    plot_distributions,
    plot_gradients,
    plot_theory,
)
from eisnn.analysis.theory import check_theory
from eisnn.training.recipe import Recipe, load_recipe
from eisnn.training.result import write_json
from eisnn.training.run import CONFIG, initialised_network, load_batches
from eisnn.training.trained import refuse_several

__all__ = ["make_depth_study", "make_figures"]

SAMPLES = 64
"""On which gradients and the theory are measured."""


def make_figures(run: Path, out: Path | None = None) -> list[Path]:
    """Draw a run's figures; its network is built and initialised anew for some of them.

    Args:
        run: folder of ``eisnn train``, finished or not; its data set must be there.
        out: folder for the pictures; ``RUN/figures`` if ``None``.

    Returns:
        the files that were written.

    Raises:
        FileNotFoundError: ``run`` holds no run or no ``dynamics.jsonl``.
        ValueError: ``run`` holds several runs, or no epoch is recorded yet.
    """
    if not (run / CONFIG).is_file():
        refuse_several(run)
        raise FileNotFoundError(f"{run} holds no run: there is no {CONFIG} in it")
    records = read_dynamics(run)
    if len(records) < 2:
        raise ValueError(
            f"{run} has not finished an epoch yet. Wait for it, or continue it with eisnn train "
            f"--resume {run}"
        )
    recipe = load_recipe(str(run / CONFIG))
    norm = recipe.model.norm
    title = f"{recipe.model.name}, {LABELS[norm]}, on {recipe.data.name}"
    folder = out or run / "figures"
    folder.mkdir(parents=True, exist_ok=True)

    files = [folder / name for name in ("figure4.png", "evolution.gif", "figure5.png")]
    theta = recipe.model.v_threshold
    epochs = records[-1]["epoch"]
    after = f"{epochs} epochs" if epochs > 1 else "1 epoch"
    plot_distributions(files[0], records[0], records[-1], f"{title}: {after}", theta)
    animate_distributions(files[1], records, title, theta)

    model, data = initialised_network(recipe)
    batch, labels = (part[:SAMPLES] for part in data.labelled_probe())
    norms = gradient_norms(model.eval(), batch, labels, scaled=False)
    off = ", gradient scaling off" if norm == "ei" else ""
    plot_gradients(files[2], norms, f"{title}: at initialisation{off}")
    if norm == "ei":
        layers = check_theory(model, batch, labels)
        files += [folder / "theory.png", folder / "theory.json"]
        plot_theory(files[-2], layers, f"{title}: theory and measurement at initialisation")
        write_json(files[-1], [asdict(layer) for layer in layers])
    return files


def make_depth_study(recipe: Recipe, out: Path, depths: Sequence[int] | None = None) -> list[Path]:
    """Follow activity and gradients through VGGs of several depths, on a recipe's data.

    Args:
        recipe: gives data, batch size, time steps, width and seed.
        out: folder for ``depth.csv`` and ``depth.png``.
        depths: which of :data:`eisnn.analysis.depth.DEPTHS`; all if ``None``.

    Returns:
        the files that were written.

    Raises:
        ValueError: no such depth, or the images are too small for a VGG.
    """
    batch, labels = (part[:SAMPLES] for part in load_batches(recipe).labelled_probe())
    rows = study_depth(
        batch,
        labels,
        depths=depths or tuple(DEPTHS),
        T=recipe.model.T,
        width=recipe.model.width,
        seed=recipe.training.seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    files = [out / "depth.csv", out / "depth.png"]
    write_depth(files[0], rows)
    width = "" if recipe.model.width == 1 else f" of width {recipe.model.width:g}"
    plot_depth(files[1], rows, f"VGGs{width} at initialisation, on {recipe.data.name}")
    return files
