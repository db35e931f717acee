"""The IDX format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist).

Two zero bytes, the type of the values (8: unsigned byte), the number of axes, the length of
each axis (4 bytes, big-endian), and the values in C order; often inside a gzip stream.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from eisnn.data.files import refuse

__all__ = ["read_idx"]

_CHUNK = 1 << 20
_MAX_AXES = 4


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, plain or gzipped.

    Memory in use stays in proportion to the bytes that are really there, whatever the header
    claims. Positions in errors are those of the unpacked bytes.

    Raises:
        ValueError: truncated, too long, damaged, or another format.
    """
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            return _read(raw, path)
        file = cast(BinaryIO, gzip.GzipFile(fileobj=raw))
        try:
            return _read(file, path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise refuse(path, file.tell(), f"the gzip stream is damaged ({error})") from None


def _read(file: BinaryIO, path: Path) -> NDArray[np.uint8]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= _MAX_AXES:
        raise refuse(
            path,
            0,
            f"an IDX file of unsigned bytes begins with 00 00 08 and 1 to {_MAX_AXES} axes, "
            f"got {magic.hex(' ') or 'an empty file'}",
        )
    axes = file.read(4 * magic[3])
    if len(axes) < 4 * magic[3]:
        raise refuse(path, 4 + len(axes), "the file ends within the header")
    shape = tuple(np.frombuffer(axes, ">u4").tolist())
    size, start = math.prod(shape), 4 + len(axes)

    values = bytearray()
    while len(values) < size and (chunk := file.read(min(_CHUNK, size - len(values)))):
        values += chunk
    if len(values) < size:
        raise refuse(
            path,
            start + len(values),
            f"the file ends here; its header announces {size} values of shape {list(shape)}",
        )
    if file.read(1):
        raise refuse(path, start + size, f"more bytes than the {size} values of {list(shape)}")
    return np.frombuffer(values, np.uint8).reshape(shape)
