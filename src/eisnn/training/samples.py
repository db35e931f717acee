"""What the samples of each data set look like, known without the data, and how a file of one's
own becomes such a sample.

Legend: B batch (here 1), T time, C channels, H / W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eisnn.data import data_options, evaluation_transform
from eisnn.data.events import (
    DVS128_SIDE,
    NMNIST_SIDE,
    Events,
    read_aedat2,
    read_aedat3,
    read_nmnist,
)
from eisnn.data.pictures import decode_picture
from eisnn.data.sets.cifar import CIFAR10, CIFAR100
from eisnn.data.sets.common import DIGITS, image_arrays
from eisnn.data.sets.events import GESTURES, Framing, read_gesture_times
from eisnn.data.sets.mnist import FASHION_MNIST
from eisnn.training.recipe import DataConfig

__all__ = ["SampleFormat", "sample_format"]

_KNOWN: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "digits": (1, 8, DIGITS),
    "mnist": (1, 28, DIGITS),
    "fashion-mnist": (1, 28, FASHION_MNIST.classes),
    "cifar10": (3, 32, CIFAR10.classes),
    "cifar100": (3, 32, CIFAR100.classes),
    "tiny-imagenet": (3, 64, ()),
    "cifar10-dvs": (2, DVS128_SIDE, CIFAR10.classes),
    "dvs-gesture": (2, DVS128_SIDE, GESTURES),
    "nmnist": (2, NMNIST_SIDE, DIGITS),
}
"""Channels, side in pixels, and classes (none where they are read from the data)."""

EVENT_FILES = (".bin", ".aedat")


@dataclass(frozen=True)
class SampleFormat:
    """What a network trained on a data set takes.

    Attributes:
        channels: 3 for colour, 1 for grey, 2 for the polarities of events.
        size: height and width in pixels of the pictures, or of the camera.
        classes: a name for each label; empty if only the data tell.
        pad_to: side to which images are padded with zeros, if they are.
        framing: how recordings become frames; ``None`` for images.
        augmentation: whose evaluation transform is applied.
    """

    channels: int
    size: tuple[int, int]
    classes: tuple[str, ...]
    pad_to: int | None
    framing: Framing | None
    augmentation: str

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in which samples reach the network."""
        size = self.size if self.pad_to is None else (self.pad_to, self.pad_to)
        steps = () if self.framing is None else (1,)
        sample = torch.zeros(1, *steps, self.channels, *size)
        height, width = evaluation_transform(self.augmentation)(sample).shape[-2:]
        return height, width

    def read(self, path: Path) -> Iterator[tuple[str, Tensor]]:
        """The samples in a file: one, or each labelled gesture of a DVS-Gesture recording.

        Args:
            path: a picture (PNG, JPEG, ...), or a recording (``.bin`` of N-MNIST, ``.aedat``).

        Yields:
            a name, and the input as it reaches the network: float32, ``[1, C, H, W]`` in [0, 1]
            or ``[1, T, 2, H, W]`` counts.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a folder, a file of another kind, one that is damaged, or one without
                events.
        """
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name the files, e.g. {path}/*{self._suffix}")
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        is_recording = path.suffix.lower() in EVENT_FILES
        transform = evaluation_transform(self.augmentation)
        if self.framing is None:
            if is_recording:
                raise ValueError(
                    f"{path} is a recording of an event camera, and the network was trained on "
                    "images. Give pictures, such as .png or .jpg"
                )
            yield str(path), transform(self._picture(path))
            return
        if not is_recording:
            raise ValueError(
                f"{path} is not a recording of an event camera ({' or '.join(EVENT_FILES)}), "
                "which is what the network was trained on"
            )
        for name, events in _recordings(path, self.framing.side):
            if not len(events):
                raise ValueError(f"{name} holds no events")
            frames = torch.from_numpy(self.framing.frames(events)).float()
            yield name, transform(frames[None])

    @property
    def _suffix(self) -> str:
        """Of the files that it takes, or of some of them."""
        if self.framing is None:
            return ".png"
        return ".bin" if self.framing.side == NMNIST_SIDE else ".aedat"

    def _picture(self, path: Path) -> Tensor:
        """``[1, C, H, W]`` in [0, 1]."""
        picture = decode_picture(path.read_bytes(), str(path), self.size, self.channels)
        arrays = image_arrays(np.array(picture[None]), np.zeros(1, np.int64), 255, self.pad_to)
        return arrays.batch([0])[0]


def sample_format(data: DataConfig) -> SampleFormat:
    """The samples of a recipe's data set.

    Raises:
        ValueError: no such data set or option.
    """
    options = data_options(data.name)
    if unknown := set(data.options) - set(options):
        raise ValueError(
            f"{data.name} has no option {min(unknown)!r}. There are: {', '.join(options)}"
        )
    options |= data.options
    if data.name in _KNOWN:
        channels, side, classes = _KNOWN[data.name]
        size = (side, side)
    else:  # an image folder
        channels, classes = _whole(options["channels"]), ()
        sides = options["size"]
        size = (sides[0], sides[1]) if isinstance(sides, list | tuple) else (_whole(sides),) * 2
    framing, pad_to = None, options.get("pad_to")
    if "framing" in options:
        window = options["window_us"]
        framing = Framing(
            _whole(options["T"]),
            str(options["framing"]),
            None if window is None else _whole(window),
            size[0],
        )
    return SampleFormat(
        channels=channels,
        size=size,
        classes=classes,
        pad_to=None if pad_to is None else _whole(pad_to),
        framing=framing,
        augmentation=data.augmentation,
    )


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"an option of the data set must be a whole number, got {value!r}")
    return value


def _recordings(path: Path, side: int) -> Iterator[tuple[str, Events]]:
    """What was recorded, with a name for each part."""
    camera = NMNIST_SIDE if path.suffix.lower() == ".bin" else DVS128_SIDE
    if camera != side:
        raise ValueError(
            f"{path} is of a camera with {camera}x{camera} pixels, and the network was trained "
            f"on recordings of {side}x{side}"
        )
    if camera == NMNIST_SIDE:
        yield str(path), read_nmnist(path)
        return
    with path.open("rb") as file:
        third = file.read(10) == b"#!AER-DAT3"
    events = read_aedat3(path) if third else read_aedat2(path)
    table = path.with_name(f"{path.stem}_labels.csv")  # of DVS-Gesture: when each gesture is
    if not (third and table.is_file()):
        yield str(path), events
        return
    for _, start, end in read_gesture_times(table):
        yield f"{path} from {start / 1e6:.1f} s to {end / 1e6:.1f} s", events.between(start, end)
