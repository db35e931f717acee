"""Ablations: one recipe, with one part of the method changed at a time, over several seeds.

Every run is an ordinary run folder, ``FOLDER/VARIANT/seed-S``. A run that failed leaves
``failure.json`` in it instead of ``summary.json``.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eisnn.analysis.ablation_figure import plot_ablation
from eisnn.data import load_data
from eisnn.training.ablation_cost import step_costs
from eisnn.training.ablation_table import Outcome, summarise, write_csv, write_markdown
from eisnn.training.recipe import Norm, Recipe, load_recipe
from eisnn.training.result import write_json
from eisnn.training.run import CONFIG, resume, train
from eisnn.training.survival import NonFiniteError

__all__ = ["FULL", "VARIANTS", "Variant", "ablate", "variant_recipe", "variants_of"]

FULL = "full"
SUMMARY, FAILURE = "summary.json", "failure.json"


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    words: str
    """What is changed."""
    circuit: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``model.circuit`` that differ from the recipe's."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``model`` that differ from the recipe's."""


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        FULL: Variant("the full method"),
        "kaiming-init": Variant("|Kaiming| weights instead of E-I Init", model={"init": "kaiming"}),
        "fixed-p-init": Variant(
            "E-I Init for assumed spikes, p = 0.5, instead of measured input",
            model={"init": "fixed_p"},
        ),
        "fixed-epsilon": Variant(
            "divisor I_div + epsilon instead of the adaptive stabilisation",
            {"stabilisation": "fixed"},
        ),
        "no-stabilisation": Variant("divisor I_div as it is", {"stabilisation": "none"}),
        "no-ste": Variant(
            "ordinary derivative of the stabilisation instead of straight-through",
            {"straight_through": False},
        ),
        "no-gradient-scaling": Variant("gradient of W_EI unscaled", {"scale_gradient": False}),
        "subtractive-only": Variant("nothing is divided", {"inhibition": "subtractive"}),
        "divisive-only": Variant("nothing is subtracted", {"inhibition": "divisive"}),
        "no-dale": Variant("weights and gains free in sign", {"dale": False}),
        "fixed-gains": Variant("g_I and g_E not learned", {"learn_gains": False}),
        "bn": Variant("BatchNorm instead of E-I circuits", model={"norm": "bn"}),
        "none": Variant("neither E-I circuits nor normalisation", model={"norm": "none"}),
    }
)
"""Name to variant. ``bn`` and ``none`` train with the optimiser of the recipe's twin."""


def variants_of(recipe: Recipe, names: Sequence[str] | None = None) -> list[str]:
    """The variants to run, the full method first.

    Args:
        recipe: an E-I network; its ``twins`` say which of ``bn`` and ``none`` can be run.
        names: of :data:`VARIANTS`; all that the recipe allows if ``None``.

    Raises:
        ValueError: no such variant, or one that the recipe has no twin for.
    """
    if recipe.model.norm != "ei":
        raise ValueError(f"an ablation needs model.norm=ei, got {recipe.model.norm}")
    if recipe.model != variant_recipe(recipe, FULL, 0).model:
        raise ValueError(
            "an ablation starts from the full method. Leave model.init and all of model.circuit "
            "but epsilon at their defaults"
        )
    possible = [n for n in VARIANTS if n not in ("bn", "none") or n in recipe.twins]
    if names is None:
        return possible
    for name in names:
        if name not in possible:
            twin = f" (the recipe has no twins.{name})" if name in VARIANTS else ""
            raise ValueError(
                f"there is no variant {name!r}{twin}. There are: {', '.join(possible)}"
            )
    return [name for name in possible if name == FULL or name in names]


def variant_recipe(recipe: Recipe, name: str, seed: int) -> Recipe:
    """The recipe of one run: the same data and budget, with the variant's changes."""
    variant = VARIANTS[name]
    model = replace(recipe.model, init="ei", circuit=_plain(recipe))
    circuit = replace(model.circuit, **variant.circuit)
    model = replace(model, circuit=circuit, **variant.model)
    model = replace(model, recompute=model.recompute and model.norm != "bn")
    norm: Norm = model.norm
    optimiser = recipe.optimiser if norm == "ei" else recipe.twins[norm]
    training = replace(recipe.training, seed=seed)
    return replace(recipe, model=model, optimiser=optimiser, training=training, twins={})


def _plain(recipe: Recipe) -> Any:
    """The published circuit, with the recipe's epsilon for the variant that has one."""
    return replace(type(recipe.model.circuit)(), epsilon=recipe.model.circuit.epsilon)


def ablate(
    recipe: Recipe,
    folder: Path,
    seeds: Sequence[int],
    variants: Sequence[str] | None = None,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Run the table, or what is missing of it, and write it.

    Args:
        recipe: the full method; its ``training.seed`` is replaced.
        folder: gets the runs, ``ablation.csv``, ``ablation.md`` and ``ablation.png``. Runs that
            it holds are not repeated; interrupted ones are continued.
        seeds: each variant is run with each of them.
        variants: as for :func:`variants_of`.
        report: is given a line before each run and after it.

    Returns:
        the Markdown table.

    Raises:
        ValueError: the recipe or the variants do not fit, or ``folder`` holds runs of other
            settings.
        Interrupted: a signal ended a run, after a checkpoint was written.
    """
    names = variants_of(recipe, variants)
    outcomes: list[Outcome] = []
    for seed in seeds:
        for name in names:
            one = variant_recipe(recipe, name, seed)
            where = f"[{len(outcomes) + 1}/{len(names) * len(seeds)}] {name}, seed {seed}"
            report(f"{where} ...")
            outcomes.append(_run(one, folder / name / f"seed-{seed}", name))
            gc.collect()  # Lightning's objects refer to each other, and to the run's data
            report(f"{where}: {outcomes[-1].describe()}")
    source = load_data(recipe.data.name, recipe.data.root, **recipe.data.options)
    counts = source.test.labels.bincount()
    report("measuring what a step costs ...")
    costs = step_costs({name: variant_recipe(recipe, name, seeds[0]) for name in names})
    words = {name: VARIANTS[name].words for name in names}
    rows = summarise(outcomes, words, int(counts.max()), int(counts.sum()), costs)
    title = f"{recipe.model.name} on {source.name}, {recipe.training.epochs} epochs"
    write_csv(folder / "ablation.csv", rows)
    write_markdown(folder / "ablation.md", rows, title)
    relative = [row.cost.relative_to(rows[0].cost) for row in rows]
    plot_ablation(folder / "ablation.png", rows, relative, title)
    return folder / "ablation.md"


def _run(recipe: Recipe, folder: Path, name: str) -> Outcome:
    """One run: as it is found, continued, or from the start."""
    if (folder / CONFIG).is_file():
        found = load_recipe(str(folder / CONFIG))
        if found != recipe:
            raise ValueError(
                f"{folder} holds a run with other settings. Give another folder with --out, or "
                "the same recipe and overrides as before"
            )
    if not (folder / SUMMARY).is_file() and not (folder / FAILURE).is_file():
        try:
            if (folder / CONFIG).is_file():
                resume(folder, progress=False)
            else:
                train(recipe, folder, progress=False)
        except NonFiniteError as error:
            write_json(folder / FAILURE, {"reason": str(error)})
    seed = recipe.training.seed
    if (folder / FAILURE).is_file():
        return Outcome(name, seed, None, (), json.loads((folder / FAILURE).read_text())["reason"])
    summary = json.loads((folder / SUMMARY).read_text())
    silent = tuple(layer for layer, rate in summary["rates"].items() if rate == 0)
    return Outcome(name, seed, summary["test_accuracy"], silent, None)
