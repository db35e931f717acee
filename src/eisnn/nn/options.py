"""Switches for research: what a circuit does otherwise than the published method.

Legend: N samples, E / I excitatory / inhibitory units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

from torch import Tensor

from eisnn.functional import circuit

__all__ = ["CircuitOptions"]

Stabilisation = Literal["adaptive", "fixed", "none"]
Inhibition = Literal["both", "subtractive", "divisive"]


@dataclass(frozen=True)
class CircuitOptions:
    r"""How one E-I circuit computes ``I_int = g_E (I_EE - I_sub) / stab(I_div) + b_E``.

    The default is the published method (Liu, Ding & Yu, ICLR 2026) and runs in one fused
    operation with the neurons. ``scale_gradient`` and ``learn_gains`` leave it fused; with any
    other change circuit and neurons run one after the other, which is slower.

    Raises:
        ValueError: a value that is not allowed.

    Example:
        >>> options = CircuitOptions(stabilisation="fixed", epsilon=1e-3)
        >>> model = eisnn.create_model("vgg8", num_classes=10, circuit=options)
    """

    stabilisation: Stabilisation = "adaptive"
    """``stab``: ``"adaptive"``, entries that are not positive become the sample's smallest
    positive one; ``"fixed"``, ``I_div + epsilon``; ``"none"``, ``I_div``."""
    epsilon: float = 1e-5
    """Added to every divisor by ``stabilisation="fixed"``; > 0."""
    straight_through: bool = True
    """Whether the adaptive replacement counts as the identity in the backward pass. ``False``:
    its ordinary derivative, which flows to the minimum (to equal minima in equal parts) and not
    to the entry that was replaced."""
    scale_gradient: bool = True
    """Whether the gradient of ``W_EI`` is divided by the fan-in."""
    inhibition: Inhibition = "both"
    """``"subtractive"``: nothing is divided, ``stab(I_div) = 1``, and ``g_I`` takes no part.
    ``"divisive"``: nothing is subtracted, ``I_sub = 0``; not for output layers, whose inhibition
    is always subtractive."""
    dale: bool = True
    """``False``: weights and gains are free in sign, nothing is projected, and
    ``s_I = max(0, I_IE)`` really rectifies. A divisor may then be negative: the adaptive
    stabilisation replaces it like a zero, the others divide by it as it is."""
    learn_gains: bool = True
    """``False``: ``g_I`` and ``g_E`` keep their values."""

    def __post_init__(self) -> None:
        for name, allowed in (("stabilisation", Stabilisation), ("inhibition", Inhibition)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(allowed))}, "
                    f"got {getattr(self, name)!r}. Use one of them"
                )
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool) and not isinstance(value, bool):
                raise ValueError(f"{field.name} must be True or False, got {value!r}. Use a bool")
        number = isinstance(self.epsilon, (int, float)) and not isinstance(self.epsilon, bool)
        if not (number and 0 < self.epsilon < math.inf):
            raise ValueError(
                f"epsilon must be a positive number, got {self.epsilon!r}. For no epsilon use "
                "stabilisation='none' or 'adaptive'"
            )

    @property
    def fused(self) -> bool:
        """Whether the fused operation computes this circuit."""
        return (
            self.stabilisation == "adaptive"
            and self.straight_through
            and self.inhibition == "both"
            and self.dale
        )

    @property
    def folds(self) -> bool:
        """Whether ``I_EE - I_sub`` is one product with ``W_EE - W_EI W_IE``."""
        return self.dale and self.subtracts

    @property
    def subtracts(self) -> bool:
        """Whether there is subtractive inhibition."""
        return self.inhibition != "divisive"

    @property
    def divides(self) -> bool:
        """Whether there is divisive inhibition."""
        return self.inhibition != "subtractive"

    def learned(self, name: str) -> bool:
        """Whether the parameter of this name, such as ``"gain_i"``, takes part in learning."""
        if name == "gain_i":
            return self.learn_gains and self.divides
        return self.learn_gains or name != "gain_e"

    def inhibitory_output(self, i_ie: Tensor, reach: Tensor | None) -> Tensor:
        """``s_I`` of inhibitory currents ``[N, I, ...]``, ``>= 0``; ``reach`` as there.

        See :func:`eisnn.functional.inhibitory_output`.
        """
        return circuit.inhibitory_output(i_ie, reach, straight_through=self.dale)

    def divisor(self, i_div: Tensor) -> Tensor:
        """``stab(I_div)`` of divisive inhibition ``[N, E, ...]``, the same shape."""
        if self.stabilisation == "adaptive":
            return circuit.stabilise(i_div, straight_through=self.straight_through)
        return i_div + self.epsilon if self.stabilisation == "fixed" else i_div
