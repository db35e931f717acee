"""Recordings of event cameras: CIFAR10-DVS, DVS-Gesture and N-MNIST, as frames of counts.

Legend: T time steps, H / W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eisnn.data.cache import Part, prepared
from eisnn.data.events import (
    DVS128_SIDE,
    NMNIST_SIDE,
    Events,
    read_aedat2,
    read_aedat3,
    read_nmnist,
)
from eisnn.data.files import Place
from eisnn.data.framing import check_framing, frame_events
from eisnn.data.sets.cifar import CIFAR10
from eisnn.data.sets.common import DIGITS
from eisnn.data.source import DataSource, Provenance
from eisnn.data.splits import last_in_name_order, stratified

__all__ = ["cifar10_dvs", "dvs_gesture", "nmnist"]


@dataclass(frozen=True)
class Framing:
    """How recordings become frames; see :mod:`eisnn.data.framing`."""

    T: int
    framing: str
    window_us: int | None
    side: int

    def __post_init__(self) -> None:
        check_framing(self.T, self.framing, self.window_us)

    def frames(self, events: Events) -> NDArray[np.int64]:
        """Counts ``[T, 2, H, W]``."""
        size = (self.side, self.side)
        return frame_events(events, self.T, size, self.framing, self.window_us)

    @property
    def parameters(self) -> Provenance:
        parameters: Provenance = {"T": self.T, "framing": self.framing}
        return parameters if self.window_us is None else parameters | {"window_us": self.window_us}


def cifar10_dvs(
    root: Path,
    *,
    T: int = 10,
    framing: str = "count",
    window_us: int | None = None,
    split: str = "published",
    seed: int = 0,
    cache: Path | str | None = None,
) -> DataSource:
    """CIFAR10-DVS: 10 classes of 1,000 recordings, 128x128 pixels, two polarities.

    There is no official split. ``"published"`` is the one of the published runs: the last 100
    files of each class in lexicographic order are the test set. ``"random"`` takes a tenth of
    each class.

    Args:
        root: a folder of ``.aedat`` files for each class is looked for in its folder
            ``cifar10-dvs``, then in itself.
        T: frames per recording.
        framing: ``"count"``, of equal event count, or ``"time"``, of equal duration.
        window_us: duration of a frame by time; by default a ``T``-th of the recording.
        split: ``"published"`` or ``"random"``.
        seed: of the random split.
        cache: as in :func:`eisnn.data.cache.prepared`.
    """
    how = Framing(T, framing, window_us, DVS128_SIDE)
    place = Place("cifar10-dvs", root)
    source = (
        "It can be had at https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671: unpack "
        "each class's archive there"
    )
    files = {}
    for name in CIFAR10.classes:
        folder = place.need(name, source=source)
        files[name] = {path.name: path for path in folder.glob("*.aedat")}
        if not files[name]:
            raise FileNotFoundError(f"cifar10-dvs: there are no .aedat files in {folder}. {source}")

    parameters = how.parameters | {"split": split}
    if split == "published":
        parts = last_in_name_order([list(members) for members in files.values()])
    elif split == "random":
        parts = _random_split([sorted(members) for members in files.values()], 0.1, seed)
        parameters |= {"split_seed": seed}
    else:
        raise ValueError(f"split must be 'published' or 'random', got {split!r}")
    train, test = (
        [
            (files[CIFAR10.classes[label]][name], label)
            for label, names in enumerate(part)
            for name in names
        ]
        for part in parts
    )
    return _recordings(
        "cifar10-dvs", train, test, read_aedat2, how, CIFAR10.classes, split, parameters, cache
    )


def nmnist(
    root: Path,
    *,
    T: int = 10,
    framing: str = "count",
    window_us: int | None = None,
    cache: Path | str | None = None,
) -> DataSource:
    """N-MNIST: MNIST seen by an event camera, 34x34 pixels, two polarities; official split.

    Args:
        root: folders ``Train`` and ``Test``, with a folder of ``.bin`` files for each digit, are
            looked for in its folder ``nmnist``, then in itself.
        T, framing, window_us, cache: as in :func:`cifar10_dvs`.
    """
    how = Framing(T, framing, window_us, NMNIST_SIDE)
    place = Place("nmnist", root)
    source = (
        "It can be had at https://www.garrickorchard.com/datasets/n-mnist: unpack its archives "
        "there"
    )
    train, test = (
        [
            (path, label)
            for label, digit in enumerate(DIGITS)
            for path in sorted((place.need(part, source=source) / digit).glob("*.bin"))
        ]
        for part in ("Train", "Test")
    )
    return _recordings(
        "nmnist", train, test, read_nmnist, how, DIGITS, "official", how.parameters, cache
    )


GESTURES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter-clockwise",
    "left arm clockwise",
    "left arm counter-clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)


def dvs_gesture(
    root: Path,
    *,
    T: int = 16,
    framing: str = "count",
    window_us: int | None = None,
    cache: Path | str | None = None,
) -> DataSource:
    """DVS-Gesture: 11 gestures, 128x128 pixels, two polarities; official split.

    Each recording shows all gestures of one person; it is cut at the times in the table of
    labels beside it, ``start <= t < end``.

    Args:
        root: ``trials_to_train.txt``, ``trials_to_test.txt`` and the files that they list are
            looked for in its folder ``dvs-gesture`` or ``DvsGesture``, then in itself.
        T, framing, window_us, cache: as in :func:`cifar10_dvs`.
    """
    how = Framing(T, framing, window_us, DVS128_SIDE)
    place = Place("dvs-gesture", root)
    source = (
        "It can be had at https://research.ibm.com/interactive/dvsgesture: unpack "
        "DvsGesture.tar.gz there"
    )
    parts, sources = {}, []
    for part in ("train", "test"):
        names = (f"trials_to_{part}.txt", f"DvsGesture/trials_to_{part}.txt")
        trials = place.need(*names, source=source)
        cuts = [(path, read_gesture_times(_table(path))) for path in _listed(trials)]
        labels = [label for _, times in cuts for label, _, _ in times]
        parts[part] = Part(labels, _gestures(cuts, how))
        sources += [trials, *(file for path, _ in cuts for file in (path, _table(path)))]
    arrays, provenance = prepared(
        "dvs-gesture", parts, scale=1, parameters=how.parameters, sources=sources, cache=cache
    )
    return DataSource(
        "dvs-gesture", arrays["train"], arrays["test"], GESTURES, "official", provenance
    )


def read_gesture_times(path: Path) -> list[tuple[int, int, int]]:
    """The gestures of one recording: label from 0, start and end in microseconds.

    Args:
        path: a table ``class,startTime_usec,endTime_usec`` with classes 1 to 11.

    Raises:
        ValueError: another format, or a value out of its range.
    """
    lines = path.read_text("utf-8", "replace").split("\n")
    if lines[0].strip() != "class,startTime_usec,endTime_usec":
        raise ValueError(
            f"{path}: line 1 must be 'class,startTime_usec,endTime_usec', got {lines[0][:60]!r}"
        )
    times = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        columns = line.strip().split(",")
        whole = all(column.isascii() and column.isdigit() for column in columns)
        if len(columns) != 3 or not whole or max(map(len, columns)) > 18:
            raise ValueError(
                f"{path}: line {number} must be three whole numbers, got {line[:60]!r}"
            )
        label, start, end = map(int, columns)
        if not 1 <= label <= len(GESTURES) or start >= end:
            raise ValueError(
                f"{path}: line {number} must have a class from 1 to {len(GESTURES)} and a start "
                f"before its end, got {line.strip()!r}"
            )
        times.append((label - 1, start, end))
    return times


def _table(recording: Path) -> Path:
    """The table of labels that belongs to a recording."""
    return recording.with_name(f"{recording.stem}_labels.csv")


def _listed(trials: Path) -> list[Path]:
    """The recordings in a list of trials, all of which must be there with their labels."""
    names = [line.strip() for line in trials.read_text("utf-8", "replace").splitlines()]
    paths = [trials.with_name(Path(name).name) for name in names if name]
    for path in (file for recording in paths for file in (recording, _table(recording))):
        if not path.is_file():
            raise FileNotFoundError(f"dvs-gesture needs {path}, which {trials} asks for")
    return paths


def _gestures(
    cuts: Sequence[tuple[Path, list[tuple[int, int, int]]]], how: Framing
) -> Iterator[NDArray[np.int64]]:
    for path, times in cuts:
        events = read_aedat3(path)
        for _, start, end in times:
            yield how.frames(events.between(start, end))


def _random_split(
    names: Sequence[Sequence[str]], fraction: float, seed: int
) -> tuple[list[list[str]], list[list[str]]]:
    """A share of each class's names goes to the second part."""
    labels = [label for label, members in enumerate(names) for _ in members]
    flat = [name for members in names for name in members]
    first, second = (
        [[flat[i] for i in part if labels[i] == label] for label in range(len(names))]
        for part in (
            indices.tolist() for indices in stratified(torch.tensor(labels), fraction, seed)
        )
    )
    return first, second


def _recordings(
    name: str,
    train: Sequence[tuple[Path, int]],
    test: Sequence[tuple[Path, int]],
    read: Callable[[Path], Events],
    how: Framing,
    classes: tuple[str, ...],
    split: str,
    parameters: Provenance,
    cache: Path | str | None,
) -> DataSource:
    """Framed recordings of one sample each, from the cache if they are there."""
    if not train or not test:
        raise FileNotFoundError(f"{name}: there are no recordings in one of its folders")

    def samples(files: Sequence[tuple[Path, int]]) -> Iterator[NDArray[Any]]:
        return (how.frames(read(path)) for path, _ in files)

    parts = {
        part: Part([label for _, label in files], samples(files))
        for part, files in (("train", train), ("test", test))
    }
    sources = [path for path, _ in (*train, *test)]
    arrays, provenance = prepared(
        name, parts, scale=1, parameters=parameters, sources=sources, cache=cache
    )
    return DataSource(name, arrays["train"], arrays["test"], classes, split, provenance)
