"""What keeps a run from losing work: signals, timed checkpoints, a watch for NaN."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

__all__ = ["Interrupted", "NonFiniteError", "NonFiniteWatch", "Survival", "first_non_finite"]


class Interrupted(Exception):  # noqa: N818 (what happened, not an error)
    """A signal ended the run after a checkpoint was written.

    Attributes:
        number: of the signal.
        checkpoint: the file that was written.
    """

    def __init__(self, number: int, checkpoint: Path) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number
        self.checkpoint = checkpoint


class NonFiniteError(RuntimeError):
    """The loss became NaN or infinite."""


class Survival(Callback):
    """Ends a run in order at SIGINT and SIGTERM, and writes checkpoints within long epochs.

    A signal lets the step finish (and the epoch, if it was its last), writes ``checkpoint`` and
    raises :class:`Interrupted`; a second SIGINT stops at once.

    Args:
        checkpoint: file to write.
        minutes: time between checkpoints within an epoch.
    """

    def __init__(self, checkpoint: Path, minutes: float) -> None:
        self.checkpoint = checkpoint
        self.interval = 60 * minutes
        self._received: int | None = None
        self._previous: dict[int, Any] = {}
        self._written = 0.0

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        # before Lightning sets its handlers: it takes them back before teardown is called here
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.getsignal(number)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._written = time.monotonic()
        for number in self._previous:
            signal.signal(number, self._receive)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if trainer.is_last_batch:  # validation and the epoch's own checkpoint come first
            return
        if (index + 1) % trainer.accumulate_grad_batches:  # a checkpoint holds no gradients
            return
        received = trainer.strategy.reduce(
            torch.tensor(self._received or 0, device=module.device), reduce_op="max"
        )
        due = trainer.strategy.broadcast(time.monotonic() - self._written > self.interval)
        number = int(received)
        if number or due:
            trainer.save_checkpoint(self.checkpoint)
            self._written = time.monotonic()
        if number:
            raise Interrupted(number, self.checkpoint)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self._received = number


class NonFiniteWatch(Callback):
    """Stops a run whose loss is NaN or infinite, before the optimiser spoils the weights.

    On the CPU every step is looked at; on other devices, where looking waits for the device,
    every ``every``-th, and always before the epoch's checkpoint.

    Args:
        model: the network that is trained.
        every: steps between looks on accelerators.
    """

    def __init__(self, model: nn.Module, every: int = 50) -> None:
        self.model = model
        self.every = every
        self._inputs: Tensor | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._inputs = batch[0]

    def on_before_backward(
        self, trainer: L.Trainer, module: L.LightningModule, loss: Tensor
    ) -> None:
        due = loss.device.type == "cpu" or trainer.global_step % self.every == 0
        if (due or trainer.is_last_batch) and not bool(loss.isfinite()):
            assert self._inputs is not None
            raise NonFiniteError(
                f"the loss is {loss.item()} at step {trainer.global_step}. "
                f"{first_non_finite(self.model, self._inputs)} The last checkpoint is from before. "
                "Usual causes: a learning rate that is too high (try a third of it), or NaN in "
                "the data"
            )


def first_non_finite(model: nn.Module, inputs: Tensor) -> str:
    """Where NaN or infinite values begin, in a sentence.

    Args:
        model: the network.
        inputs: the batch that gave them.
    """
    if not bool(inputs.isfinite().all()):
        return "The batch itself holds NaN or infinite values."
    found: list[str] = []
    handles = []
    for name, module in model.named_modules():
        if not any(True for _ in module.children()):

            def hook(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                if not found and not bool(output.isfinite().all()):
                    found.append(name)

            handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        return "Every layer's output is finite; the loss itself overflows."
    spoilt = [n for n, p in model.named_parameters() if not bool(p.isfinite().all())]
    where = f"It begins in the output of layer {found[0].removeprefix('body.')}."
    return where + (f" Parameters are spoilt too: {', '.join(spoilt[:3])}..." if spoilt else "")
