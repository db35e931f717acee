"""The fused operation on the CPU in C: compiled at first use where there is a compiler.

The source is ``native.c`` beside this file. The library is kept in a cache folder of the user
(``EISNN_CACHE``, else ``XDG_CACHE_HOME/eisnn``, else ``~/.cache/eisnn``) under a name made of
everything it depends on, so that it is compiled once for a machine.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from eisnn.ops.neuron import Neuron

__all__ = ["backward", "forward", "unavailable"]

_SOURCE = Path(__file__).with_name("native.c")
_SURROGATES = {"Sigmoid": 0, "ArcTan": 1, "LeakyReLU": 2}
_FLAGS = (
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
)


class _Circuit(ctypes.Structure):
    """``circuit`` of native.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "T", "B", "P", "E", "I")),
        ("decay", ctypes.c_float),
        ("threshold", ctypes.c_float),
        ("surrogate", ctypes.c_int64),
        ("width", ctypes.c_float),
        ("threads", ctypes.c_int64),
    ]


class UnavailableError(RuntimeError):
    """There is no compiled library; the message says why."""


@functools.cache
def unavailable() -> str | None:
    """Why this backend cannot run here; ``None`` if it can."""
    try:
        _library()
    except (UnavailableError, OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


@functools.cache
def _library() -> ctypes.CDLL:
    compiler = os.environ.get("CC") or next(
        filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None
    )
    if compiler is None or shutil.which(compiler) is None:
        raise UnavailableError("no C compiler was found (cc, gcc, clang, or what CC names)")
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60)
    key = hashlib.sha256()
    for part in (_SOURCE.read_bytes(), version.stdout, _processor(), repr(_FLAGS).encode()):
        key.update(hashlib.sha256(part).digest())
    library = _cache() / f"native-{key.hexdigest()[:20]}.so"
    if not library.exists():
        _compile(compiler, library)
    loaded = ctypes.CDLL(str(library))
    loaded.eisnn_forward.restype = None
    loaded.eisnn_backward.restype = ctypes.c_int
    return loaded


def _processor() -> bytes:
    """What ``-march=native`` depends on."""
    try:
        for line in Path("/proc/cpuinfo").read_bytes().splitlines():
            if line.startswith((b"flags", b"Features")):
                return line
    except OSError:
        pass
    return repr((platform.machine(), platform.processor())).encode()


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("EISNN_CACHE") or Path(home) / "eisnn")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and folder.stat().st_uid != os.getuid():
        raise UnavailableError(f"{folder} belongs to somebody else: nothing is loaded from it")
    return folder


def _compile(compiler: str, library: Path) -> None:
    """With OpenMP if that works, without it otherwise; complete or not at all."""
    said = ""
    for openmp in (["-fopenmp"], []):
        handle, name = tempfile.mkstemp(suffix=".so", dir=library.parent)
        os.close(handle)
        command = [compiler, *_FLAGS, *openmp, str(_SOURCE), "-o", name, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            os.replace(name, library)
            return
        os.unlink(name)
        said = done.stderr.strip()[-500:]
    raise UnavailableError(f"{compiler} does not compile {_SOURCE.name} on {sys.platform}: {said}")


def _circuit(i_div: Tensor, channels: int, neuron: Neuron) -> _Circuit:
    steps, batch, positions, n_e = i_div.shape
    return _Circuit(
        steps,
        neuron.T,
        batch,
        positions,
        n_e,
        channels - n_e,
        neuron.decay,
        neuron.v_threshold,
        _SURROGATES[neuron.surrogate],
        neuron.width,
        torch.get_num_threads(),
    )


def _pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    assert all(x.is_contiguous() and x.dtype == torch.float32 for x in tensors)
    return [ctypes.c_void_p(x.data_ptr()) for x in tensors]


def forward(
    currents: Tensor, i_div: Tensor, gain_e: Tensor, bias: Tensor, neuron: Neuron
) -> tuple[Tensor, Tensor]:
    """As :func:`eisnn.ops.torch_backend.forward`, in float32."""
    wide = currents.float()
    spikes = wide.new_empty(neuron.T, *i_div.shape[1:])
    smallest = wide.new_empty(i_div.shape[:2])
    circuit = _circuit(i_div, currents.shape[-1], neuron)
    _library().eisnn_forward(
        ctypes.byref(circuit), *_pointers(wide, i_div, gain_e, bias, spikes, smallest)
    )
    return spikes.to(currents.dtype), smallest


def backward(
    grad: Tensor,
    currents: Tensor,
    i_div: Tensor,
    gain_e: Tensor,
    bias: Tensor,
    smallest: Tensor,
    neuron: Neuron,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As :func:`eisnn.ops.torch_backend.backward`, in float32."""
    grad, wide = grad.float(), currents.float()
    d_currents, d_div = torch.empty_like(wide), torch.empty_like(i_div)
    circuit = _circuit(i_div, currents.shape[-1], neuron)
    d_gain = gain_e.new_zeros(circuit.threads, len(gain_e))
    d_bias = torch.zeros_like(d_gain)
    failed = _library().eisnn_backward(
        ctypes.byref(circuit),
        *_pointers(grad, wide, i_div, gain_e, bias, smallest),
        *_pointers(d_currents, d_div, d_gain, d_bias),
    )
    if failed:
        raise MemoryError("no memory for the membrane potentials of one block of neurons")
    return d_currents.to(currents.dtype), d_div, d_gain.sum(0), d_bias.sum(0)
