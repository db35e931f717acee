"""Batches for training and evaluation, as a Lightning data module.

Data sets live in memory as small integers; a batch is gathered, converted and augmented at
once on the device. Order and augmentation are functions of (seed, epoch, step), so they need
no state to be continued.

Legend: B batch, C channels, T time.
"""

from __future__ import annotations

from collections.abc import Iterator

import lightning as L
import torch
from torch import Tensor

from eisnn.data import Arrays, DataSource, augmentation, evaluation_transform, split_validation

__all__ = ["Batches", "DataModule"]

EVALUATION_BATCH = 256

RESIDENT_BYTES = 2 * 2**30
"""Data sets up to this size live in an accelerator's memory; larger ones come by batches."""


class Batches:
    """The batches of one epoch.

    Args:
        arrays: the samples.
        batch_size: of each batch; in training, samples that do not fill a batch are left for
            other epochs.
        device: where batches are wanted.
        augment: name of the augmentation of training batches; for evaluation, of the transform
            that goes with it.
        order: (seed, epoch) to shuffle and augment by, or ``None`` for every sample in order,
            as it is.
        shard: (rank, ranks): each of several processes gets its share of every training batch.

    Attributes:
        position: batches handed out; part of a checkpoint, so that an epoch can be continued.

    Raises:
        ValueError: fewer samples than a training batch needs.
    """

    def __init__(
        self,
        arrays: Arrays,
        batch_size: int,
        device: torch.device,
        augment: str = "none",
        order: tuple[int, int] | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        if order is not None and len(arrays) < batch_size:
            raise ValueError(
                f"training.batch_size must not exceed the number of training samples "
                f"({len(arrays)}), got {batch_size}"
            )
        self.arrays = arrays
        self.batch_size = batch_size
        self.device = device
        self.augment = augmentation(augment)
        self.transform = evaluation_transform(augment)
        self.order = order
        self.shard = shard
        self.position = 0

    def __len__(self) -> int:
        if self.order is None:
            return -(-len(self.arrays) // self.batch_size)
        return len(self.arrays) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs ``[B, C, H, W]`` or ``[B, T, C, H, W]``, float32, and labels ``[B]``."""
        indices = torch.arange(len(self.arrays))
        if self.order is not None:
            indices = torch.randperm(len(self.arrays), generator=self._generator(0, "cpu"))
        rank, ranks = self.shard
        for step in range(self.position, len(self)):
            chosen = indices[step * self.batch_size : (step + 1) * self.batch_size][rank::ranks]
            self.position = step + 1
            inputs, labels = self.arrays.batch(chosen, self.device)
            if self.order is not None:
                inputs = self.augment(inputs, self._generator(1 + step * ranks + rank, self.device))
            else:
                inputs = self.transform(inputs)
            yield inputs, labels

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]

    def _generator(self, stream: int, device: torch.device | str) -> torch.Generator:
        """Random numbers of one epoch: stream 0 for the order, the others for the batches."""
        assert self.order is not None
        seed, epoch = self.order
        mixed = hash((seed, epoch, stream)) & (2**63 - 1)  # of integers: the same everywhere
        return torch.Generator(device).manual_seed(mixed)


class DataModule(L.LightningDataModule):
    """A data set with its validation split, as batches on the trainer's device.

    Args:
        source: the data set.
        batch_size: of training batches, over all devices together.
        augment: name of the augmentation of training batches.
        validation: share of the training set held back; 0 for none.
        train_samples: of the training set, drawn evenly from the classes; ``None`` for all.
        select_on_test: validate on the test set and train on all of the training set.
        seed: of the validation split, the order and the augmentation.

    Raises:
        ValueError: a class with too few samples to be split.
    """

    def __init__(
        self,
        source: DataSource,
        batch_size: int,
        augment: str,
        validation: float,
        seed: int,
        train_samples: int | None = None,
        select_on_test: bool = False,
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = batch_size
        self.augment = augment
        self.seed = seed
        self.train: Arrays = source.train
        self.val: Arrays | None = None
        if select_on_test:
            self.val = source.test
        elif validation:
            self._need_two("data.validation", 0)
            self.train, self.val = split_validation(source.train, validation, seed)
        if train_samples is not None and train_samples < len(self.train):
            self._need_two("data.train_samples", "null")
            _, self.train = split_validation(self.train, train_samples / len(self.train), seed)

    def _need_two(self, field: str, off: object) -> None:
        """``field`` takes a share of each class, and leaves one."""
        counts = self.train.labels.bincount(minlength=self.source.num_classes)
        if len(alone := (counts == 1).nonzero().flatten()):
            raise ValueError(
                f"{field} needs two or more training samples of each class to take a share of "
                f"them, and {self.source.name} has one left of class "
                f"{self.source.classes[int(alone[0])]!r}. Add some, or set {field}={off}"
            )

    def setup(self, stage: str) -> None:
        """Bring a small data set to the device once, rather than batch by batch."""
        device = self._trainer().strategy.root_device
        parts = [self.train, self.source.test, *([self.val] if self.val is not None else [])]
        if device.type != "cpu" and sum(p.inputs.nbytes for p in parts) <= RESIDENT_BYTES:
            self.train = self.train.to(device)
            self.val = self.val.to(device) if self.val is not None else None

    @property
    def batches_per_epoch(self) -> int:
        """Number of training batches in an epoch."""
        return len(self.train) // self.batch_size

    def initialisation_batch(self) -> Tensor:
        """Inputs of the first training batch, whole on every device, for E-I Init."""
        order = (self.seed, 0)
        batches = Batches(self.train, self.batch_size, torch.device("cpu"), self.augment, order)
        return next(iter(batches))[0]

    def train_dataloader(self) -> Batches:
        trainer = self._trainer()
        return Batches(
            self.train,
            self.batch_size,
            trainer.strategy.root_device,
            self.augment,
            (self.seed, trainer.current_epoch),
            (trainer.global_rank, trainer.world_size),
        )

    def val_dataloader(self) -> Batches:
        assert self.val is not None
        return self._evaluation(self.val)

    def test_dataloader(self) -> Batches:
        return self._evaluation(self.source.test)

    def probe(self) -> Tensor:
        """A fixed batch to observe the network on: the first validation or training samples."""
        return self.labelled_probe()[0]

    def labelled_probe(self) -> tuple[Tensor, Tensor]:
        """The batch of :meth:`probe` and its labels."""
        arrays = self.train if self.val is None else self.val
        return next(iter(Batches(arrays, EVALUATION_BATCH, torch.device("cpu"), self.augment)))

    def _evaluation(self, arrays: Arrays) -> Batches:
        device = self._trainer().strategy.root_device
        return Batches(arrays, EVALUATION_BATCH, device, self.augment)

    def _trainer(self) -> L.Trainer:
        assert self.trainer is not None
        return self.trainer
