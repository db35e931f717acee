"""Frames of events against a slow loop, and the corner cases.

Legend: N events, T time steps, H / W height and width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eisnn.data.events import Events
from eisnn.data.framing import frame_events, frames_by_count, frames_by_time

HEIGHT, WIDTH = 5, 7


def as_events(rows: list[tuple[int, int, int, int]]) -> Events:
    x, y, t, p = (
        (np.array(column, np.int64) for column in zip(*rows, strict=True))
        if rows
        else (np.empty(0, np.int64) for _ in range(4))
    )
    return Events(x.astype(np.uint8), y.astype(np.uint16), t, p.astype(np.uint8))


def recordings() -> st.SearchStrategy[list[tuple[int, int, int, int]]]:
    return st.lists(
        st.tuples(
            st.integers(0, WIDTH - 1),
            st.integers(0, HEIGHT - 1),
            st.integers(0, 2**40),
            st.integers(0, 1),
        ),
        max_size=60,
    )


@given(rows=recordings(), T=st.integers(1, 20))
def test_frames_of_equal_count(rows: list[Any], T: int) -> None:
    expected = np.zeros((T, 2, HEIGHT, WIDTH), np.int64)
    share = len(rows) // T
    for frame in range(T):
        end = (frame + 1) * share if frame < T - 1 else len(rows)
        for x, y, _, p in rows[frame * share : end]:
            expected[frame, p, y, x] += 1
    frames = frames_by_count(as_events(rows), T, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(frames, expected, strict=True)


@pytest.mark.parametrize(
    ("count", "T", "expected"),
    [
        (23, 4, [5, 5, 5, 8]),
        (20, 4, [5, 5, 5, 5]),
        (3, 4, [0, 0, 0, 3]),
        (4, 4, [1, 1, 1, 1]),
        (0, 3, [0, 0, 0]),
        (9, 1, [9]),
    ],
)
def test_the_remainder_goes_to_the_last_frame(count: int, T: int, expected: list[int]) -> None:
    frames = frames_by_count(as_events([(1, 1, i, 0) for i in range(count)]), T, (HEIGHT, WIDTH))
    assert frames.sum((1, 2, 3)).tolist() == expected


def test_events_are_cut_in_the_order_of_the_file() -> None:
    frames = frames_by_count(as_events([(0, 0, 9, 0), (1, 0, 3, 0)]), 2, (HEIGHT, WIDTH))
    assert frames[0, 0, 0, 0] == frames[1, 0, 0, 1] == 1


@pytest.mark.parametrize("count", [255, 256, 70_000])
def test_hot_pixels_are_counted_in_full(count: int) -> None:
    frames = frames_by_count(as_events([(6, 4, 0, 1)] * count), 1, (HEIGHT, WIDTH))
    assert frames[0, 1, 4, 6] == frames.sum() == count


@given(rows=recordings(), T=st.integers(1, 9), window=st.one_of(st.none(), st.integers(1, 2**38)))
def test_frames_of_equal_duration(rows: list[Any], T: int, window: int | None) -> None:
    expected = np.zeros((T, 2, HEIGHT, WIDTH), np.int64)
    start = min((t for _, _, t, _ in rows), default=0)
    span = max((t for _, _, t, _ in rows), default=0) - start + 1
    for x, y, t, p in rows:
        frame = (t - start) // window if window else (t - start) * T // span
        if frame < T:
            expected[frame, p, y, x] += 1
    frames = frames_by_time(as_events(rows), T, (HEIGHT, WIDTH), window)
    np.testing.assert_array_equal(frames, expected, strict=True)
    if window is None:
        assert frames.sum() == len(rows)


def test_a_window_has_its_end_excluded() -> None:
    events = as_events([(0, 0, t, 0) for t in (100, 109, 110, 119, 120, 129, 130)])
    frames = frames_by_time(events, 3, (HEIGHT, WIDTH), window_us=10)
    assert frames.sum((1, 2, 3)).tolist() == [2, 2, 2]


def test_between() -> None:
    events = as_events([(i, 0, 10 * i, 0) for i in range(5)])
    assert events.between(10, 30).x.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"T": 0}, "T, the number of frames, must be a positive whole number, got 0"),
        ({"T": 2.0}, "got 2.0"),
        ({"T": True}, "got True"),
        ({"framing": "events"}, "framing must be count or time, got 'events'"),
        ({"window_us": 5}, "window_us is for framing='time'"),
        ({"framing": "time", "window_us": 0}, "window_us must be 1 microsecond or more, got 0"),
    ],
)
def test_framings_that_do_not_exist(options: dict[str, Any], message: str) -> None:
    arguments = {"T": 2, "framing": "count", "window_us": None} | options
    with pytest.raises(ValueError, match=message):
        frame_events(as_events([]), size=(HEIGHT, WIDTH), **arguments)


@pytest.mark.parametrize(
    ("row", "message"),
    [((7, 0, 0, 0), "x of events"), ((0, 5, 0, 0), "y of events"), ((0, 0, 0, 2), "p of events")],
)
def test_events_outside_of_the_frame(row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frames_by_count(as_events([row]), 1, (HEIGHT, WIDTH))
