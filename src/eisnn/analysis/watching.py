r"""What the layers of a running model compute, handed out layer by layer as it happens.

A *layer* is a module that holds weights (an E-I circuit, or a convolution or linear layer with
its BatchNorm) and the neurons that follow it. A model computes as it always does, fused
operations included: circuits are wrapped, not hooked. What a fused operation does not keep is
computed once more beside it, each current by its own equation
(:meth:`eisnn.nn.EIModule.currents`) and without low precision, so it equals the fused path's up
to rounding. Spikes are the model's own.

Legend: T time, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eisnn.analysis.wrapping import wrapped
from eisnn.nn import LIF, AvgPool2d, EIModule, EIOutput, TimeWise

__all__ = ["Kind", "Snapshot", "layers_of", "watch"]

Kind = Literal["ei", "bn", "none", "output"]
"""E-I circuit, with BatchNorm, neither, or E-I output layer (no division, no neurons)."""


@dataclass(frozen=True)
class Snapshot:
    """What one layer computed in one forward pass."""

    layer: str
    """Name of the module with the weights, without the leading ``body.`` of eisnn's networks;
    that of the neurons if no weights come before them."""
    kind: Kind
    neurons: str | None
    """Name of the neurons' module; ``None`` if no neurons follow."""
    quantities: dict[str, Tensor]
    """Name to values ``[T, B, ...]``, detached; only what there is, so E-I circuits have all:

    * ``i_ee``, ``i_ie``, ``i_sub``, ``i_div``, ``divisor`` (after stabilisation): the currents of
      a circuit, in the order of :class:`eisnn.nn.circuit.Currents`;
    * ``i_int``: the integrated current, the input of the neurons; of an output layer the
      balanced current ``i_ee - i_sub``, its output;
    * ``v``: the membrane potential after each step, its reset included;
    * ``spikes``: 0 or 1.
    """


Receiver = Callable[[Snapshot], Any]


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of ``model`` that hold weights, by the names of :attr:`Snapshot.layer`.

    E-I circuits, :class:`eisnn.nn.TimeWise` modules (a layer and its BatchNorm) and, outside
    of these, every module with parameters of its own.
    """
    found: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        whole = isinstance(module, (EIModule, TimeWise))
        own = any(True for _ in module.parameters(recurse=whole))
        if module not in inside and own:
            found[_short(name)] = module
            if whole:
                inside.update(module.modules())
    return found


@contextmanager
def watch(model: nn.Module, receive: Receiver) -> Iterator[None]:
    """Hand what each layer computes to ``receive`` while the context lasts.

    Training with a watched model gives the same bits as without; afterwards nothing is left of
    it. With ``recompute`` (activation checkpointing) layers are seen once more in the backward
    pass.

    Args:
        model: any module with E-I circuits or :class:`eisnn.nn.LIF` neurons; not compiled.
        receive: called with a :class:`Snapshot` for each layer, in the order in which they run.

    Raises:
        RuntimeError: the model is watched already.

    Example:
        >>> with watch(model, lambda layer: print(layer.layer, layer.quantities["i_int"].std())):
        ...     model(batch)
    """
    watcher = _Watcher(model, receive)
    with wrapped(model, watcher.methods, watcher.around):
        yield
    watcher.flush()


def _short(name: str) -> str:
    return name.removeprefix("module.").removeprefix("body.")  # of DistributedDataParallel


def _kind(module: nn.Module) -> Kind:
    if isinstance(module, EIModule):
        return "output" if isinstance(module, EIOutput) else "ei"
    return "bn" if any(isinstance(m, _BatchNorm) for m in module.modules()) else "none"


class _Watcher:
    """Collects what belongs to one layer until its neurons have run."""

    def __init__(self, model: nn.Module, receive: Receiver) -> None:
        self.model = model
        self.receive = receive
        self.names = {module: name for name, module in layers_of(model).items()}
        self.neurons = {m: _short(n) for n, m in model.named_modules() if isinstance(m, LIF)}
        self.last: tuple[str, Kind] | None = None  # layer whose neurons have not run yet
        self.pending: dict[str, Tensor] = {}  # its currents
        self.inside = False  # a call that is recorded as a whole

    def methods(self, module: nn.Module) -> list[str]:
        if isinstance(module, EIModule):
            return ["forward", "spikes"]
        if isinstance(module, LIF):
            return ["forward", "step"]
        return ["forward"] if module in self.names or module is self.model else []

    def around(self, name: str, module: nn.Module, method: Any, *args: Any, **kwargs: Any) -> Any:
        if self.inside:
            return method(*args, **kwargs)
        seen: Tensor | None = next(iter((*args, *kwargs.values())), None)
        if method.__name__ == "spikes":
            return self._spikes(module, method, *args, **kwargs)
        result = method(*args, **kwargs)
        if isinstance(module, EIModule):
            self._circuit(module, seen)
        elif isinstance(module, LIF) and method.__name__ == "step":
            assert seen is not None
            spikes, v = result
            self._neurons(module, seen[None], spikes[None], v[None])
        elif isinstance(module, LIF):
            assert seen is not None
            self._neurons(module, seen, result)
        elif module in self.names:
            self.flush()
            self.last = (self.names[module], _kind(module))
        if module is self.model:
            self.flush()
        return result

    def _spikes(
        self, module: nn.Module, method: Any, x: Tensor, lif: LIF, pool: AvgPool2d | None = None
    ) -> Tensor:
        """A circuit with its neurons, and after them the pool by itself: its input is wanted."""
        assert isinstance(module, EIModule)
        self.inside = True
        try:
            spikes: Tensor = method(x, lif)
        finally:
            self.inside = False
        self._circuit(module, x)
        self._neurons(lif, self.pending["i_int"], spikes)
        return spikes if pool is None else pool(spikes)

    @torch.no_grad()
    def _circuit(self, module: EIModule, x: Tensor | None) -> None:
        assert x is not None
        self.flush()
        self.last = (self.names[module], _kind(module))
        timed = x.dim() == module.weight_ee.dim() + 1
        T = x.shape[0] if timed else 1
        static = timed and T > 1 and x.stride(0) == 0  # an image that is shown at each step
        with torch.autocast(x.device.type, enabled=False):
            currents = module.currents((x[:1] if static else x).to(module.weight_ee.dtype))
        found = {name: value for name, value in currents._asdict().items() if value is not None}
        if isinstance(module, EIOutput):
            found["i_int"] = found["i_ee"] - found["i_sub"]
        for name, value in found.items():
            steps = value.unflatten(0, (1 if static else T, -1))
            self.pending[name] = steps.expand(T, *steps.shape[1:])
        if isinstance(module, EIOutput):
            self.flush()

    @torch.no_grad()
    def _neurons(self, lif: LIF, i_int: Tensor, spikes: Tensor, v: Tensor | None = None) -> None:
        name = self.neurons.get(lif)
        layer, kind = self.last or (name or "neurons", "none")
        self.pending["i_int"] = i_int = i_int.detach()
        self.pending["v"] = _potential(lif, i_int) if v is None else v.detach()
        self.pending["spikes"] = spikes.detach()
        self._send(layer, kind, name)

    def flush(self) -> None:
        """Send a circuit without neurons on its own."""
        if self.last is not None and self.pending:
            self._send(*self.last, None)
        self.last = None

    def _send(self, layer: str, kind: Kind, neurons: str | None) -> None:
        snapshot = Snapshot(layer, kind, neurons, self.pending)
        self.last, self.pending = None, {}
        self.receive(snapshot)


def _potential(lif: LIF, i_int: Tensor) -> Tensor:
    """Membrane potential after each step, ``[T, B, ...]``."""
    v: Tensor | None = None
    potentials = []
    for current in i_int.unbind(0):
        _, v = LIF.step(lif, current, v)
        potentials.append(v)
    return torch.stack(potentials)
