"""Whatever is in a file: a reader reads it, or raises its own ValueError, in little memory."""

from __future__ import annotations

import gzip
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import original_formats as formats
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eisnn.data.cifar_files import read_cifar_binary, read_cifar_pickle, read_members
from eisnn.data.events import read_aedat2, read_aedat3, read_nmnist
from eisnn.data.framing import frames_by_count
from eisnn.data.idx import read_idx
from eisnn.data.pictures import Tree, decode_picture, tiny_imagenet_parts
from eisnn.data.sets.events import read_gesture_times

IMAGES = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3, 32, 32)
EVENTS = [(i, 33 - i, 1000 * i, i % 2) for i in range(34)]


def zip_archive(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t/train/n1/images/n1_0.JPEG", b"picture" * 9)
        archive.writestr("t/val/images/val_0.JPEG", b"picture" * 9)
        archive.writestr("t/val/val_annotations.txt", "val_0.JPEG\tn1\t0\t0\t9\t9\n")
    return path.read_bytes()


def png(path: Path) -> bytes:
    from PIL import Image

    Image.fromarray(IMAGES[0].transpose(1, 2, 0)).save(path, "png")
    return path.read_bytes()


def tar_archive(path: Path) -> bytes:
    formats.tar_gz(path, {"folder/a.bin": b"one" * 99, "folder/b.bin": b"two" * 99})
    return path.read_bytes()


def read_zip(path: Path) -> None:
    tree = Tree.of(path)
    for part in tiny_imagenet_parts(tree):
        list(tree.read([name for name, _ in part]))


READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], bytes]]] = {
    "idx": (read_idx, lambda _: formats.idx(IMAGES[0])),
    "idx.gz": (read_idx, lambda _: gzip.compress(formats.idx(IMAGES[0]))),
    "cifar.bin": (
        lambda p: read_cifar_binary(p.read_bytes(), p, label_bytes=1, num_classes=10),
        lambda _: formats.cifar_binary(IMAGES, [3, 9]),
    ),
    "cifar pickle": (
        lambda p: read_cifar_pickle(p.read_bytes(), p, label_key="labels", num_classes=10),
        lambda _: formats.cifar_pickle(IMAGES, [3, 9]),
    ),
    "cifar pickle of Python 2": (
        lambda p: read_cifar_pickle(p.read_bytes(), p, label_key="labels", num_classes=10),
        lambda _: formats.cifar_pickle_python2(IMAGES, [3, 9]),
    ),
    "tar.gz": (lambda p: read_members(p, ["a.bin", "b.bin"]), tar_archive),
    "zip": (read_zip, zip_archive),
    "png": (lambda p: decode_picture(p.read_bytes(), str(p), (16, 16), 3), png),
    "nmnist": (
        lambda p: frames_by_count(read_nmnist(p), 4, (34, 34)),
        lambda _: formats.nmnist(EVENTS),
    ),
    "aedat2": (
        lambda p: frames_by_count(read_aedat2(p), 4, (128, 128)),
        lambda _: formats.aedat2(EVENTS),
    ),
    "aedat3": (
        lambda p: frames_by_count(read_aedat3(p), 4, (128, 128)),
        lambda _: formats.aedat3(
            [formats.aedat3_packet(EVENTS), formats.aedat3_packet(EVENTS, 1, 0, 3)]
        ),
    ),
    "gesture labels": (
        read_gesture_times,
        lambda _: b"class,startTime_usec,endTime_usec\r\n1,80048239,85092709\r\n11,9,10\r\n",
    ),
}


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Some changed, lost and added bytes, mostly near the start, where headers are."""
    reach = draw(st.sampled_from([4, 40, 400, 10**6]))
    edits = draw(
        st.lists(
            st.tuples(
                st.integers(0, reach),
                st.sampled_from(["set", "set", "set", "cut", "insert", "truncate"]),
                st.one_of(
                    st.sampled_from([b"\0", b"\xff", b"\x7f\xff\xff\xff"]), st.binary(max_size=6)
                ),
            ),
            min_size=1,
            max_size=5,
        )
    )

    def apply(content: bytes) -> bytes:
        for position, kind, new in edits:
            at = position % (len(content) + 1)
            if kind == "truncate":
                content = content[:at]
            else:
                lost = 0 if kind == "insert" else len(new)
                content = content[:at] + (b"" if kind == "cut" else new) + content[at + lost :]
        return content

    return apply


def read_or_refuse(read: Callable[[Path], Any], path: Path) -> None:
    tracemalloc.start()
    message = str(path)
    try:
        read(path)
    except ValueError as error:
        message = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert message.startswith(str(path))
    assert peak < 8 << 20


@settings(max_examples=4 * settings().max_examples)
@given(damage=damage())
@pytest.mark.parametrize("name", READERS)
def test_damaged_files(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    read, write = READERS[name]
    path = tmp_path / "file"
    original = tmp_path / "original"
    if not original.exists():
        original.write_bytes(write(path))
    path.write_bytes(damage(original.read_bytes()))
    read_or_refuse(read, path)


@given(content=st.binary(max_size=300))
@pytest.mark.parametrize("name", READERS)
def test_arbitrary_files(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    read_or_refuse(READERS[name][0], path)
