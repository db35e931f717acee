"""What a training step of each variant costs in time and memory, measured side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eisnn.analysis.memory import saved_bytes
from eisnn.data import load_data
from eisnn.initialise import ei_init_
from eisnn.nn import CircuitOptions, EIModule, set_options
from eisnn.optim import add_homeostasis_
from eisnn.training.batches import Batches, DataModule
from eisnn.training.module import make_optimiser
from eisnn.training.recipe import Recipe
from eisnn.training.run import build_model

__all__ = ["StepCost", "step_costs"]


@dataclass(frozen=True)
class StepCost:
    """One training step on the CPU, in float32."""

    seconds: float
    """As it is run: fused where the variant allows it."""
    seconds_unfused: float
    """With circuit and neurons one after the other."""
    saved: int
    """Bytes kept for the backward pass, as it is run."""
    saved_unfused: int
    """The same with circuit and neurons one after the other."""
    init_seconds: float
    """E-I Init, once; zero for networks without E-I circuits."""

    def relative_to(self, full: StepCost) -> tuple[float, float, float, float]:
        """The ratios of the first four."""
        return (
            self.seconds / full.seconds,
            self.seconds_unfused / full.seconds_unfused,
            self.saved / full.saved,
            self.saved_unfused / full.saved_unfused,
        )


def step_costs(recipes: Mapping[str, Recipe], rounds: int = 20) -> dict[str, StepCost]:
    """Measure every recipe on the same batch, from the same weights.

    Times are processor time, of all threads together. The variants take turns, so that a
    machine that is busy for a while slows all of them, and the smallest of each one's times
    counts: what others do can only add to it.

    Args:
        recipes: variant to recipe, all of the same data.
        rounds: how often each is measured, after once to warm up.
    """
    first = next(iter(recipes.values()))
    source = load_data(first.data.name, first.data.root, **first.data.options)
    data = DataModule(source, first.training.batch_size, first.data.augmentation, 0, 0)
    batches = Batches(
        data.train, data.batch_size, torch.device("cpu"), first.data.augmentation, (0, 0)
    )
    images, labels = next(iter(batches))
    steps: dict[tuple[str, bool], _Step] = {}
    init_seconds: dict[str, float] = {}
    for name, recipe in recipes.items():
        for fused in (True, False):
            model = build_model(recipe, source, (images.shape[-2], images.shape[-1]))
            circuits = [m for m in model.modules() if isinstance(m, EIModule)]
            options = circuits[0].options if circuits else CircuitOptions()
            set_options(model, CircuitOptions())
            started = time.process_time()
            if circuits:
                ei_init_(model, images, generator=torch.Generator().manual_seed(0))
            taken = time.process_time() - started if circuits else 0.0
            init_seconds[name] = min(taken, init_seconds.get(name, taken))
            set_options(model, options)
            if recipe.optimiser.homeostasis is not None:
                add_homeostasis_(model, images, tonic=recipe.optimiser.tonic)
            for circuit in circuits:
                if not fused:
                    circuit.register_forward_hook(_look)
            steps[name, fused] = _Step(model, recipe, images, labels)
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in steps}
    for _ in range(1 + rounds):
        for key, step in steps.items():
            times[key].append(step.seconds())
    seconds = {key: min(values[1:]) for key, values in times.items()}
    saved = {key: sum(saved_bytes(step.model, images).values()) for key, step in steps.items()}
    return {
        name: StepCost(
            seconds[name, True],
            seconds[name, False],
            saved[name, True],
            saved[name, False],
            init_seconds[name],
        )
        for name in recipes
    }


def _look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """A hook that does nothing; where there is one, circuit and neurons are not fused."""


class _Step:
    """A training step, without Lightning around it."""

    def __init__(self, model: nn.Module, recipe: Recipe, images: Tensor, labels: Tensor) -> None:
        self.model = model.train()
        self.images, self.labels = images, labels
        self.optimiser = make_optimiser(model, recipe.optimiser)
        for group in self.optimiser.param_groups:
            group["lr"] = 0.0  # the weights stay as they are

    def seconds(self) -> float:
        """Time of one step."""
        started = time.process_time()
        self.optimiser.zero_grad()
        F.cross_entropy(self.model(self.images), self.labels).backward()
        self.optimiser.step()
        return time.process_time() - started
