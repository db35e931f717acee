"""The readers give back what was written in the original formats, and refuse anything else."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import original_formats as formats
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eisnn.data.cifar_files import read_cifar_binary, read_cifar_pickle, read_members
from eisnn.data.events import read_aedat2, read_aedat3, read_nmnist
from eisnn.data.idx import read_idx


def events(side: int, time_bits: int) -> st.SearchStrategy[list[formats.Event]]:
    pixel = st.integers(0, side - 1)
    event = st.tuples(pixel, pixel, st.integers(0, 2**time_bits - 1), st.integers(0, 1))
    return st.lists(event, max_size=30)


def as_tuples(read: Any) -> list[formats.Event]:
    return list(zip(*(column.tolist() for column in (read.x, read.y, read.t, read.p)), strict=True))


# IDX


@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    packed=st.booleans(),
    seed=st.integers(0, 100),
)
def test_idx_is_read_back(tmp_path: Path, shape: list[int], packed: bool, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    content = formats.idx(array)
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content) if packed else content)
    np.testing.assert_array_equal(read_idx(path), array, strict=True)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_that_ends_too_early_or_too_late(tmp_path: Path, packed: bool) -> None:
    whole = formats.idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    path = tmp_path / "images"
    for content in [whole[:i] for i in range(len(whole))] + [whole + b"\0"]:
        path.write_bytes(gzip.compress(content) if packed else content)
        position = 0 if len(content) < 4 else min(len(content), len(whole))
        with pytest.raises(ValueError, match=rf"images: byte {position}: "):
            read_idx(path)


def test_truncated_gzip(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    whole = gzip.compress(formats.idx(np.arange(200, dtype=np.uint8).reshape(2, 10, 10)))
    for length in range(2, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"images\.gz: byte \d+: .*damaged"):
            read_idx(path)


def test_idx_header_that_claims_too_much(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(b"\0\0\x08\x03" + b"\xff" * 12 + bytes(1000))
    tracemalloc.start()
    with pytest.raises(ValueError, match="byte 1016: the file ends here"):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_gzip_that_unpacks_to_more_than_announced(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(formats.idx(np.zeros(10, np.uint8)) + bytes(50 << 20)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="more bytes than the 10 values"):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


# CIFAR


def cifar_batch(seed: int, n: int, num_classes: int = 10) -> tuple[Any, list[int]]:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (n, 3, 32, 32), np.uint8)
    return images, draw.integers(0, num_classes, n).tolist()


@given(seed=st.integers(0, 1000), n=st.integers(1, 5), fine=st.booleans())
def test_cifar_binary_is_read_back(seed: int, n: int, fine: bool) -> None:
    images, labels = cifar_batch(seed, n, 100 if fine else 10)
    content = formats.cifar_binary(images, labels, [19] * n if fine else None)
    read = read_cifar_binary(
        content, "batch", label_bytes=1 + fine, num_classes=100 if fine else 10
    )
    np.testing.assert_array_equal(read[0], images, strict=True)
    assert read[1].tolist() == labels


@given(
    seed=st.integers(0, 1000), n=st.integers(1, 5), key=st.sampled_from(["labels", "fine_labels"])
)
@pytest.mark.parametrize("protocol", ["python 2", 2, 3, 4])
def test_cifar_pickle_is_read_back(seed: int, n: int, key: str, protocol: Any) -> None:
    images, labels = cifar_batch(seed, n)
    if protocol == "python 2":
        content = formats.cifar_pickle_python2(images, labels, key)
        published_way = pickle.loads(content, encoding="latin1")  # the test's own file
        np.testing.assert_array_equal(published_way["data"], images.reshape(n, -1))
    else:
        content = formats.cifar_pickle(images, labels, key, protocol)
    read = read_cifar_pickle(content, "batch", label_key=key, num_classes=10)
    np.testing.assert_array_equal(read[0], images, strict=True)
    assert read[1].tolist() == labels


def test_cifar_binary_refusals() -> None:
    images, labels = cifar_batch(0, 2)
    whole = formats.cifar_binary(images, labels)
    for length in (0, 1, 3072, 3074, len(whole) - 1):
        with pytest.raises(ValueError, match=rf"batch: byte {length}: .*multiple of 3073"):
            read_cifar_binary(whole[:length], "batch", label_bytes=1, num_classes=10)
    with pytest.raises(ValueError, match="batch: byte 3073: labels must be below 10, got 77"):
        read_cifar_binary(
            whole[:3073] + b"\x4d" + whole[3074:], "batch", label_bytes=1, num_classes=10
        )


class Runs:
    """A pickle of this runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_cifar_pickle_runs_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "executed"
    for protocol in range(6):
        content = pickle.dumps({"data": Runs(victim), "labels": [1]}, protocol=protocol)
        with pytest.raises(ValueError, match=r"batch: byte \d+: .*not allowed"):
            read_cifar_pickle(content, "batch", label_key="labels", num_classes=10)
    assert not victim.exists()


@pytest.mark.parametrize(
    "content",
    {
        "a table of 2**31 entries": b"\x80\x02}r\xff\xff\xff\x7f.",
        "a string of 4 GB": b"\x80\x04}\x8d\xff\xff\xff\xff\0\0\0\0abc.",
        "a byte array of 4 GB": b"\x80\x05\x96\xff\xff\xff\xff\0\0\0\0abc.",
        "bytes(10**12)": b"\x80\x02}(U\x04dataccnumpy\ndtype\n.",
        "a list": pickle.dumps([1, 2, 3]),
        "no labels": formats.cifar_pickle(*cifar_batch(0, 1), key="other"),
        "a label of 10": formats.cifar_pickle(cifar_batch(0, 1)[0], [10]),
        "too few pixels": formats.cifar_pickle(cifar_batch(0, 1)[0], [1, 2]),
        "numbers that are no bytes": pickle.dumps(
            {"labels": [1], "data": np.zeros((1, 3072), np.float32)}, protocol=2
        ),
        "bytes in Fortran order": pickle.dumps(
            {"labels": [1, 1], "data": np.asfortranarray(np.zeros((2, 3072), np.uint8))},
            protocol=2,
        ),
        "an array of objects": pickle.dumps(
            {"labels": [1], "data": np.array([None] * 3072)}, protocol=2
        ),
        "pixels that are a number": pickle.dumps({"labels": [1], "data": 3}, protocol=2),
        "two pickles": formats.cifar_pickle(*cifar_batch(0, 1)) + b"N.",
    }.items(),
    ids=lambda item: item[0],
)
def test_cifar_pickle_refusals(content: tuple[str, bytes]) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"^batch: byte \d+: "):
        read_cifar_pickle(content[1], "batch", label_key="labels", num_classes=10)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_members_of_folders_and_archives(tmp_path: Path) -> None:
    files = {"a.bin": b"one", "b.bin": b"two"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    archive = tmp_path / "files.tar.gz"
    formats.tar_gz(archive, {f"folder/{name}": content for name, content in files.items()})
    assert read_members(tmp_path, ["b.bin", "a.bin"]) == [b"two", b"one"]
    assert read_members(archive, ["b.bin", "a.bin"]) == [b"two", b"one"]
    for path in (tmp_path, archive):
        with pytest.raises(ValueError, match=r"there is no c\.bin in it"):
            read_members(path, ["a.bin", "c.bin"])
    whole = archive.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 9):
        archive.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"files\.tar\.gz: "):
            read_members(archive, ["a.bin", "b.bin"])


# N-MNIST


@given(events(34, 23))
def test_nmnist_is_read_back(tmp_path: Path, written: list[formats.Event]) -> None:
    path = tmp_path / "00001.bin"
    path.write_bytes(formats.nmnist(written))
    assert as_tuples(read_nmnist(path)) == written


def test_nmnist_clock_overflow(tmp_path: Path) -> None:
    path = tmp_path / "00001.bin"
    path.write_bytes(formats.nmnist([(1, 2, 5, 0), (0, 240, 0, 0), (3, 4, 6, 1), (0, 240, 0, 0)]))
    assert as_tuples(read_nmnist(path)) == [(1, 2, 5, 0), (3, 4, 8192 + 6, 1)]


def test_nmnist_refusals(tmp_path: Path) -> None:
    path = tmp_path / "00001.bin"
    whole = formats.nmnist([(1, 2, 3, 1), (33, 33, 7, 0)])
    for length in (1, 4, 6, 9):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"00001\.bin: byte {length // 5 * 5}: .*ends within"):
            read_nmnist(path)
    path.write_bytes(whole + bytes([34, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match=r"00001\.bin: byte 10: .*34x34 pixels, .* x = 34, y = 0"):
        read_nmnist(path)


# AEDAT 2.0


@given(events(128, 32))
def test_aedat2_is_read_back(tmp_path: Path, written: list[formats.Event]) -> None:
    path = tmp_path / "cifar10_cat_0.aedat"
    path.write_bytes(formats.aedat2(written))
    assert as_tuples(read_aedat2(path)) == written


def test_aedat2_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "cat.aedat"
    path.write_bytes(b"#!AER-DAT2.0\r\n" + struct.pack(">II", 3 << 8 | 5 << 1 | 1, 77))
    assert as_tuples(read_aedat2(path)) == [(124, 122, 77, 0)]


def test_aedat2_refusals(tmp_path: Path) -> None:
    path = tmp_path / "cat.aedat"
    header = len(formats.AEDAT2_HEADER)
    whole = formats.aedat2([(1, 2, 3, 1), (127, 127, 7, 0)])
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length >= header and (length - header) % 8 == 0:
            assert len(read_aedat2(path)) == (length - header) // 8
            continue
        if whole[:length].endswith(b"\n") and length < header:  # a header with fewer lines
            assert len(read_aedat2(path)) == 0
            continue
        with pytest.raises(ValueError, match=r"cat\.aedat: byte \d+: ") as error:
            read_aedat2(path)
        if length > header:
            assert f"byte {header + (length - header) // 8 * 8}: " in str(error.value)
    path.write_bytes(formats.AEDAT3_HEADER)
    with pytest.raises(ValueError, match=r"byte 0: an AEDAT 2\.0 file begins with"):
        read_aedat2(path)
    path.write_bytes(whole + struct.pack(">II", 1 << 31, 0))
    with pytest.raises(ValueError, match=f"byte {len(whole)}: .*16 bits, got 0x80000000"):
        read_aedat2(path)


# AEDAT 3.1


@given(
    packets=st.lists(
        st.tuples(
            events(128, 31), st.integers(0, 3), st.sampled_from([1, 1, 0, 2]), st.integers(0, 2)
        ),
        max_size=5,
    )
)
def test_aedat3_is_read_back(tmp_path: Path, packets: list[Any]) -> None:
    path = tmp_path / "user01_led.aedat"
    path.write_bytes(formats.aedat3(formats.aedat3_packet(*packet) for packet in packets))
    expected = [
        (x, y, t + overflow * 2**31, p)
        for events_, overflow, kind, _ in packets
        if kind == 1
        for x, y, t, p in events_
    ]
    assert as_tuples(read_aedat3(path)) == expected


def test_aedat3_refusals(tmp_path: Path) -> None:
    path = tmp_path / "user01_led.aedat"
    first = formats.aedat3([formats.aedat3_packet([(1, 2, 3, 1)])])
    whole = first + formats.aedat3_packet([(4, 5, 6, 0), (127, 127, 9, 1)])
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length in (len(formats.AEDAT3_HEADER), len(first)):
            read_aedat3(path)
            continue
        with pytest.raises(ValueError, match=r"user01_led\.aedat: byte \d+: ") as error:
            read_aedat3(path)
        if length > len(first):
            assert f"byte {len(first)}: " in str(error.value)
    for foreign, reason in (
        (formats.aedat2([]), "byte 0: an AEDAT 3.1 file begins with"),
        (whole + struct.pack("<HHIIIIII", 1, 0, 8, 4, 0, 1, 2, 2) + bytes(8), "for 1 events"),
        (whole + struct.pack("<HHIIIIII", 1, 0, 9, 4, 0, 1, 1, 1) + bytes(9), "8 bytes, got 9"),
        (
            whole + formats.aedat3_packet([(1, 1, 1, 1), (128, 3, 0, 0)]),
            f"byte {len(whole) + 36}: a DVS128 has 128x128 pixels",
        ),
        (whole + struct.pack("<HHIIIIII", 1, 0, 8, 4, 0, 2**32 - 1, 1, 1), "ends behind the end"),
    ):
        path.write_bytes(foreign)
        with pytest.raises(ValueError, match=reason):
            read_aedat3(path)
