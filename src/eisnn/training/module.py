"""The Lightning module: loss, metrics, optimiser and schedule."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from eisnn.nn import constrain, nonnegative_parameters
from eisnn.optim import agc, centre_gradients, homeostasis
from eisnn.training.recipe import OptimiserConfig

__all__ = ["Classifier", "learning_rate", "make_optimiser"]


def learning_rate(step: int, steps: int, warmup: int, config: OptimiserConfig) -> float:
    """Linear warm-up from ``warmup_lr``, then a cosine to zero, per iteration.

    Args:
        step: the iteration, from 0.
        steps: of the whole run.
        warmup: iterations of the warm-up.
        config: holds ``lr`` and ``warmup_lr``.
    """
    if step < warmup:
        return config.warmup_lr + (config.lr - config.warmup_lr) * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.5 * config.lr * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimiser(
    model: nn.Module, config: OptimiserConfig, *, fused: bool = False
) -> torch.optim.SGD:
    """SGD with Dale's law and the rules of :mod:`eisnn.optim` that ``config`` asks for.

    Args:
        model: initialised; with homeostasis if ``config`` has it.
        config: of the optimiser.
        fused: one kernel for all parameters; on CPUs and CUDA devices.
    """
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=fused,
    )
    if any(True for _ in nonnegative_parameters(model)):  # the twins have none
        constrain(model, optimiser)
    if config.homeostasis is not None:
        homeostasis(model, optimiser, config.homeostasis)
    if config.centre:
        centre_gradients(model, optimiser)
    if config.agc is not None:
        agc(model, optimiser, config.agc, outputs=config.agc_outputs)
    return optimiser


class Classifier(L.LightningModule):
    """Trains a spiking network to classify: cross-entropy of the time-averaged output.

    Args:
        model: from inputs to logits ``[B, num_classes]``, initialised.
        config: of the optimiser.
        steps: of the optimiser, in the whole run.
        epochs: of the whole run.
    """

    def __init__(self, model: nn.Module, config: OptimiserConfig, steps: int, epochs: int) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.steps = steps
        self.epochs = epochs

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        loss, correct = self._loss_and_correct(batch)
        return {"loss": loss, "correct": correct}

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: tuple[Tensor, Tensor], part: str) -> None:
        loss, correct = self._loss_and_correct(batch)
        count = len(batch[1])
        values = {f"{part}_loss": loss, f"{part}_accuracy": correct / count}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=count, sync_dist=True)

    def _loss_and_correct(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and the number of right answers."""
        inputs, labels = batch
        logits = self.model(inputs)
        return F.cross_entropy(logits, labels), (logits.detach().argmax(1) == labels).sum()

    def configure_optimizers(self) -> Any:
        config, steps = self.config, self.steps
        # with mixed precision, Lightning refuses to clip the gradients of a fused optimiser
        plain = self.trainer.precision == "32-true"
        fused = self.device.type in ("cpu", "cuda") and plain
        optimiser = make_optimiser(self.model, config, fused=fused)
        warmup = round(config.warmup_epochs * steps / self.epochs)
        schedule = LambdaLR(
            optimiser, lambda step: learning_rate(step, steps, warmup, config) / config.lr
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
