"""Where and with what the numbers were measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from pathlib import Path

import torch

import eisnn
from benchmarks import spikingjelly_twin as spikingjelly
from eisnn.ops import backend_for

__all__ = ["environment"]


def environment(device: torch.device, command: str) -> dict[str, object]:
    """Machine, versions and settings; no names of users, hosts or folders."""
    found: dict[str, object] = {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device.type,
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "eisnn": eisnn.__version__,
        "eisnn_backend": backend_for(device),
    }
    if spikingjelly.unavailable() is None:
        found["spikingjelly"] = importlib.metadata.version("spikingjelly")
        found["spikingjelly_backend"] = spikingjelly.implementation(device)
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = torch.version.cuda
        found["cudnn"] = torch.backends.cudnn.version()
        found["cudnn_benchmark"] = torch.backends.cudnn.benchmark
        found["tf32"] = {
            "convolutions": torch.backends.cudnn.allow_tf32,
            "matrix products": torch.backends.cuda.matmul.allow_tf32,
        }
    return found


def _cpu() -> str:
    """As the processor calls itself."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
