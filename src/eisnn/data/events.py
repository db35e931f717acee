"""Recordings of event cameras: N-MNIST, AEDAT 2.0 (CIFAR10-DVS), AEDAT 3.1 (DVS-Gesture).

Each reader takes a whole file, refuses it if it is truncated or of another format, and uses
memory in proportion to its size. Events stay in the order of the file.

Legend: N events.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eisnn.data.files import refuse

__all__ = ["Events", "read_aedat2", "read_aedat3", "read_nmnist"]

NMNIST_SIDE = 34
DVS128_SIDE = 128


@dataclass(frozen=True)
class Events:
    """Events of a camera.

    Attributes:
        x, y: column and row, in pixels, ``[N]``.
        t: time in microseconds, ``[N]``, int64.
        p: polarity, 0 or 1, ``[N]``.
    """

    x: NDArray[np.integer[Any]]
    y: NDArray[np.integer[Any]]
    t: NDArray[np.int64]
    p: NDArray[np.integer[Any]]

    def __len__(self) -> int:
        return len(self.t)

    def between(self, start: int, end: int) -> Events:
        """The events with ``start <= t < end``, in microseconds."""
        inside = (self.t >= start) & (self.t < end)
        return Events(self.x[inside], self.y[inside], self.t[inside], self.p[inside])


def read_nmnist(path: Path) -> Events:
    """A recording of N-MNIST: 34x34 pixels.

    An event has 5 bytes: x, y, then the polarity in the highest of 24 bits and the time in the
    others, big-endian. ``y = 240`` marks no event but an overflow of the clock: all later times
    are 8,192 microseconds later.

    Source: Orchard et al. 2015, "Converting static image datasets to spiking neuromorphic
    datasets using saccades".

    Raises:
        ValueError: truncated, or a pixel outside the camera.
    """
    data = path.read_bytes()
    if len(data) % 5:
        raise refuse(
            path, len(data) // 5 * 5, f"the file ends within an event of 5 bytes ({len(data)})"
        )
    raw = np.frombuffer(data, np.uint8).reshape(-1, 5)
    x, y = raw[:, 0], raw[:, 1]
    overflow = y == 240
    _check_pixels(path, np.where(overflow, 0, x), np.where(overflow, 0, y), NMNIST_SIDE, 5)
    high, middle, low = raw[:, 2:].T.astype(np.int64)
    t = ((high & 0x7F) << 16 | middle << 8 | low) + 8192 * np.cumsum(overflow)
    keep = ~overflow
    return Events(x[keep], y[keep], t[keep], (raw[:, 2] >> 7)[keep])


def read_aedat2(path: Path) -> Events:
    """A recording of CIFAR10-DVS: AEDAT 2.0 of a DVS128, 128x128 pixels.

    Header lines that begin with ``#``, then pairs of big-endian 32-bit numbers, address and
    microseconds. The picture is turned upright, as the published runs did:
    ``x = 127 - (a >> 8 & 127)``, ``y = 127 - (a >> 1 & 127)``, ``p = 1 - (a & 1)``.

    Source: Li et al. 2017, "CIFAR10-DVS: an event-stream dataset for object classification".

    Raises:
        ValueError: truncated, or another format.
    """
    data = path.read_bytes()
    if not data.startswith(b"#!AER-DAT2"):
        raise refuse(path, 0, f"an AEDAT 2.0 file begins with '#!AER-DAT2.0', got {data[:12]!r}")
    start = 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start)
        if end < 0:
            raise refuse(path, len(data), "the file ends within the header")
        start = end + 1
    whole = (len(data) - start) // 8
    if start + 8 * whole != len(data):
        raise refuse(path, start + 8 * whole, "the file ends within an event of 8 bytes")
    address, t = np.frombuffer(data, ">u4", offset=start).reshape(-1, 2).T
    if (address > 0xFFFF).any():
        bad = int(np.argmax(address > 0xFFFF))
        raise refuse(
            path,
            start + 8 * bad,
            f"addresses of a DVS128 have 16 bits, got {int(address[bad]):#x}",
        )
    low = address.astype(np.uint16)
    return Events(
        x=127 - (low >> 8 & 127),
        y=127 - (low >> 1 & 127),
        t=t.astype(np.int64),
        p=(1 - (low & 1)).astype(np.uint8),
    )


_PACKET = struct.Struct("<HHIIIIII")
_POLARITY = 1  # the event type


def read_aedat3(path: Path) -> Events:
    r"""A recording of DVS-Gesture: AEDAT 3.1 of a DVS128, 128x128 pixels.

    The header ends with ``#!END-HEADER\r\n``. Then packets: a head of 28 bytes (type, source,
    size of an event, offset of its time, overflows of the clock, capacity, number of events,
    number of valid events) and the events. Polarity events have two 32-bit numbers, data and
    microseconds: ``x = a >> 17 & 0x7fff``, ``y = a >> 2 & 0x7fff``, ``p = a >> 1 & 1``,
    ``t = time | overflows << 31``. Packets of other types are skipped. Like the published
    runs, it takes every event, also one that is not marked as valid.

    Source: Amir et al. 2017, "A low power, fully event-based gesture recognition system".

    Raises:
        ValueError: truncated, or another format.
    """
    data = path.read_bytes()
    end_mark = b"#!END-HEADER\r\n"
    if not data.startswith(b"#!AER-DAT3"):
        raise refuse(path, 0, f"an AEDAT 3.1 file begins with '#!AER-DAT3.1', got {data[:12]!r}")
    at = data.find(end_mark)
    if at < 0:
        raise refuse(path, len(data), "the header does not end with '#!END-HEADER'")
    at += len(end_mark)

    packets = [np.empty((0, 2), "<u4")]  # [N, 2] each: data, time
    overflows = [0]
    positions = [at]
    while at < len(data):
        if at + _PACKET.size > len(data):
            raise refuse(path, at, "the file ends within a packet's head of 28 bytes")
        kind, _, size, _, overflow, capacity, number, _ = _PACKET.unpack_from(data, at)
        body = at + _PACKET.size
        if number > capacity:
            raise refuse(path, at, f"a packet for {capacity} events says that it has {number}")
        if body + size * capacity > len(data):
            raise refuse(
                path,
                at,
                f"a packet of {capacity} events of {size} bytes ends behind the end of the file, "
                f"at {len(data)}",
            )
        if kind == _POLARITY:
            if size != 8:
                raise refuse(path, at, f"polarity events have 8 bytes, got {size}")
            packets.append(np.frombuffer(data, "<u4", 2 * number, body).reshape(-1, 2))
            overflows.append(overflow)
            positions.append(body)
        at = body + size * capacity

    lengths = [len(packet) for packet in packets]
    address, time = np.concatenate(packets).T
    x = (address >> 17 & 0x7FFF).astype(np.uint16)
    y = (address >> 2 & 0x7FFF).astype(np.uint16)
    outside = (x >= DVS128_SIDE) | (y >= DVS128_SIDE)
    if outside.any():
        bad = int(np.argmax(outside))
        packet = int(np.searchsorted(np.cumsum(lengths), bad, side="right"))
        first = sum(lengths[:packet])
        raise refuse(
            path,
            positions[packet] + 8 * (bad - first),
            f"a DVS128 has 128x128 pixels, got an event at x = {x[bad]}, y = {y[bad]}",
        )
    high = np.repeat(np.array(overflows, np.int64) << 31, lengths)
    return Events(x, y, time.astype(np.int64) | high, (address >> 1 & 1).astype(np.uint8))


def _check_pixels(
    path: Path, x: NDArray[Any], y: NDArray[Any], side: int, event_bytes: int
) -> None:
    outside = (x >= side) | (y >= side)
    if outside.any():
        bad = int(np.argmax(outside))
        raise refuse(
            path,
            event_bytes * bad,
            f"the camera has {side}x{side} pixels, got an event at x = {x[bad]}, y = {y[bad]}",
        )
