"""What all networks share: the door where time becomes the first axis, and the read-out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from eisnn.nn import Spiking, present, time_first

__all__ = ["SpikingNetwork"]


class SpikingNetwork(nn.Module):
    """A network of layers over ``[T, B, ...]`` whose logits are the mean of its output over time.

    Args:
        body: ``[T, B, C, H, W]`` (or ``[T, B, D]``) to ``[T, B, num_classes]``.
        T: how often a static image is presented; event frames bring their own number of steps.
        in_channels: channels that images and frames must have.
        image_size: height and width that they must have; ``None`` if any will do.
        min_size: the smallest side that will do.

    Raises:
        ValueError: ``T`` below one.
    """

    def __init__(
        self,
        body: Spiking,
        *,
        T: int,
        in_channels: int,
        image_size: tuple[int, int] | None = None,
        min_size: int = 1,
    ) -> None:
        super().__init__()
        if T < 1:
            raise ValueError(f"T is the number of time steps and must be >= 1, got {T}")
        self.T = T
        self.in_channels = in_channels
        self.image_size = image_size
        self.min_size = min_size
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Logits.

        Args:
            x: images ``[B, C, H, W]`` or event frames ``[B, T, C, H, W]``, non-negative and in
                floating point (images in [0, 1], not normalised by mean and deviation).

        Returns:
            ``[B, num_classes]``.

        Raises:
            ValueError: another number of axes or channels, or a size the network cannot take.
        """
        self._check(x, (4, 5), "images [B, C, H, W] or event frames [B, T, C, H, W]")
        x_seq = present(x, self.T) if x.dim() == 4 else time_first(x)
        logits: Tensor = self.body(x_seq).mean(0)
        return logits

    def step(self, x: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, Any]:
        """One time step, for streams of events; logits are the mean of the outputs so far.

        Args:
            x: one frame ``[B, C, H, W]``.
            state: what the previous step returned, the potentials of all neurons; ``None`` at
                the start of a sequence.

        Returns:
            the output of this step ``[B, num_classes]``, and the new state.

        Raises:
            ValueError: as ``forward``.
        """
        self._check(x, (4,), "one frame [B, C, H, W] at a time")
        return self.body.step(x, state)

    def _check(self, x: Tensor, ranks: tuple[int, ...], what: str) -> None:
        if x.dim() not in ranks or x.shape[-3] != self.in_channels:
            raise ValueError(
                f"the network takes {what} with C = {self.in_channels}, got shape {tuple(x.shape)}"
            )
        size = tuple(x.shape[-2:])
        if self.image_size is not None and size != self.image_size:
            raise ValueError(
                f"the network was built for images of {self.image_size} pixels (height, width), "
                f"got {size}. Pass image_size={size} to create_model, or resize the images"
            )
        if min(size) < self.min_size:
            raise ValueError(
                f"the network halves its input repeatedly and needs images of at least "
                f"{self.min_size}x{self.min_size} pixels, got {size}. Pad or resize the images"
            )
