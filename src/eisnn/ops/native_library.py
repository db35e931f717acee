"""C sources beside this file as libraries: compiled at first use where there is a compiler.

A library is kept in a cache folder of the user (``EISNN_CACHE``, else ``XDG_CACHE_HOME/eisnn``,
else ``~/.cache/eisnn``) under a name made of everything it depends on, so that it is compiled
once for a machine.
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

from torch import Tensor

__all__ = ["native_library", "pointer", "why_unavailable"]

_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")


class UnavailableError(RuntimeError):
    """There is no compiled library; the message says why."""


@functools.cache
def why_unavailable(source: str, *flags: str) -> str | None:
    """Why :func:`native_library` has no library of this source; ``None`` if it has."""
    try:
        native_library(source, *flags)
    except (UnavailableError, OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


@functools.cache
def native_library(source: str, *flags: str) -> ctypes.CDLL:
    """The library of a C source.

    Args:
        source: name of a file in this folder.
        flags: for the compiler, beside optimisation for this machine.

    Raises:
        UnavailableError, OSError, subprocess.SubprocessError: there is none.
    """
    path = Path(__file__).with_name(source)
    compiler = os.environ.get("CC") or next(
        filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None
    )
    if compiler is None or shutil.which(compiler) is None:
        raise UnavailableError("no C compiler was found (cc, gcc, clang, or what CC names)")
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60)
    key = hashlib.sha256()
    for part in (
        path.read_bytes(),
        version.stdout,
        _processor(),
        repr((_FLAGS, flags)).encode(),
    ):
        key.update(hashlib.sha256(part).digest())
    library = _cache() / f"{path.stem}-{key.hexdigest()[:20]}.so"
    if not library.exists():
        _compile(compiler, flags, path, library)
    return ctypes.CDLL(str(library))


def pointer(x: Tensor) -> ctypes.c_void_p:
    """Where the data of a tensor begin."""
    return ctypes.c_void_p(x.data_ptr())


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


def _compile(compiler: str, flags: tuple[str, ...], source: Path, library: Path) -> None:
    """With OpenMP if that works, without it otherwise; complete or not at all."""
    said = ""
    for openmp in (["-fopenmp"], []):
        handle, name = tempfile.mkstemp(suffix=".so", dir=library.parent)
        os.close(handle)
        command = [compiler, *_FLAGS, *flags, *openmp, str(source), "-o", name, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            os.replace(name, library)
            return
        os.unlink(name)
        said = done.stderr.strip()[-500:]
    raise UnavailableError(f"{compiler} does not compile {source.name} on {sys.platform}: {said}")
