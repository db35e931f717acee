"""Writers of the original file formats, one plain function each, for the tests to read back."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Event = tuple[int, int, int, int]
"""x, y, t in microseconds, polarity."""


def idx(array: NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 8, array.ndim])
    return header + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


def write_mnist(
    folder: Path, images: dict[str, NDArray[np.uint8]], labels: dict[str, Sequence[int]]
) -> None:
    """Gzipped training files and plain test files."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        contents = {
            f"{prefix}-images-idx3-ubyte": idx(images[part]),
            f"{prefix}-labels-idx1-ubyte": idx(np.array(labels[part], np.uint8)),
        }
        for name, content in contents.items():
            if part == "train":
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def cifar_binary(
    images: NDArray[np.uint8], labels: Sequence[int], coarse: Sequence[int] | None = None
) -> bytes:
    records = []
    for i, image in enumerate(images):
        head = [labels[i]] if coarse is None else [coarse[i], labels[i]]
        records.append(bytes(head) + image.tobytes())
    return b"".join(records)


def cifar_pickle(
    images: NDArray[np.uint8], labels: Sequence[int], key: str = "labels", protocol: int = 2
) -> bytes:
    """As Python 3 and today's numpy write it."""
    content = {key: list(labels), "data": images.reshape(len(images), -1), "batch_label": "batch"}
    return pickle.dumps(content, protocol=protocol)


def cifar_pickle_python2(
    images: NDArray[np.uint8], labels: Sequence[int], key: str = "labels"
) -> bytes:
    """As Python 2 and the numpy of its time wrote it: the published files are like this."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    raw = images.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85"
    array += text(b"b") + b"\x87R(" + integer(1)
    array += integer(len(images)) + integer(3072) + b"\x86"
    array += b"cnumpy\ndtype\n" + text(b"u1") + integer(0) + integer(1) + b"\x87R("
    array += integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    array += b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    items = text(b"batch_label") + text(b"batch 1 of 5")
    items += text(key.encode()) + b"](" + b"".join(integer(i) for i in labels) + b"e"
    items += text(b"data") + array
    return b"\x80\x02}q\x01(" + items + b"u."


def tar_gz(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def nmnist(events: Iterable[Event]) -> bytes:
    return b"".join(bytes([x, y]) + struct.pack(">I", p << 23 | t)[1:] for x, y, t, p in events)


AEDAT2_HEADER = (
    b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
    b"# created Thu Sep 25 15:36:11 2014\r\n"
)


def aedat2(events: Iterable[Event], header: bytes = AEDAT2_HEADER) -> bytes:
    """The inverse of the published way to turn the picture upright."""
    pairs = [(127 - x) << 8 | (127 - y) << 1 | (1 - p) for x, y, _, p in events]
    times = [t for _, _, t, _ in events]
    return header + b"".join(struct.pack(">II", a, t) for a, t in zip(pairs, times, strict=True))


AEDAT3_HEADER = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n"
    b"#Start-Time: 2015-10-13 15:36:11 (TZ+0000)\r\n#!END-HEADER\r\n"
)


def aedat3_packet(
    events: Sequence[Event], overflow: int = 0, kind: int = 1, spare: int = 0
) -> bytes:
    """One packet with room for ``spare`` more events. Times are without the overflow."""
    n = len(events)
    head = struct.pack("<HHIIIIII", kind, 1, 8, 4, overflow, n + spare, n, n)
    body = b"".join(struct.pack("<II", x << 17 | y << 2 | p << 1 | 1, t) for x, y, t, p in events)
    return head + body + bytes(8 * spare)


def aedat3(packets: Iterable[bytes]) -> bytes:
    return AEDAT3_HEADER + b"".join(packets)
