"""What this machine has, and which backends run on it and why: ``eisnn doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import torch

import eisnn
from eisnn import ops

__all__ = ["describe", "examine"]

_LIBRARIES = ("torch", "numpy", "triton", "lightning", "safetensors", "matplotlib", "tensorboard")


def examine() -> dict[str, Any]:
    """Versions, devices, and for each device the chosen backend and why not the others.

    Returns:
        ``versions`` by library (``None``: not installed), ``threads``, ``forced`` (the backend
        that ``EISNN_BACKEND`` asks for, or ``None``), and ``devices``: for each its ``name``,
        ``bfloat16`` (whether the hardware computes with it), ``backend`` (or ``None`` with the
        ``problem``), and ``unavailable``, reasons by backend. A CPU also has ``winograd``: why
        gradients of 3x3 convolutions do not come from Winograd's algorithm, ``None`` if they do.
    """
    cpu = _device(torch.device("cpu"), _processor(), _cpu_bfloat16())
    compiled = cpu["backend"] == "native"
    cpu["winograd"] = ops.winograd_unavailable() if compiled else "the backend is not native"
    devices = [cpu]
    for i in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(i)
        bfloat16 = torch.cuda.get_device_capability(i) >= (8, 0)
        devices.append(_device(torch.device("cuda", i), name, bfloat16))
    versions = {"eisnn": eisnn.__version__, "python": platform.python_version()}
    return {
        "versions": versions | {library: _version(library) for library in _LIBRARIES},
        "threads": torch.get_num_threads(),
        "forced": os.environ.get("EISNN_BACKEND") or None,
        "devices": devices,
    }


def _device(device: torch.device, name: str, bfloat16: bool) -> dict[str, Any]:
    backend, problem = None, None
    try:
        backend = ops.backend_for(device)
    except (RuntimeError, ValueError) as error:
        problem = str(error)
    reasons = {name: ops.unavailable(name, device) for name in ops.BACKENDS}
    return {
        "device": str(device),
        "name": name,
        "bfloat16": bfloat16,
        "backend": backend,
        "problem": problem,
        "unavailable": {name: reason for name, reason in reasons.items() if reason},
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cpu_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def describe(found: dict[str, Any]) -> str:
    """The result of :func:`examine` for people."""
    lines = [
        "  ".join(f"{name} {version or '-'}" for name, version in found["versions"].items()),
        f"threads: {found['threads']}",
    ]
    for device in found["devices"]:
        lines += ["", f"{device['device']}: {device['name']}"]
        lines.append(f"  backend: {device['backend'] or device['problem']}")
        if found["forced"]:
            lines.append(f"    asked for by EISNN_BACKEND={found['forced']}")
        lines += [f"    not {name}: {why}" for name, why in device["unavailable"].items()]
        if "winograd" in device:
            why = device["winograd"]
            whose = f"PyTorch's, as {why}" if why else "Winograd's algorithm"
            lines.append(f"  gradients of 3x3 convolutions: {whose}")
        if device["bfloat16"]:
            lines.append("  bfloat16: yes; try training.precision=bfloat16")
        else:
            lines.append("  bfloat16: not in hardware, many times slower than float32; leave it")
    return "\n".join(lines)
