"""What is recorded and shown while a network trains."""

from __future__ import annotations

import csv
import logging
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from eisnn.analysis import LayerActivity, observe

__all__ = ["History", "RunProgress"]

log = logging.getLogger("eisnn")

COLLAPSE = 1e-3
"""A layer's smallest divisor has collapsed when it falls below this share of its first value."""


class History(Callback):
    """One row for each epoch: losses, accuracies, rates; kept as CSV after every epoch.

    Warns, once for each layer and reason, when a layer goes silent, saturates, or its divisor
    collapses. All of its state travels with checkpoints, sums over a part of an epoch included.

    Args:
        path: of the CSV file.
        model: the network that is trained.
        probe: batch on which firing rates and the smallest divisor are measured.

    Attributes:
        rows: what the file holds. Columns: ``epoch`` (from 1), ``lr``, ``seconds``,
            ``samples_per_second``, ``{train,val}_{loss,accuracy}`` (accuracy from 0 to 1),
            ``smallest_divisor``, ``rate/LAYER``.
    """

    def __init__(self, path: Path, model: nn.Module, probe: Tensor) -> None:
        self.path = path
        self.model = model
        self.probe = probe
        self.rows: list[dict[str, float]] = []
        self._sums = torch.zeros(3, dtype=torch.float64)  # loss, correct, samples
        self._clock = 0.0
        self._seconds = 0.0
        self._first_divisors: dict[str, float] = {}
        self._warned: set[str] = set()

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._clock = time.perf_counter()  # an epoch that is continued has no start

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        count = len(batch[1])
        step = torch.stack([outputs["loss"].detach() * count, outputs["correct"]]).double()
        self._sums = self._sums.to(step.device)
        self._sums[:2] += step
        self._sums[2] += count
        now = time.perf_counter()
        self._seconds += now - self._clock
        self._clock = now

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        loss, correct, samples = trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
        layers = observe(self.model, self.probe.to(module.device))
        divisors = [d for layer in layers if (d := layer.smallest_divisor) is not None]
        validation = {
            name: value.item()
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith("val_")
        }
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": self._seconds,
                "samples_per_second": samples / self._seconds,
                "train_accuracy": correct / samples,
                "train_loss": loss / samples,
                **validation,
                **({"smallest_divisor": min(divisors)} if divisors else {}),
                **{f"rate/{layer.layer}": layer.rate for layer in layers},
            }
        )
        self._sums = torch.zeros_like(self._sums)
        self._seconds = 0.0
        for logger in trainer.loggers:
            logger.log_metrics(self.rows[-1], trainer.global_step)
        if trainer.is_global_zero:
            self._write()
            self._warn(layers)

    def _write(self) -> None:
        part = self.path.with_suffix(".part")
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(part, self.path)

    def _warn(self, layers: list[LayerActivity]) -> None:
        for layer in layers:
            divisor = layer.smallest_divisor
            first = divisor and self._first_divisors.setdefault(layer.layer, divisor)
            reasons = {
                "is silent: none of its neurons fires": layer.rate == 0,
                "is saturated: its neurons fire at every step": layer.rate == 1,
                f"has a collapsed divisor: {divisor} after {first} in the first epoch": (
                    divisor is not None and first is not None and divisor < COLLAPSE * first
                ),
            }
            for reason, holds in reasons.items():
                kind = f"{layer.layer} {reason.split(':')[0]}"
                if holds and kind not in self._warned:
                    self._warned.add(kind)
                    log.warning(
                        "epoch %d: layer %s %s", self.rows[-1]["epoch"], layer.layer, reason
                    )

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "sums": self._sums.tolist(),
            "seconds": self._seconds,
            "first_divisors": self._first_divisors,
            "warned": sorted(self._warned),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])
        self._sums = torch.tensor(state_dict["sums"], dtype=torch.float64)
        self._seconds = state_dict["seconds"]
        self._first_divisors = dict(state_dict["first_divisors"])
        self._warned = set(state_dict["warned"])


class RunProgress(ProgressBar):
    """A single bar over the whole run: epoch, loss, accuracy, samples per second, time left."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._label = label
        self._enabled = True
        self._progress: Progress | None = None
        self._since = 0.0
        self._done = 0

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        super().on_train_start(trainer, module)
        if not self._enabled or not trainer.is_global_zero:
            return
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=14),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(
            self._label,
            total=int(trainer.estimated_stepping_batches),
            completed=trainer.global_step,
            numbers="",
        )
        self._progress.start()
        self._since, self._done = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self._done += len(batch[1]) * trainer.world_size
        if self._progress is None or (trainer.global_step % 10 and not trainer.is_last_batch):
            return
        speed = self._done / (time.perf_counter() - self._since)
        numbers = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        numbers += f"  loss {float(outputs['loss']):.3f}"
        if "val_accuracy" in trainer.callback_metrics:
            numbers += f"  val {100 * trainer.callback_metrics['val_accuracy'].item():.1f} %"
        numbers += f"  {speed:,.0f}/s"
        self._progress.update(self._task, completed=trainer.global_step, numbers=numbers)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._close()

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
