"""Who takes part: each contender can make one training step and one inference step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eisnn
from benchmarks import spikingjelly_twin as spikingjelly
from benchmarks.cases import Case
from benchmarks.floor import LAYOUTS, Floor, operations
from benchmarks.literal import literal
from eisnn.nn.constraint import nonnegative_parameters

__all__ = ["BF16", "Contender", "Network", "contenders", "no_bf16"]

BF16 = " bf16"
"""Ends the names of contenders in bfloat16; the others compute in float32."""


class Contender(Protocol):
    """Steps do not wait for the device."""

    def mode(self, training: bool) -> None: ...
    def training_step(self) -> None: ...
    def inference_step(self) -> None: ...


class Network:
    """A network with its optimiser; Dale's law is enforced where there is any.

    Args:
        model: any network.
        batch: its input.
        labels: of the batch.
        bf16: run the network under autocast to bfloat16.
        compiled: compile it, without graph breaks.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Tensor,
        labels: Tensor,
        *,
        bf16: bool = False,
        compiled: bool = False,
    ) -> None:
        self.model, self.batch, self.labels, self.bf16 = model, batch, labels, bf16
        self.forward: Callable[[Tensor], Tensor] = model
        if compiled:
            self.forward = torch.compile(model, fullgraph=True)
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True
        )
        if any(nonnegative_parameters(model)):
            eisnn.constrain(model, self.optimizer)

    def mode(self, training: bool) -> None:
        self.model.train(training)

    def training_step(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self._logits(), self.labels).backward()
        self.optimizer.step()

    @torch.inference_mode()
    def inference_step(self) -> None:
        self._logits()

    def _logits(self) -> Tensor:
        with torch.autocast(self.batch.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.forward(self.batch)
        return logits.float()


def contenders(
    case: Case, device: torch.device, *, no_compilation: str | None
) -> tuple[dict[str, Contender], dict[str, str]]:
    """All contenders of a case.

    Args:
        case: network and batch.
        device: where they run.
        no_compilation: why the compiled network is left out; ``None`` if it is not.

    Returns:
        contenders by name, and the reasons of those that do not take part.
    """
    batch, labels = case.inputs(device)
    ei, bn = case.network("ei", batch), case.network("bn", batch)
    plan = operations(ei, batch)
    here: dict[str, Contender] = {}
    skipped: dict[str, str] = {}
    missing = {"bf16": no_bf16(device), "spikingjelly bn twin": spikingjelly.unavailable()}

    def add(name: str, model: nn.Module, *, bf16: bool) -> None:
        here[name + BF16 * bf16] = Network(model, batch, labels, bf16=bf16)

    for bf16 in (False, True) if missing["bf16"] is None else (False,):
        add("eisnn", copy.deepcopy(ei), bf16=bf16)
        add("literal", literal(ei), bf16=bf16)
        add("bn twin", copy.deepcopy(bn), bf16=bf16)
        if missing["spikingjelly bn twin"] is None:
            add("spikingjelly bn twin", spikingjelly.spikingjelly_twin(bn), bf16=bf16)
        dtype = torch.bfloat16 if bf16 else torch.float32
        for name, layout in LAYOUTS.items():
            here[f"floor {name}{BF16 * bf16}"] = Floor(plan, device, dtype, layout)
    if no_compilation is None:
        torch.compiler.reset()  # what it knows of other cases' shapes
        compiled = Network(copy.deepcopy(ei), batch, labels, compiled=True)
        try:
            compiled.training_step()
            here["eisnn compiled"] = compiled
        except Exception as error:  # no compiler, or one that fails: the others can still run
            skipped["eisnn compiled"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    else:
        skipped["eisnn compiled"] = no_compilation
    return here, skipped | {name: why for name, why in missing.items() if why is not None}


def no_bf16(device: torch.device) -> str | None:
    """Why bfloat16 makes no sense on a device; ``None`` if it does."""
    if device.type == "cuda":
        return (
            None
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else "the GPU does not compute in it"
        )
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return None
    return "this CPU only emulates it, many times slower than float32"
