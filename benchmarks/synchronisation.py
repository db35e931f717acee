"""Whether a training step makes the CPU wait for the GPU."""

from __future__ import annotations

import torch

from benchmarks.cases import Case
from benchmarks.contenders import Network

__all__ = ["synchronisation"]


def synchronisation(case: Case, device: torch.device) -> dict[str, str]:
    """Run a training step of eisnn with PyTorch's detector of synchronisation on.

    Returns:
        by precision, ``"nothing synchronises"`` or what did.
    """
    batch, labels = case.inputs(device)
    found = {}
    for precision in ("float32", "bfloat16"):
        network = Network(case.network("ei", batch), batch, labels, bf16=precision == "bfloat16")
        network.training_step()  # what happens only once may wait
        torch.cuda.synchronize(device)
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            network.training_step()
            found[precision] = "nothing synchronises"
        except RuntimeError as error:
            found[precision] = str(error).splitlines()[0]
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return found
