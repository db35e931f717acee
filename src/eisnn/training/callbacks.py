"""What is recorded and shown while a network trains."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from eisnn.analysis import observe

__all__ = ["History", "RunProgress"]


class History(Callback):
    """One row for each epoch: losses, accuracies, rates; kept as CSV after every epoch.

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
        self.model = model
        self.path = path
        self.probe = probe
        self.rows: list[dict[str, float]] = []
        self._started = 0.0
        self._training = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self._training = time.perf_counter() - self._started

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        batches: Any = trainer.train_dataloader
        layers = observe(self.model, self.probe.to(module.device))
        divisors = [d for layer in layers if (d := layer.smallest_divisor) is not None]
        metrics = {name: value.item() for name, value in sorted(trainer.callback_metrics.items())}
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1,
                "lr": trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": time.perf_counter() - self._started,
                "samples_per_second": len(batches) * batches.batch_size / self._training,
                **metrics,
                **({"smallest_divisor": min(divisors)} if divisors else {}),
                **{f"rate/{layer.layer}": layer.rate for layer in layers},
            }
        )
        self._write()

    def _write(self) -> None:
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]), restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(part, self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])


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
        if not self._enabled:
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
        self._done += len(batch[1])
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
