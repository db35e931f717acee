"""The files of CIFAR-10 and CIFAR-100, binary and Python version, as folders or archives.

The binary version is a sequence of records: one label byte (CIFAR-100: the coarse label, then
the fine one) and 3,072 pixel bytes, channel after channel. The Python version is a pickle.
A pickle can run any code, so it is not loaded as such: only the few instructions are let
through that build dictionaries, lists, strings and numbers, and of an array nothing but its
bytes is taken.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html

Legend: n images, C = 3 channels, H = W = 32.
"""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eisnn.data.files import refuse

__all__ = ["read_cifar_binary", "read_cifar_pickle", "read_members"]

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_LIMIT = 256 << 20  # bytes; the largest of these files has 154 MB

Labelled = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_members(path: Path, names: Sequence[str]) -> list[bytes]:
    """The files ``names``, from a folder or from anywhere in a .tar.gz archive.

    Nothing is unpacked to disk.

    Raises:
        ValueError: one is missing or larger than 256 MiB, or the archive is damaged.
    """
    found: dict[str, bytes] = {}
    if path.is_dir():
        for name in names:
            if (path / name).is_file():
                found[name] = _bounded(path / name, (path / name).stat().st_size).read_bytes()
    else:
        try:
            with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    name = member.name.rpartition("/")[2]
                    if name in names and member.isfile():
                        _bounded(path / name, member.size)
                        file = archive.extractfile(member)
                        found[name] = file.read() if file else b""
                while stream.read(1 << 20):  # to the end, where gzip's checksum is
                    pass
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: the archive is damaged or none ({error})") from None
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{path}: there is no {', '.join(missing)} in it")
    return [found[name] for name in names]


def _bounded(path: Path, size: int) -> Path:
    if size > _LIMIT:
        raise refuse(path, _LIMIT, f"no CIFAR file is that large ({size} bytes)")
    return path


def read_cifar_binary(
    data: bytes, path: Path | str, *, label_bytes: int, num_classes: int
) -> Labelled:
    """One file of the binary version.

    Args:
        data: what is in the file.
        path: its name, for errors.
        label_bytes: how many label bytes a record has; the last one counts.
        num_classes: labels are below this.

    Returns:
        images ``[n, C, H, W]`` and labels ``[n]``.

    Raises:
        ValueError: a truncated file or one in another format.
    """
    record = label_bytes + _PIXELS
    if not data or len(data) % record:
        raise refuse(
            path,
            len(data),
            f"the file ends within a record: its size must be a multiple of {record} bytes",
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    labels = records[:, label_bytes - 1]
    if labels.max() >= num_classes:
        bad = int(np.argmax(labels >= num_classes))
        raise refuse(
            path,
            bad * record + label_bytes - 1,
            f"labels must be below {num_classes}, got {labels[bad]}: not a CIFAR file",
        )
    return records[:, label_bytes:].reshape(-1, *_SHAPE), labels.astype(np.int64)


def read_cifar_pickle(
    data: bytes, path: Path | str, *, label_key: str, num_classes: int
) -> Labelled:
    """One file of the Python version, of which nothing is executed.

    Args:
        data: what is in the file.
        path: its name, for errors.
        label_key: ``"labels"``, or ``"fine_labels"`` of CIFAR-100.
        num_classes: labels are below this.

    Returns:
        images ``[n, C, H, W]`` and labels ``[n]``.

    Raises:
        ValueError: a truncated file, a pickle of anything else, or one that wants to do more
            than to build dictionaries, lists, strings, numbers and arrays of bytes.
    """
    _inspect(data, path)
    try:
        content = _Builder(io.BytesIO(data), encoding="latin1").load()
        content = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
        pixels = content["data"].content()
        labels = np.array([int(label) for label in content[label_key]], np.int64)
    except Exception as error:  # a damaged pickle can raise anything
        raise refuse(
            path,
            0,
            f"a pickled dictionary with 'data' and {label_key!r} was expected "
            f"({type(error).__name__}: {error})",
        ) from None
    if not len(labels) or len(pixels) != len(labels) * _PIXELS:
        raise refuse(
            path, 0, f"{len(labels)} labels need {_PIXELS} pixels each, got {len(pixels)} pixels"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise refuse(path, 0, f"labels must be 0 to {num_classes - 1}: not this CIFAR")
    return np.frombuffer(pixels, np.uint8).reshape(-1, *_SHAPE), labels


_HARMLESS = """
    PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_DICT DICT SETITEM SETITEMS
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
"""


def _inspect(data: bytes, path: Path | str) -> None:
    """Read the pickle's instructions without following any."""
    allowed = set(_HARMLESS.split())
    position = 0
    try:
        for opcode, argument, at in pickletools.genops(data):
            position = at or 0
            if opcode.name not in allowed:
                raise refuse(path, position, f"pickle instruction {opcode.name} is not allowed")
            if "PUT" in opcode.name and int(argument or 0) > len(data):  # it sizes a table
                raise refuse(path, position, f"pickle memo {argument} is out of range")
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise refuse(path, position, f"not a complete pickle ({error})") from None
    if position + 1 != len(data):
        raise refuse(path, position + 1, "more bytes after the end of the pickle")


class _Array:
    """Stands in for a numpy array and keeps nothing but its bytes."""

    state: Any = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def content(self) -> bytes:
        """The bytes of an array of unsigned bytes in C order."""
        _, _, dtype, is_fortran, raw = self.state
        if dtype.name not in ("u1", "|u1") or is_fortran:
            raise ValueError("the pixels are not an array of unsigned bytes in C order")
        if isinstance(raw, str):
            return raw.encode("latin1")
        if isinstance(raw, bytes):
            return raw
        raise ValueError("the pixels are not bytes")


class _Dtype:
    """Stands in for a numpy dtype and keeps nothing but its name."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        pass


def _encode(text: str, encoding: str) -> bytes:
    """What Python 3 writes bytes as, in the pickles that Python 2 can read."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _encode,
}


class _Builder(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _STAND_INS[module, name]
