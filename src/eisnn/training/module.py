"""The Lightning module: loss, metrics, optimiser and schedule."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from eisnn.nn import constrain
from eisnn.training.recipe import OptimiserConfig

__all__ = ["Classifier", "learning_rate"]


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


class Classifier(L.LightningModule):
    """Trains a spiking network to classify: cross-entropy of the time-averaged output.

    Args:
        model: from inputs to logits ``[B, num_classes]``, initialised.
        config: of the optimiser.
    """

    def __init__(self, model: nn.Module, config: OptimiserConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step(batch, "test")

    def _step(self, batch: tuple[Tensor, Tensor], part: str) -> Tensor:
        inputs, labels = batch
        logits = self.model(inputs)
        loss = F.cross_entropy(logits, labels)
        correct = (logits.detach().argmax(1) == labels).float().mean()
        self.log_dict(
            {f"{part}_loss": loss.detach(), f"{part}_accuracy": correct},
            on_step=False,
            on_epoch=True,
            batch_size=len(labels),
            sync_dist=True,
        )
        return loss

    def configure_optimizers(self) -> Any:
        config, trainer = self.config, self.trainer
        optimiser = torch.optim.SGD(
            self.model.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        constrain(self.model, optimiser)
        steps = int(trainer.estimated_stepping_batches)
        assert trainer.max_epochs is not None
        warmup = round(config.warmup_epochs * steps / trainer.max_epochs)
        schedule = LambdaLR(
            optimiser, lambda step: learning_rate(step, steps, warmup, config) / config.lr
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
