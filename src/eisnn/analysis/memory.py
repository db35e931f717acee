"""What a training step keeps in memory: counted, and estimated before anything runs.

Bytes kept for the backward pass are a property of the network and its batch, not of the
machine: they are counted from what the operations hand to autograd.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eisnn.analysis.wrapping import wrapped
from eisnn.nn import EIModule

__all__ = ["MemoryEstimate", "estimate_memory", "saved_bytes"]


def saved_bytes(model: nn.Module, batch: Tensor) -> dict[str, int]:
    """Bytes that a forward pass keeps for the backward pass, by layer.

    Tensors that share memory count once, where they are first kept; parameters, which are there
    anyway, do not count. The model computes what it computes in training, fused operations
    included.

    Args:
        model: any module, in the mode it is to be measured in.
        batch: what the model takes.

    Returns:
        bytes by the name of the innermost module that kept them, in order of execution, without
        entries of zero; what no module kept is under ``""``.
    """
    parameters = {_storage(x) for x in (*model.parameters(), *model.buffers())}
    seen: set[int] = set()
    kept: dict[str, int] = {}
    alive = []  # so that no memory is used twice while counting
    with _current_module(model) as stack:

        def pack(x: Tensor) -> Tensor:
            key = _storage(x)
            if key not in seen and key not in parameters:
                seen.add(key)
                kept[stack[-1]] = kept.get(stack[-1], 0) + x.untyped_storage().nbytes()
            alive.append(x)
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            alive.append(model(batch))
    return kept


def _storage(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)


@contextmanager
def _current_module(model: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running, innermost last."""
    stack = [""]

    def within(name: str, _: nn.Module, method: Callable[..., Any], *args: Any) -> Any:
        stack.append(name)
        try:
            return method(*args)
        finally:
            stack.pop()

    def methods(module: nn.Module) -> list[str]:
        return ["forward", "spikes"] if isinstance(module, EIModule) else ["forward"]

    with wrapped(model, methods, within):
        yield stack


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one training step, in bytes."""

    parameters: int
    """Parameters and buffers."""
    gradients: int
    """Of the parameters."""
    optimiser: int
    """State of SGD with momentum."""
    saved: int
    """Kept for the backward pass."""
    peak: int
    """The most that is alive at any time, all of the above included."""
    saved_by_layer: dict[str, int]
    """What :func:`saved_bytes` gives."""


def estimate_memory(
    make_model: Callable[[], nn.Module],
    batch: Sequence[int],
    *,
    autocast: torch.dtype | None = None,
    momentum: float = 0.9,
) -> MemoryEstimate:
    """Memory of one training step, without computing or allocating anything.

    The step (forward, backward, SGD) is run with tensors that have shapes and no contents, and
    what is alive is added up. The libraries that compute convolutions take work space of their
    own, and allocators leave gaps: expect to need 10 to 30 % more, and a GPU's context.

    Args:
        make_model: builds the network; called where its parameters take no memory.
        batch: shape of the inputs.
        autocast: low-precision type of the step, if any.
        momentum: of SGD; without it there is no state.
    """
    with FakeTensorMode():
        model = make_model()
        for layer in model.modules():
            if isinstance(layer, EIModule):
                layer.initialised = True  # there is nothing to look at
        inputs = torch.zeros(tuple(batch))
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            saved = saved_bytes(model, inputs)
        with _Alive() as alive:
            alive.add(inputs, *model.parameters(), *model.buffers())
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum, foreach=True)
            for _ in range(2):  # the state of the optimiser is there from the second step on
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
                    loss = model(inputs).float().logsumexp(1).sum()
                loss.backward()
                del loss
                optimizer.step()
        own = sum(x.numel() * x.element_size() for x in model.parameters())
        buffers = sum(x.numel() * x.element_size() for x in model.buffers())
        return MemoryEstimate(
            parameters=own + buffers,
            gradients=own,
            optimiser=own if momentum else 0,
            saved=sum(saved.values()),
            peak=alive.peak,
            saved_by_layer=saved,
        )


class _Alive(TorchDispatchMode):
    """Adds up the memory of the tensors that operations put out and that are still there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def add(self, *tensors: Tensor) -> None:
        for x in tensors:
            storage = x.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self._known:
                continue

            def gone(_: object, key: int = key, size: int = size) -> None:
                del self._known[key]
                self.now -= size

            self._known[key] = weakref.ref(storage, gone)
            self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(*(x for x in tree_leaves(result) if isinstance(x, Tensor)))
        self.peak = max(self.peak, self.now + _work_space(func, args))
        return result


def _work_space(func: Any, args: Any) -> int:
    """What the fused operation takes for itself: inhibition and divisors, in float32.

    Their gradient takes the divisors' place only in C; pooled spikes are whole everywhere else.
    """
    copies = {"eisnn::spiking_circuit": (0, 1), "eisnn::spiking_circuit_backward": (1, 2)}
    first, divisors = copies.get(func.name().split(".")[0], (0, 0))
    if not divisors:
        return 0
    currents, weight = args[first], args[first + 1]
    n_e, n_i = weight.shape
    return int(currents[..., 0].numel() * (n_i + divisors * n_e) * 4)
