"""Records what a network's layers do after each epoch, in ``dynamics.jsonl`` of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from eisnn.analysis.dynamics import DYNAMICS, describe_dynamics, read_dynamics
from eisnn.training.result import write_text

__all__ = ["Dynamics"]

PROBED = 64
"""Samples that are looked at, so that an epoch on a small data set is not much longer."""


class Dynamics(Callback):
    """One line of JSON for each epoch, and one for the initialised network, epoch 0.

    Computed on :data:`PROBED` samples, always the same, in evaluation mode by
    :func:`eisnn.analysis.dynamics.describe_dynamics`; training is not disturbed. A run that is
    continued drops the lines after its checkpoint.

    Args:
        folder: of the run.
        model: the network that is trained.
        probe: inputs and labels to take the samples from, evenly.
    """

    def __init__(self, folder: Path, model: nn.Module, probe: tuple[Tensor, Tensor]) -> None:
        self.folder = folder
        self.model = model
        every = max(1, len(probe[1]) // PROBED)
        self.probe = (probe[0][::every][:PROBED], probe[1][::every][:PROBED])
        self._epoch: int | None = None  # the last one that is written, of what is trained now

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        path = self.folder / DYNAMICS
        kept = []
        if self._epoch is not None and path.is_file():
            kept = [r for r in read_dynamics(self.folder) if r["epoch"] <= self._epoch]
        write_text(path, "".join(map(_line, kept)))
        if trainer.global_step == 0:
            self._write(0, module)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._write(trainer.current_epoch + 1, module)

    def _write(self, epoch: int, module: L.LightningModule) -> None:
        inputs, labels = (part.to(module.device) for part in self.probe)
        record = {"epoch": epoch, **describe_dynamics(self.model, inputs, labels)}
        with (self.folder / DYNAMICS).open("a") as file:
            file.write(_line(record))
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch = state_dict["epoch"]


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":")) + "\n"
