"""Where metrics go besides ``metrics.csv``: TensorBoard or Weights & Biases."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from eisnn.training.recipe import Recipe
from eisnn.training.result import write_text

__all__ = ["check_logger", "run_logger"]

_ID = "wandb-id"
"""File of a run folder by which a run that is continued finds itself again at W&B."""


def check_logger(kind: str) -> None:
    """Whether the library of a logger is installed.

    Raises:
        ValueError: it is not; the message says how to install it.
    """
    if kind != "none" and find_spec(kind) is None:
        raise ValueError(
            f"training.logger={kind} needs {kind}, which is not installed: "
            f"pip install 'eisnn[{kind}]', or leave it out (metrics.csv is always written)"
        )


@contextmanager
def run_logger(recipe: Recipe, folder: Path, *, writes: bool) -> Iterator[Logger | None]:
    """The logger that ``training.logger`` names, for one run, closed at its end.

    Args:
        recipe: of the run; W&B gets it as its configuration.
        folder: of the run.
        writes: whether this is the process that logs; the others get a logger that is mute.

    Raises:
        ValueError: W&B refuses, usually because nobody is logged in.
    """
    if recipe.training.logger == "tensorboard":
        from lightning.pytorch.loggers import TensorBoardLogger

        yield TensorBoardLogger(folder, name="tensorboard", version="")
    elif recipe.training.logger == "wandb":
        yield from _wandb(recipe, folder, writes)
    else:
        yield None


def _wandb(recipe: Recipe, folder: Path, writes: bool) -> Iterator[Logger]:
    from lightning.pytorch.loggers import WandbLogger

    wandb = import_module("wandb")
    path = folder.resolve()
    number = folder / _ID
    if writes and not number.is_file():
        write_text(number, secrets.token_hex(4))
    options: dict[str, Any] = {
        "project": "eisnn",
        "name": "/".join(path.parts[-2:]),  # of a comparison: digits/ei
        "save_dir": folder,
        "id": number.read_text() if writes else None,
        "resume": "allow",
    }
    logger = WandbLogger(**options, config=asdict(recipe))
    status = 1
    try:
        if writes:
            _ = logger.experiment  # starts it, here rather than within the first step
        yield logger
        status = 0
    except wandb.Error as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"training.logger=wandb: {reason}. Log in with `wandb login`, or set WANDB_MODE=offline"
        ) from None
    finally:
        if wandb.run is not None:
            wandb.finish(exit_code=status)  # or the next network of a comparison writes to it
