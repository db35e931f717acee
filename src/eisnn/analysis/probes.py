r"""Probes: streaming statistics of what every layer of a running model computes.

Legend: T time, B batch, N = T*B samples, E excitatory units.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from eisnn.analysis.statistics import Correlation, Distribution
from eisnn.analysis.watching import Kind, Snapshot, watch

__all__ = ["DISTRIBUTIONS", "LayerStatistics", "Probe"]

DISTRIBUTIONS = ("i_int", "i_ee", "i_ie", "i_sub", "i_div", "v")
"""Quantities whose values are gathered in a distribution; see :class:`Snapshot`."""


class LayerStatistics:
    """What one layer did in all forward passes that were probed.

    Args:
        layer: its name, as in :class:`eisnn.analysis.watching.Snapshot`.
        kind: of the layer.
        neurons: name of its neurons' module.

    Attributes:
        distributions: quantity to :class:`Distribution`, over samples, steps, units, positions.
    """

    def __init__(self, layer: str, kind: Kind, neurons: str | None) -> None:
        self.layer = layer
        self.kind = kind
        self.neurons = neurons
        self.distributions: dict[str, Distribution] = {}
        self._sums: dict[str, Tensor] = {}  # [T] of i_ee, i_sub, spikes, and of their numbers
        self._fired: Tensor | None = None  # booleans for each neuron: ever, always
        self._always: Tensor | None = None
        self._smallest_divisor: Tensor | None = None
        self._correlation: Correlation | None = None

    @torch.no_grad()
    def update(self, quantities: dict[str, Tensor]) -> None:
        """Add one forward pass.

        Args:
            quantities: as in :class:`Snapshot`.

        Raises:
            ValueError: the layer's neurons are others than before: the input has another size.
        """
        for name in DISTRIBUTIONS:
            if (values := quantities.get(name)) is not None:
                seen = self.distributions.setdefault(name, Distribution(values.device))
                seen.update(values)
        for name in ("i_ee", "i_sub", "spikes"):
            if (values := quantities.get(name)) is not None:
                per_step = values.flatten(1).sum(1, dtype=torch.float64)  # [T]
                self._add(name, per_step)
                self._add(f"{name} count", torch.full_like(per_step, values[0].numel()))
        if (divisor := quantities.get("divisor")) is not None and divisor.numel():
            self._merge_divisor(divisor.amin())
        if "i_ee" in quantities and "i_sub" in quantities:
            self._correlate(quantities["i_ee"].flatten(0, 1), quantities["i_sub"].flatten(0, 1))
        if (spikes := quantities.get("spikes")) is not None and spikes.numel():
            merged = spikes.flatten(0, 1)  # [N, E, ...]
            self._merge_fired(merged.amax(0) > 0, merged.amin(0) > 0)

    def merge(self, other: LayerStatistics) -> None:
        """Add what ``other``, the same layer in another process or run, has seen."""
        for name, distribution in other.distributions.items():
            self.distributions.setdefault(name, Distribution(distribution.device)).merge(
                distribution
            )
        for name, values in other._sums.items():
            self._add(name, values)
        if other._smallest_divisor is not None:
            self._merge_divisor(other._smallest_divisor)
        if other._fired is not None and other._always is not None:
            self._merge_fired(other._fired, other._always)
        if other._correlation is not None:
            if self._correlation is None:
                self._correlation = Correlation(other._correlation.units)
            self._correlation.merge(other._correlation)

    def to(self, device: torch.device | str) -> LayerStatistics:
        """A copy on another device."""
        copy = LayerStatistics(self.layer, self.kind, self.neurons)
        copy.distributions = {k: Distribution(device) for k in self.distributions}
        if self._correlation is not None:
            copy._correlation = Correlation(self._correlation.units, device)
        copy._sums = {k: torch.zeros_like(v, device=device) for k, v in self._sums.items()}
        copy.merge(self)
        return copy

    @property
    def rate(self) -> list[float] | None:
        """Spikes per neuron at each time step, ``[T]``; ``None`` without neurons."""
        return self._ratio("spikes", "spikes count")

    @property
    def silent(self) -> float | None:
        """Share of neurons that never fired."""
        return None if self._fired is None else 1 - self._fired.double().mean().item()

    @property
    def saturated(self) -> float | None:
        """Share of neurons that fired at every step of every sample."""
        return None if self._always is None else self._always.double().mean().item()

    @property
    def balance(self) -> list[float] | None:
        """E-I balance at each time step: mean of ``I_sub`` by mean of ``I_EE``, ``[T]``.

        1 is what E-I Init sets; NaN where no excitation arrived, ``None`` without a circuit.
        """
        return self._ratio("i_sub", "i_ee")

    @property
    def correlation(self) -> float | None:
        """E-I correlation: Pearson's between ``I_EE`` and ``I_sub`` of a unit, mean over units.

        Over samples, steps and positions; units in which one of the two never varies are left
        out. Balance says that excitation and inhibition cancel on average ("loose" balance);
        correlation, that inhibition follows the excitation of the same neuron from moment to
        moment ("tight" balance; Deneve & Machens 2016, Nature Neuroscience 19, 375-382).
        """
        return None if self._correlation is None else self._correlation.mean

    @property
    def bimodality(self) -> float | None:
        """Of the integrated current; see :attr:`Distribution.bimodality`."""
        current = self.distributions.get("i_int")
        return None if current is None else current.bimodality

    @property
    def smallest_divisor(self) -> float | None:
        """After stabilisation; ``None`` without division, or if no inhibition arrived at all."""
        smallest = self._smallest_divisor
        if smallest is None or math.isinf(value := smallest.item()):
            return None
        return value

    def _add(self, name: str, values: Tensor) -> None:
        """Add sums at each step, of sequences that may be longer than those before."""
        old = self._sums.get(name)
        if old is not None:
            values = values.to(old.device)
            length = max(len(old), len(values))
            old, values = (
                torch.cat([part, part.new_zeros(length - len(part))]) for part in (old, values)
            )
            values = old + values
        self._sums[name] = values

    def _ratio(self, above: str, below: str) -> list[float] | None:
        if above not in self._sums or below not in self._sums:
            return None
        found: list[float] = (self._sums[above] / self._sums[below]).tolist()
        return found

    def _merge_divisor(self, smallest: Tensor) -> None:
        old = self._smallest_divisor
        self._smallest_divisor = smallest if old is None else torch.minimum(old, smallest.to(old))

    def _merge_fired(self, fired: Tensor, always: Tensor) -> None:
        if self._fired is None or self._always is None:
            self._fired, self._always = fired, always
            return
        if fired.shape != self._fired.shape:
            raise ValueError(
                f"layer {self.layer} has neurons of shape {tuple(fired.shape)}, and had "
                f"{tuple(self._fired.shape)} before: the inputs differ in size. Use a probe for "
                "each size"
            )
        self._fired = self._fired | fired.to(self._fired.device)
        self._always = self._always & always.to(self._always.device)

    def _correlate(self, i_ee: Tensor, i_sub: Tensor) -> None:
        if self._correlation is None:
            self._correlation = Correlation(i_ee.shape[1], i_ee.device)
        self._correlation.update(i_ee, i_sub)


class Probe:
    """Records statistics of every layer of ``model`` while it is open.

    The model computes what it always does, in training too; see
    :mod:`eisnn.analysis.watching`. Memory does not grow with the number of batches, and nothing
    waits for the device until a figure is asked for. A closed probe costs nothing.

    Args:
        model: any module with E-I circuits or :class:`eisnn.nn.LIF` neurons; not compiled.

    Attributes:
        layers: name to :class:`LayerStatistics`, in the order in which layers ran.

    Example:
        >>> with Probe(model) as probe:
        ...     model(batch)
        >>> probe.layers["conv1"].balance
        [1.01, 1.01, 1.01, 1.01]
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers: dict[str, LayerStatistics] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(watch(self.model, self._receive))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()

    def _receive(self, snapshot: Snapshot) -> None:
        if snapshot.layer not in self.layers:
            self.layers[snapshot.layer] = LayerStatistics(
                snapshot.layer, snapshot.kind, snapshot.neurons
            )
        self.layers[snapshot.layer].update(snapshot.quantities)

    def gather(self) -> None:
        """Merge the statistics of all processes of ``torch.distributed``, in each of them.

        To be called in every process; where none are initialised nothing happens. Afterwards
        the figures are those of all samples together, on the CPU.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return
        own = {name: layer.to("cpu") for name, layer in self.layers.items()}
        everywhere: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everywhere, own)
        self.layers = everywhere[0]
        for other in everywhere[1:]:
            for name, layer in other.items():
                if name in self.layers:
                    self.layers[name].merge(layer)
                else:
                    self.layers[name] = layer
