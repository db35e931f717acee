"""Pictures in JPEG, PNG and other formats that Pillow reads, in folders or a .zip archive.

Legend: C channels, H / W height and width.
"""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eisnn.data.files import refuse, require

__all__ = [
    "SUFFIXES",
    "Tree",
    "bare_folders",
    "class_folders",
    "decode_picture",
    "decode_pictures",
    "tiny_imagenet_parts",
]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Of the files that count as pictures, in small or capital letters."""

_LIMIT = 256 << 20  # bytes of one picture

Listing = list[tuple[str, str]]
"""Names of files, each with its class."""


@dataclass(frozen=True)
class Tree:
    """The files below a folder or in a .zip archive.

    Attributes:
        path: of the folder or archive.
        names: of the files, relative to it with ``/`` between the parts, sorted. Hidden ones
            are left out.
        folders: in the same way, with those that hold nothing.
    """

    path: Path
    names: tuple[str, ...]
    folders: tuple[str, ...]

    @staticmethod
    def of(path: Path) -> Tree:
        """List what is there.

        Raises:
            ValueError: neither a folder nor a .zip archive.
        """
        if path.is_dir():
            names, folders = [], []
            for top, below, files in os.walk(path, followlinks=True):
                start = Path(top).relative_to(path)
                names += [(start / file).as_posix() for file in files]
                folders += [(start / folder).as_posix() for folder in below]
        else:
            try:
                with zipfile.ZipFile(path) as archive:
                    names = [info.filename for info in archive.infolist() if not info.is_dir()]
                    folders = [i.filename.rstrip("/") for i in archive.infolist() if i.is_dir()]
            except Exception as error:  # a damaged archive can raise anything
                raise refuse(path, 0, f"neither a folder nor a .zip archive ({error})") from None
        folders += [name.rpartition("/")[0] for name in names]  # a .zip need not list them
        return Tree(path, _visible(names), _visible(folders))

    @property
    def sources(self) -> list[Path]:
        """The files that all this comes from."""
        return [self.path / name for name in self.names] if self.path.is_dir() else [self.path]

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """What is in the files ``names``, one after the other.

        Raises:
            ValueError: the archive is damaged.
        """
        if self.path.is_dir():
            for name in names:
                yield (self.path / name).read_bytes()
            return
        with zipfile.ZipFile(self.path) as archive:
            for name in names:
                info = archive.getinfo(name)
                if info.file_size > _LIMIT:
                    raise refuse(self.path, info.header_offset, f"{name} in it is too large")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    reason = f"{name} in it is compressed in a way other than deflation"
                    raise refuse(self.path, info.header_offset, reason)
                try:
                    with archive.open(info) as file:
                        data = file.read(info.file_size)  # no more, whatever it unpacks to
                except Exception as error:  # a damaged archive can raise anything
                    reason = f"{name} in it is damaged ({error})"
                    raise refuse(self.path, info.header_offset, reason) from None
                yield data


def _visible(names: Iterable[str]) -> tuple[str, ...]:
    """``names`` without those of hidden files and of what macOS adds to archives, sorted."""
    hidden = (".", "__MACOSX")
    return tuple(
        sorted({n for n in names if not any(part.startswith(hidden) for part in n.split("/"))})
    )


def class_folders(tree: Tree, part: str = "") -> Listing:
    """The pictures of ``part/CLASS/...``, or of ``CLASS/...``, with their classes."""
    prefix = f"{part}/" if part else ""
    listing = []
    for name in tree.names:
        if name.startswith(prefix) and name.lower().endswith(SUFFIXES):
            label, separator, _ = name.removeprefix(prefix).partition("/")
            if separator:
                listing.append((name, label))
    return listing


def bare_folders(tree: Tree, part: str = "") -> list[str]:
    """The folders ``part/CLASS``, or ``CLASS``, that hold no pictures."""
    prefix = f"{part}/" if part else ""
    found = {f.removeprefix(prefix).partition("/")[0] for f in tree.folders if f.startswith(prefix)}
    return sorted(found - {label for _, label in class_folders(tree, part)} - {""})


def tiny_imagenet_parts(tree: Tree) -> tuple[Listing, Listing]:
    """The labelled pictures of Tiny-ImageNet for training, and those it calls ``val``.

    ``train/CLASS/images/*.JPEG``, and ``val/images/*.JPEG`` with their classes in the first
    two columns of ``val/val_annotations.txt``. (The pictures in ``test`` have no labels.)

    Source: Stanford CS231n, http://cs231n.stanford.edu/tiny-imagenet-200.zip

    Raises:
        ValueError: another layout, or a picture without a class.
    """
    annotations = [name for name in tree.names if name.endswith("val/val_annotations.txt")]
    if len(annotations) != 1:
        raise ValueError(f"{tree.path}: Tiny-ImageNet has one val/val_annotations.txt; it has none")
    top = annotations[0].removesuffix("val/val_annotations.txt")
    labels = {}
    (text,) = tree.read(annotations)
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        columns = line.split("\t")
        if len(columns) < 2:
            raise ValueError(
                f"{tree.path}/{annotations[0]}: line {number} must have a file and a class "
                f"with a tab between them, got {line!r}"
            )
        labels[f"{top}val/images/{columns[0]}"] = columns[1]
    test = [name for name in tree.names if name.startswith(f"{top}val/images/")]
    if unknown := [name for name in test if name not in labels]:
        raise ValueError(f"{tree.path}/{annotations[0]}: there is no class for {unknown[0]}")
    return class_folders(tree, f"{top}train"), [(name, labels[name]) for name in test]


def decode_pictures(
    tree: Tree, names: Sequence[str], size: tuple[int, int], channels: int
) -> Iterator[NDArray[np.uint8]]:
    """:func:`decode_picture` of one file after the other."""
    for name, data in zip(names, tree.read(names), strict=True):
        yield decode_picture(data, f"{tree.path}/{name}", size, channels)


def decode_picture(
    data: bytes, name: str, size: tuple[int, int], channels: int
) -> NDArray[np.uint8]:
    """One picture, upright, in the size asked for.

    It is scaled until it covers ``size`` (each pixel an average of those it replaces), and
    what sticks out on two sides is cut off. Transparency counts as black.

    Args:
        data: what is in the file.
        name: of the file, for errors.
        size: height and width in pixels.
        channels: 3 for colour, 1 for grey.

    Returns:
        ``[C, H, W]``.

    Raises:
        ValueError: not a picture, damaged, or more than about 180 million pixels.
    """
    image_module = require("PIL.Image", "pillow")
    operations = require("PIL.ImageOps", "pillow")
    height, width = size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata; what matters is an error
            picture = operations.exif_transpose(image_module.open(io.BytesIO(data)))
            picture = _eight_bits(picture, image_module)
            if "A" in picture.mode or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                black = image_module.new("RGBA", picture.size, (0, 0, 0, 255))
                picture = image_module.alpha_composite(black, picture)
            picture = picture.convert("RGB" if channels == 3 else "L")
            if picture.size != (width, height):
                picture = operations.fit(picture, (width, height), image_module.Resampling.BILINEAR)
    except image_module.UnidentifiedImageError:  # its message is about an object of ours
        reason = "in no format that Pillow knows" if data else "the file is empty"
        raise ValueError(f"{name}: not a picture that can be read ({reason})") from None
    except Exception as error:  # what a damaged picture raises depends on its format
        raise ValueError(f"{name}: not a picture that can be read ({error})") from None
    pixels = np.asarray(picture, np.uint8)
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))


def _eight_bits(picture: Any, image_module: Any) -> Any:
    """16-bit grey levels to 8 bits, which Pillow would cut off at 255 instead of scaling."""
    if not picture.mode.startswith("I"):
        return picture
    levels = np.clip(np.asarray(picture).astype(np.int64) >> 8, 0, 255)
    return image_module.fromarray(levels.astype(np.uint8))
