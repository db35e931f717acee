"""The leaky integrate-and-fire neuron as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eisnn.functional.neuron import SURROGATES, Surrogate, lif_multistep, lif_step

__all__ = ["LIF"]


class LIF(nn.Module):
    r"""Leaky integrate-and-fire neurons over a sequence.

    ``h[t] = (1 - 1/tau) v[t-1] + x[t]``, ``s[t] = H(h[t] - theta)``,
    ``v[t] = h[t] - theta s[t]``, starting from ``v = 0`` in every call: the module holds no
    state, so nothing has to be reset and nothing but parameters is in a ``state_dict``. For
    streaming, :meth:`step` takes the state and returns the next one.

    Defaults are the paper's. Coming from SpikingJelly they read ``decay_input=False,
    v_reset=None, detach_reset=True, step_mode="m"`` and ``surrogate.Sigmoid(4.0)``.

    Args:
        tau: membrane time constant in time steps, ``>= 1`` (1 forgets everything).
        v_threshold: ``theta > 0``.
        surrogate: ``"sigmoid"`` (alpha 4), ``"arctan"`` (alpha 2), ``"leaky_relu"`` (leak
            0.01), or any :class:`eisnn.functional.Surrogate`, such as ``Sigmoid(alpha=2.0)``.

    Raises:
        ValueError: a parameter is out of its range or the surrogate has no such name.
    """

    def __init__(
        self,
        tau: float = 2.0,
        v_threshold: float = 1.0,
        surrogate: str | Surrogate = "sigmoid",
    ) -> None:
        super().__init__()
        if not 1 <= tau < float("inf"):
            raise ValueError(f"tau is a time constant in steps and must be >= 1, got {tau}")
        if not 0 < v_threshold < float("inf"):
            raise ValueError(f"v_threshold must be > 0, got {v_threshold}")
        if isinstance(surrogate, str):
            if surrogate not in SURROGATES:
                raise ValueError(
                    f"surrogate must be one of {', '.join(SURROGATES)} or a Surrogate object, "
                    f"got {surrogate!r}"
                )
            surrogate = SURROGATES[surrogate]
        self.tau = tau
        self.v_threshold = v_threshold
        self.surrogate = surrogate

    def forward(self, x_seq: Tensor) -> Tensor:
        """Spikes for a whole sequence.

        Args:
            x_seq: integrated currents, ``[T, B, ...]``.

        Returns:
            spikes (0 or 1), same shape and dtype.

        Raises:
            ValueError: fewer than two axes.
        """
        if x_seq.dim() < 2:
            raise ValueError(
                f"LIF takes a sequence [T, B, ...] of currents, got shape {tuple(x_seq.shape)}. "
                "For a single time step use LIF.step(x, v)"
            )
        spikes, _ = lif_multistep(x_seq, None, self.tau, self.v_threshold, self.surrogate)
        return spikes

    def step(self, x: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One time step with the state in the caller's hands.

        Args:
            x: integrated current, ``[B, ...]``.
            v: the potential that the previous step returned, same shape; ``None`` at the
                start of a sequence.

        Returns:
            spikes and the new potential (float32 or better), both ``[B, ...]``.

        Raises:
            ValueError: ``v`` has another shape or device than ``x``.
        """
        if v is None:
            v = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        if v.shape != x.shape or v.device != x.device:
            raise ValueError(
                f"the state must match the input: x is {tuple(x.shape)} on {x.device}, v is "
                f"{tuple(v.shape)} on {v.device}. Pass v=None to start a new sequence"
            )
        return lif_step(x, v, self.tau, self.v_threshold, self.surrogate)

    def extra_repr(self) -> str:
        return f"tau={self.tau}, v_threshold={self.v_threshold}, surrogate={self.surrogate}"
