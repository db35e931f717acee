"""Real recordings and images, in their original formats. Skipped where they are not at hand."""

from __future__ import annotations

import io
import lzma
import struct
from pathlib import Path

import numpy as np
import original_formats as formats
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from eisnn.data import load_data
from eisnn.data.events import read_nmnist

SHARED = Path(__file__).parents[3] / "shared" / "data"
DEBIAN = Path("/usr/share/datasets")  # apt-get install dataset-fashion-mnist

pytestmark = pytest.mark.filterwarnings("error")


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"{path} is not here")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "default"))


@needs(SHARED / "mnist")
def test_mnist_is_the_published_one() -> None:
    source = load_data("mnist", SHARED, pad_to=32)
    assert source.train.inputs.shape == (60_000, 1, 32, 32)
    assert source.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert source.train.inputs.double().mean() * 32**2 / 28**2 / 255 == pytest.approx(
        0.13066, abs=1e-5
    )


@needs(DEBIAN / "fashion-mnist")
def test_fashion_mnist_is_the_published_one() -> None:
    source = load_data("fashion-mnist", DEBIAN)
    assert source.train.inputs.shape == (60_000, 1, 28, 28)
    assert source.train.labels.bincount().tolist() == [6000] * 10
    assert source.train.inputs.double().mean() / 255 == pytest.approx(0.28604, abs=1e-5)


def nmnist_recordings(path: Path) -> list[tuple[bool, int, NDArray[np.int64]]]:
    """Whether for training, the label, and events [N, 4] as x, y, t, p."""
    raw = lzma.decompress(path.read_bytes())
    assert raw[:8] == b"NMNISTS1"
    n, m = struct.unpack_from("<II", raw, 8)
    labels = np.frombuffer(raw, "u1", n, 16)
    ids = np.frombuffer(raw, "<u4", n, 16 + n)
    counts = np.frombuffer(raw, "<u4", n, 16 + 5 * n)
    columns = np.frombuffer(raw, "u1", 4 * m, 16 + 9 * n).reshape(4, m).astype(np.int64)
    steps = columns[0] | columns[1] << 8
    ends = np.cumsum(counts.astype(np.int64))
    recordings = []
    for i in range(n):
        part = slice(int(ends[i]) - int(counts[i]), int(ends[i]))
        t = np.cumsum(steps[part])
        events = np.stack([columns[2, part], columns[3, part] & 127, t, columns[3, part] >> 7], 1)
        recordings.append((bool(ids[i] <= 60_000), int(labels[i]), events))
    return recordings


@needs(SHARED / "nmnist_small.bin.xz")
def test_nmnist_recordings(tmp_path: Path) -> None:
    recordings = nmnist_recordings(SHARED / "nmnist_small.bin.xz")
    for i, (train, label, events) in enumerate(recordings):
        path = tmp_path / "nmnist" / ("Train" if train else "Test") / str(label) / f"{i:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = np.empty((len(events), 5), np.uint8)
        x, y, t, p = events.T
        packed[:, 0], packed[:, 1] = x, y
        packed[:, 2], packed[:, 3], packed[:, 4] = p << 7 | t >> 16, t >> 8 & 255, t & 255
        path.write_bytes(packed.tobytes())
        if i % 100 == 0:
            assert packed.tobytes() == formats.nmnist(map(tuple, events.tolist()))
            read = read_nmnist(path)
            np.testing.assert_array_equal(np.stack([read.x, read.y, read.t, read.p], 1), events)

    source = load_data("nmnist", tmp_path, T=10)
    assert (len(source.train), len(source.test)) == (1000, 100)
    assert source.train.inputs.dtype == torch.uint8
    for part, arrays in ((True, source.train), (False, source.test)):
        by_label = sorted(
            (label, len(events)) for train, label, events in recordings if train is part
        )
        assert arrays.labels.tolist() == [label for label, _ in by_label]
        counts = arrays.inputs.long().sum((2, 3, 4))  # [n, T]
        assert sorted(zip(arrays.labels.tolist(), counts.sum(1).tolist(), strict=True)) == by_label
        assert (counts[:, :-1] == (counts.sum(1, keepdim=True) // 10)).all()
        assert (counts[:, -1] - counts[:, 0] == counts.sum(1) % 10).all()


def cifar_pictures(path: Path, count: int) -> tuple[NDArray[np.uint8], list[int]]:
    """The first training images [n, C, H, W] of the JPEG version, decoded."""
    data = path.read_bytes()
    assert data[:8] == b"C10JPEG1"
    n_train, n_test, header_length = struct.unpack_from("<III", data, 8)
    n = n_train + n_test
    lengths = np.frombuffer(data, "<u2", n, 20 + n).astype(np.int64)
    at = 20 + 3 * n
    header = data[at : at + header_length]
    ends = at + header_length + np.cumsum(lengths)
    images = []
    for end, length in zip(ends[:count].tolist(), lengths[:count].tolist(), strict=True):
        jpeg = header + data[end - length : end] + b"\xff\xd9"
        with Image.open(io.BytesIO(jpeg)) as picture:
            images.append(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    return np.stack(images), list(data[20 : 20 + count])


@needs(SHARED / "cifar10_jpeg.bin")
@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar10_pictures(tmp_path: Path, version: str) -> None:
    images, labels = cifar_pictures(SHARED / "cifar10_jpeg.bin", 600)
    folder = tmp_path / ("cifar-10-batches-bin" if version == "binary" else "cifar-10-batches-py")
    folder.mkdir()
    for number in range(6):
        part = slice(100 * number, 100 * (number + 1))
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        if version == "binary":
            content = formats.cifar_binary(images[part], labels[part])
            (folder / f"{name}.bin").write_bytes(content)
        else:
            content = formats.cifar_pickle_python2(images[part], labels[part])
            (folder / name).write_bytes(content)
    source = load_data("cifar10", tmp_path)
    np.testing.assert_array_equal(source.train.inputs.numpy(), images[:500])
    np.testing.assert_array_equal(source.test.inputs.numpy(), images[500:])
    assert source.train.labels.tolist() + source.test.labels.tolist() == labels
