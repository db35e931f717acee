"""Files on disk: where a data set's are looked for, and how a damaged one is refused."""

from __future__ import annotations

import hashlib
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Place", "default_root", "digest", "refuse", "require"]


def default_root() -> Path:
    """The folder of all data sets: ``EISNN_DATA`` if it is set, else ``~/.cache/eisnn``."""
    return Path(os.environ.get("EISNN_DATA") or "~/.cache/eisnn").expanduser()


@dataclass(frozen=True)
class Place:
    """Where the files of one data set are looked for: in ``root/name``, then in ``root``."""

    name: str
    root: Path

    @property
    def folder(self) -> Path:
        """Where they belong, and where downloads go."""
        return self.root / self.name

    def find(self, *names: str) -> Path | None:
        """The first of ``names`` that is there, a file or a folder."""
        candidates = (folder / name for folder in (self.folder, self.root) for name in names)
        return next((path for path in candidates if path.exists()), None)

    def need(self, *names: str, source: str) -> Path:
        """The first of ``names`` that is there.

        Raises:
            FileNotFoundError: none is; the message says what to put where and that it can be
                had from ``source``.
        """
        path = self.find(*names)
        if path is None:
            raise FileNotFoundError(
                f"{self.name} needs {' or '.join(names)} in {self.folder}, and there is none. "
                f"{source}. Another folder is named by data.root=FOLDER (--data-root FOLDER of "
                "eisnn evaluate, root= in Python) or in the environment variable EISNN_DATA"
            )
        return path


def refuse(path: Path | str, position: int, reason: str) -> ValueError:
    """The error for a file that is not what it should be, from byte ``position`` on."""
    return ValueError(f"{path}: byte {position}: {reason}")


def digest(*arrays: NDArray[Any]) -> str:
    """SHA-256 of types, shapes and values, the same on every machine."""
    sha = hashlib.sha256()
    for array in arrays:
        little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        sha.update(f"{little_endian.dtype.str}{array.shape}".encode())
        sha.update(little_endian.data)
    return sha.hexdigest()


def require(module: str, package: str) -> ModuleType:
    """Import ``module``, or say how to install the ``package`` that brings it.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this data set needs {package}: pip install 'eisnn[train]' ({error})"
        ) from error
