"""From events to frames: how often each pixel fired with each polarity, in each of T steps.

Legend: N events, T time steps, H / W height and width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eisnn.data.events import Events

__all__ = ["FRAMINGS", "check_framing", "frame_events", "frames_by_count", "frames_by_time"]

FRAMINGS = ("count", "time")


def frames_by_count(events: Events, T: int, size: tuple[int, int]) -> NDArray[np.int64]:
    """Frames of equal event count, as in the published runs.

    Each frame has the next ``N // T`` events; the last one has the remainder of ``N mod T``,
    too. If there are fewer events than frames, this puts all of them into the last frame.

    Args:
        events: a recording, in the order in which to cut it; may be empty.
        T: number of frames.
        size: height and width in pixels.

    Returns:
        counts ``[T, 2, H, W]``; the polarity is the channel.

    Raises:
        ValueError: a ``T`` that is no positive number, or events outside of ``size``.
    """
    check_framing(T, "count", None)
    share = len(events) // T
    frame = np.full(len(events), T - 1)
    if share:
        np.minimum(np.arange(len(events)) // share, T - 1, out=frame)
    return _count(events, frame, T, size)


def frames_by_time(
    events: Events, T: int, size: tuple[int, int], window_us: int | None = None
) -> NDArray[np.int64]:
    """Frames of equal duration, from the first event on.

    Args:
        events: a recording; may be empty.
        T: number of frames.
        size: height and width in pixels.
        window_us: duration of a frame in microseconds. Later events are left out; what is
            missing in a shorter recording are empty frames. If ``None``, ``T`` frames cover the
            recording exactly.

    Returns:
        counts ``[T, 2, H, W]``; the polarity is the channel.

    Raises:
        ValueError: a ``T`` or ``window_us`` that is no positive number, or events outside of
            ``size``.
    """
    check_framing(T, "time", window_us)
    if not len(events):
        return _count(events, np.empty(0, np.int64), T, size)
    since = events.t - events.t.min()
    frame = since // window_us if window_us else since * T // (since.max() + 1)
    inside = frame < T
    kept = Events(events.x[inside], events.y[inside], events.t[inside], events.p[inside])
    return _count(kept, frame[inside], T, size)


def frame_events(
    events: Events, T: int, size: tuple[int, int], framing: str, window_us: int | None
) -> NDArray[np.int64]:
    """:func:`frames_by_count` or :func:`frames_by_time`, by name."""
    check_framing(T, framing, window_us)
    if framing == "time":
        return frames_by_time(events, T, size, window_us)
    return frames_by_count(events, T, size)


def check_framing(T: int, framing: str, window_us: int | None) -> None:
    """Whether these go together.

    Raises:
        ValueError: an unknown framing, a ``T`` or ``window_us`` that is no positive number, or a
            window for frames by count.
    """
    if framing not in FRAMINGS:
        raise ValueError(f"framing must be {' or '.join(FRAMINGS)}, got {framing!r}")
    if isinstance(T, bool) or not isinstance(T, int) or T < 1:
        raise ValueError(f"T, the number of frames, must be a positive whole number, got {T!r}")
    if window_us is not None and framing != "time":
        raise ValueError("window_us is for framing='time'; frames by count have no duration")
    if window_us is not None and window_us < 1:
        raise ValueError(f"window_us must be 1 microsecond or more, got {window_us}")


def _count(
    events: Events, frame: NDArray[np.int64], T: int, size: tuple[int, int]
) -> NDArray[np.int64]:
    """Counts [T, 2, H, W] of events that belong to the frames ``frame`` [N]."""
    height, width = size
    for values, bound, what in (
        (events.x, width, "x"),
        (events.y, height, "y"),
        (events.p, 2, "p"),
    ):
        if len(values) and not 0 <= values.min() <= values.max() < bound:
            raise ValueError(
                f"{what} of events in frames of {height}x{width} must be 0 to {bound - 1}, got "
                f"{values.min()} to {values.max()}"
            )
    cell = ((frame * 2 + events.p) * height + events.y) * width + events.x
    counts = np.bincount(cell, minlength=T * 2 * height * width)
    return counts.reshape(T, 2, height, width)
