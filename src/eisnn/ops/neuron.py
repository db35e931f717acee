"""What the fused operations need to know of the neurons, in plain numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from eisnn.functional.neuron import ArcTan, LeakyReLU, Sigmoid, Surrogate

__all__ = ["Neuron", "surrogate_of"]

_WIDTH = {Sigmoid: "alpha", ArcTan: "alpha", LeakyReLU: "leak"}


class Neuron(NamedTuple):
    """LIF neurons over ``T`` steps; see :mod:`eisnn.functional.neuron` for the equations."""

    T: int
    """Number of time steps."""
    tau: float
    """Membrane time constant in steps."""
    v_threshold: float
    """``theta``."""
    surrogate: str
    """``"Sigmoid"``, ``"ArcTan"`` or ``"LeakyReLU"``."""
    width: float
    """Its one number: ``alpha``, ``alpha`` or ``leak``."""

    @property
    def decay(self) -> float:
        """``1 - 1/tau``."""
        return 1 - 1 / self.tau

    @property
    def derivative(self) -> Surrogate:
        """The surrogate as an object."""
        kinds: dict[str, Callable[[float], Surrogate]]
        kinds = {"Sigmoid": Sigmoid, "ArcTan": ArcTan, "LeakyReLU": LeakyReLU}
        return kinds[self.surrogate](self.width)

    @classmethod
    def of(cls, T: int, tau: float, v_threshold: float, surrogate: Surrogate) -> Neuron | None:
        """Neurons with ``surrogate``; ``None`` if it is not one that kernels know."""
        known = surrogate_of(surrogate)
        return None if known is None else cls(T, tau, v_threshold, *known)


def surrogate_of(surrogate: Surrogate) -> tuple[str, float] | None:
    """Name and width of a surrogate; ``None`` for one that a user wrote."""
    width = _WIDTH.get(type(surrogate))
    return None if width is None else (type(surrogate).__name__, getattr(surrogate, width))
