"""How much memory a recipe's training will take, before it runs.

Legend: B batch, T time, C channels, H / W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from eisnn.analysis.memory import MemoryEstimate, estimate_memory
from eisnn.data import data_options
from eisnn.models import create_model
from eisnn.training.recipe import Recipe
from eisnn.training.run import build_model, load_batches

__all__ = ["describe", "estimate"]

_CLASSES = 10
"""Of data that are not there; they hardly count."""


def estimate(recipe: Recipe, item: Sequence[int] | None = None) -> MemoryEstimate:
    """Memory of one training step of a recipe on each of its devices.

    Args:
        recipe: of the run.
        item: shape of one input after augmentation, ``[C, H, W]`` (event frames: of one
            frame). ``None``: as the recipe's data set has it, which must be there.

    Raises:
        ValueError: an ``item`` that is not three positive sizes, or a recipe that does not fit.
    """
    batch = recipe.training.batch_size // (recipe.training.devices * recipe.training.nodes)
    low = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(recipe.training.precision)
    if item is None:
        data = load_batches(recipe)
        shape = tuple(data.initialisation_batch().shape[1:])

        def make() -> nn.Module:
            return build_model(recipe, data.source, (shape[-2], shape[-1]))
    else:
        if len(item) != 3 or any(size < 1 for size in item):
            raise ValueError(
                f"the shape of an input is three positive sizes, C H W, got {list(item)}. For "
                "colour pictures of 32x32: 3 32 32"
            )
        channels, height, width = item
        frames = "T" in data_options(recipe.data.name)  # of events
        shape = (*[recipe.model.T] * frames, channels, height, width)

        def make() -> nn.Module:
            arguments = recipe.model.arguments()
            return create_model(
                arguments.pop("name"),
                num_classes=_CLASSES,
                in_channels=channels,
                image_size=(height, width),
                **arguments,
            )

    momentum = recipe.optimiser.momentum
    return estimate_memory(make, (batch, *shape), autocast=low, momentum=momentum)


def describe(memory: MemoryEstimate, layers: bool = False) -> str:
    """The estimate as text; ``layers``: with what each of them keeps."""
    parts = {
        "parameters": memory.parameters,
        "gradients": memory.gradients,
        "optimiser": memory.optimiser,
        "kept for the backward pass": memory.saved,
    }
    lines = [f"{name:<28} {_mebibytes(size)}" for name, size in parts.items()]
    if layers:
        lines += [f"    {name:<24} {_mebibytes(n)}" for name, n in memory.saved_by_layer.items()]
    lines.append(f"{'most at any time':<28} {_mebibytes(memory.peak)}")
    lines.append(
        "Libraries take work space of their own and allocators leave gaps: expect 10 to 30 % "
        "more, and the context of a GPU; on a CPU some 500 MiB for PyTorch and oneDNN."
    )
    return "\n".join(lines)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:10,.1f} MiB"
