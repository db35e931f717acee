"""Every data set, from files that the tests write in its original format.

Legend: n samples, T time, C channels, H / W height and width.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import original_formats as formats
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from eisnn.data import Arrays, DataSource, data_options, list_data_sets, load_data
from eisnn.data.files import Place, default_root, digest, require
from eisnn.data.pictures import decode_picture
from eisnn.data.sets.cifar import CIFAR10, CIFAR100
from eisnn.data.sets.events import read_gesture_times

unpublished = pytest.warns(UserWarning, match="not what was published under that name")


@pytest.fixture(autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default root, so that no test touches the user's own."""
    folder = tmp_path_factory.mktemp("default") / "root"
    monkeypatch.setenv("EISNN_DATA", str(folder))
    return folder


def pixels(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# The registry


def test_names() -> None:
    assert list_data_sets() == [
        "digits",
        "mnist",
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "tiny-imagenet",
        "image-folder",
        "cifar10-dvs",
        "dvs-gesture",
        "nmnist",
    ]
    assert data_options("nmnist") == {"T": 10, "framing": "count", "window_us": None, "cache": None}
    assert data_options("cifar10") == {"download": True, "url": None}


def test_unknown_names_and_options() -> None:
    with pytest.raises(ValueError, match=r"no data set 'cifar-10'. Did you mean 'cifar10'\? There"):
        load_data("cifar-10")
    with pytest.raises(ValueError, match=r"no option of mnist 'padto'. Did you mean 'pad_to'\?"):
        load_data("mnist", padto=32)
    with pytest.raises(ValueError, match="no option of mnist 'T'"):
        load_data("mnist", T=4)


@pytest.mark.parametrize("name", sorted(set(list_data_sets()) - {"digits"}))
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    options = {"download": False} if "download" in data_options(name) else {}
    (tmp_path / "empty").mkdir()
    with pytest.raises((FileNotFoundError, ValueError), match=f"{tmp_path}.*root|class folders"):
        load_data(name, tmp_path / "empty", **options)


@pytest.mark.parametrize("name", sorted(set(list_data_sets()) - {"digits"}))
def test_a_mistyped_root_is_refused_and_not_made(name: str, tmp_path: Path) -> None:
    options = {"url": "http://127.0.0.1:1"} if "url" in data_options(name) else {}
    with pytest.raises(FileNotFoundError, match=r"no folder .*/typo: data\.root=FOLDER .* exists"):
        load_data(name, tmp_path / "typo", **options)
    assert not list(tmp_path.iterdir())


def test_digits_take_no_root(tmp_path: Path, data_folder: Path) -> None:
    with pytest.raises(
        ValueError, match=r"takes no data\.root .* data\.name=image-folder data\.ro"
    ):
        load_data("digits", tmp_path)
    data_folder.mkdir()
    assert load_data("digits", data_folder).num_classes == 10  # what is there without one


def test_the_default_root(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> None:
    assert default_root() == data_folder
    with pytest.raises(FileNotFoundError, match=f"in {data_folder}/nmnist, and there is none"):
        load_data("nmnist")
    monkeypatch.delenv("EISNN_DATA")
    monkeypatch.setenv("HOME", "/somewhere")
    assert default_root() == Path("/somewhere/.cache/eisnn")


def test_the_core_does_not_import_data_sets() -> None:
    code = "import eisnn, sys; assert 'eisnn.data' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_libraries() -> None:
    with pytest.raises(ImportError, match=r"needs a-library: pip install 'eisnn\[train\]'"):
        require("no_such_module", "a-library")
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "try: import eisnn.data\n"
        "except ImportError as e: assert 'eisnn[train]' in str(e)\n"
        "else: raise SystemExit('imported without numpy')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What a data set is


def test_batches() -> None:
    inputs = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
    arrays = Arrays(inputs, torch.tensor([0, 1, 2, 3]), 255)
    for indices in ([2, 0], torch.tensor([2, 0]), torch.tensor([2, 0], dtype=torch.int32)):
        x, y = arrays.batch(indices, "cpu")
        assert x.dtype == torch.float32
        assert torch.equal(x, inputs[[2, 0]] / 255)
        assert y.tolist() == [2, 0]
    part = arrays.subset([3, 1])
    assert len(part) == 2
    assert torch.equal(part.inputs, inputs[[3, 1]])
    assert arrays.to("cpu").labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_counts_are_not_scaled(dtype: torch.dtype) -> None:
    counts = torch.tensor([0, 1, 77, 120]).to(dtype).view(1, 1, 1, 2, 2)
    x, _ = Arrays(counts, torch.tensor([0]), 1).batch([0])
    assert x.flatten().tolist() == [0, 1, 77, 120]


@pytest.mark.parametrize(
    ("inputs", "labels", "scale", "message"),
    [
        (torch.zeros(2, 1, 2, 2), torch.zeros(2).long(), 1, "inputs must be uint8, int16 or int32"),
        (torch.zeros(2, 2, 2).byte(), torch.zeros(2).long(), 1, "inputs must be"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.zeros(3).long(), 1, r"int64 of shape \[2\]"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.zeros(2), 1, "labels must be int64"),
        (torch.zeros(2, 1, 2, 2).byte(), torch.zeros(2).long(), 0, "scale is the stored value"),
    ],
)
def test_arrays_that_do_not_fit(inputs: Any, labels: Any, scale: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arrays(inputs, labels, scale)


def test_sources_that_do_not_fit() -> None:
    def arrays(n: int, side: int, label: int) -> Arrays:
        inputs = torch.zeros(n, 1, side, side, dtype=torch.uint8)
        return Arrays(inputs, torch.full((n,), label), 255)

    for train, test, message in (
        (arrays(2, 4, 0), arrays(2, 5, 0), "must have one shape"),
        (arrays(2, 4, 0), arrays(0, 4, 0), "the test set has no samples"),
        (arrays(2, 4, 2), arrays(2, 4, 0), "labels must be 0 to 1, .* got 2 to 2 in the training"),
    ):
        with pytest.raises(ValueError, match=message):
            DataSource("mine", train, test, ("a", "b"), "official", {})


# Images


def test_digits() -> None:
    source = load_data("digits")
    assert (len(source.train), len(source.test)) == (1438, 359)
    assert (source.num_classes, source.in_channels, source.image_size) == (10, 1, (8, 8))
    assert not source.is_events
    assert source.split == "random"
    x, _ = source.train.batch(range(len(source.train)))
    assert (x.min(), x.max()) == (0, 1)
    other = load_data("digits", seed=1, test_fraction=0.5)
    assert len(other.test) != len(source.test)
    assert source.provenance["sha256"] == other.provenance["sha256"]
    assert other.provenance["split_seed"] == 1


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("inside", ["", "own"])
def test_mnist(tmp_path: Path, name: str, inside: str) -> None:
    images = {"train": pixels(0, 20, 28, 28), "test": pixels(1, 10, 28, 28)}
    labels = {"train": [i % 10 for i in range(20)], "test": list(range(10))}
    formats.write_mnist(tmp_path / (name if inside == "own" else ""), images, labels)
    with unpublished:
        source = load_data(name, tmp_path)
    for part, arrays in (("train", source.train), ("test", source.test)):
        np.testing.assert_array_equal(arrays.inputs[:, 0].numpy(), images[part])
        assert arrays.labels.tolist() == labels[part]
        content = digest(images[part], np.array(labels[part], np.uint8))
        assert source.provenance[f"{part}_sha256"] == content
    assert source.split == "official"
    with unpublished:
        padded = load_data(name, tmp_path, pad_to=33)
    assert padded.image_size == (33, 33)
    np.testing.assert_array_equal(padded.train.inputs[:, 0, 2:30, 2:30].numpy(), images["train"])
    assert padded.train.inputs.long().sum() == images["train"].sum()
    assert padded.provenance["pad_to"] == 33
    with unpublished, pytest.raises(ValueError, match="pad_to must be 28 or more, got 27"):
        load_data(name, tmp_path, pad_to=27)


def test_mnist_with_too_few_labels(tmp_path: Path) -> None:
    images = {"train": pixels(0, 20, 28, 28), "test": pixels(1, 10, 28, 28)}
    formats.write_mnist(tmp_path, images, {"train": [1] * 19, "test": [1] * 10})
    with pytest.raises(ValueError, match=r"train files must hold .* got \[20, 28, 28\] and \[19\]"):
        load_data("mnist", tmp_path)


@pytest.mark.parametrize("data_set", [CIFAR10, CIFAR100], ids=lambda d: d.name)
@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("packed", [False, True])
def test_cifar(tmp_path: Path, data_set: Any, version: str, packed: bool) -> None:
    where = getattr(data_set, version)
    fine = data_set is CIFAR100
    images, labels = [], []
    contents = {}
    for number, name in enumerate((*where.train, *where.test)):
        batch = pixels(number, 4, 3, 32, 32)
        classes = [(7 * number + i) % len(data_set.classes) for i in range(4)]
        images.append(batch)
        labels += classes
        if version == "binary":
            contents[name] = formats.cifar_binary(batch, classes, [19] * 4 if fine else None)
        else:
            contents[name] = formats.cifar_pickle_python2(batch, classes, data_set.label_key)
    if packed:
        archive = tmp_path / data_set.name / where.archive
        archive.parent.mkdir()
        formats.tar_gz(archive, {f"{where.folder}/{name}": c for name, c in contents.items()})
        with unpublished:
            source = load_data(data_set.name, tmp_path)
    else:
        (tmp_path / where.folder).mkdir()
        for name, content in contents.items():
            (tmp_path / where.folder / name).write_bytes(content)
        source = load_data(data_set.name, tmp_path)
    read = torch.cat([source.train.inputs, source.test.inputs])
    np.testing.assert_array_equal(read.numpy(), np.concatenate(images))
    assert torch.cat([source.train.labels, source.test.labels]).tolist() == labels
    assert len(source.test) == 4
    assert source.num_classes == len(set(source.classes)) == (100 if fine else 10)


def encoded(image: NDArray[np.uint8], kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def tiny_imagenet_files() -> tuple[dict[str, bytes], dict[str, list[NDArray[np.uint8]]]]:
    files, expected = {}, {"train": [], "test": []}
    for number, label in enumerate(("n02", "n01")):
        for i in range(3):
            image = pixels(10 * number + i, 64, 64, 3)
            files[f"train/{label}/images/{label}_{i}.JPEG"] = encoded(image)
            expected["train"].append(image)
        files[f"train/{label}/{label}_boxes.txt"] = b"n02_0.JPEG\t0\t0\t9\t9\n"
    expected["train"] = expected["train"][3:] + expected["train"][:3]  # in the order of classes
    annotations = ""
    for i, label in enumerate(("n02", "n01", "n02")):
        image = pixels(50 + i, 64, 64, 3) if i else pixels(50, 64, 64)  # some are grey
        files[f"val/images/val_{i}.JPEG"] = encoded(image)
        annotations += f"val_{i}.JPEG\t{label}\t0\t32\t44\t62\n"
        expected["test"].append(image if i else np.repeat(image[..., None], 3, 2))
    files["val/val_annotations.txt"] = annotations.encode()
    files["test/images/test_0.JPEG"] = encoded(pixels(99, 64, 64, 3))
    files["wnids.txt"] = b"n02\nn01\n"
    return files, expected


def write_all(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("packed", [False, True])
def test_tiny_imagenet(tmp_path: Path, packed: bool) -> None:
    files, expected = tiny_imagenet_files()
    if packed:
        with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(f"tiny-imagenet-200/{name}", content)
    else:
        write_all(tmp_path / "tiny-imagenet" / "tiny-imagenet-200", files)
    source = load_data("tiny-imagenet", tmp_path)
    for part, arrays in (("train", source.train), ("test", source.test)):
        images = np.stack(expected[part]).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(arrays.inputs.numpy(), images)
    assert source.classes == ("n01", "n02")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.test.labels.tolist() == [1, 0, 1]
    assert source.image_size == (64, 64)
    assert source.split == "official"
    again = load_data("tiny-imagenet", tmp_path)
    assert again.provenance == source.provenance


def test_tiny_imagenet_without_annotations(tmp_path: Path) -> None:
    files, _ = tiny_imagenet_files()
    folder = tmp_path / "tiny-imagenet-200"
    write_all(folder, files | {"val/val_annotations.txt": b"val_0.JPEG\tn02\n"})
    with pytest.raises(ValueError, match=r"there is no class for val/images/val_1\.JPEG"):
        load_data("tiny-imagenet", tmp_path)
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG n02\n")
    with pytest.raises(ValueError, match="line 1 must have a file and a class with a tab"):
        load_data("tiny-imagenet", tmp_path)
    (folder / "val" / "val_annotations.txt").unlink()
    with pytest.raises(ValueError, match=r"has one val/val_annotations\.txt"):
        load_data("tiny-imagenet", tmp_path)


def test_image_folder_with_test_folder(tmp_path: Path) -> None:
    images = [pixels(i, 20, 30, 3) for i in range(6)]
    files = {f"train/cat/{i}.png": encoded(images[i]) for i in (0, 1)}
    files |= {"train/a dog/deeper/2.PNG": encoded(images[2]), "train/a dog/.DS_Store": b"?"}
    files |= {"train/a dog/notes.txt": b"?", "test/cat/3.bmp": encoded(images[3], "bmp")}
    write_all(tmp_path, files)
    source = load_data("image-folder", tmp_path, size=(20, 30))
    assert source.classes == ("a dog", "cat")
    assert source.split == source.provenance["split"] == "folders"
    assert source.train.labels.tolist() == [0, 1, 1]
    assert source.test.labels.tolist() == [1]
    expected = np.stack([images[2], images[0], images[1]]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(source.train.inputs.numpy(), expected)
    write_all(tmp_path, {"test/bird/4.png": encoded(images[4])})
    with pytest.raises(ValueError, match="class 'bird' has pictures in test/, but not in train/"):
        load_data("image-folder", tmp_path)


@pytest.mark.parametrize("top", ["", "train/"])
def test_image_folder_with_a_random_split(tmp_path: Path, top: str) -> None:
    for label in ("cat", "dog"):
        write_all(
            tmp_path,
            {f"{top}{label}/{i}.png": encoded(pixels(i, 9, 9)) for i in range(10)},
        )
    source = load_data("image-folder", tmp_path, size=9, channels=1, test_fraction=0.3)
    assert source.split == "random"
    assert source.train.labels.bincount().tolist() == [7, 7]
    assert source.test.labels.bincount().tolist() == [3, 3]
    assert source.train.inputs.shape == (14, 1, 9, 9)
    same = load_data("image-folder", tmp_path, size=9, channels=1, test_fraction=0.3)
    other = load_data("image-folder", tmp_path, size=9, channels=1, test_fraction=0.3, seed=1)
    assert torch.equal(same.test.inputs, source.test.inputs)
    assert not torch.equal(other.test.inputs, source.test.inputs)
    assert other.provenance["split_seed"] == 1


def pictures(*folders: str, count: int = 3) -> dict[str, bytes]:
    """Files with ``count`` pictures in each folder."""
    return {f"{f}/{i}.png": encoded(pixels(i, 9, 9)) for f in folders for i in range(count)}


def test_val_is_the_test_set_where_there_is_no_other(tmp_path: Path) -> None:
    write_all(
        tmp_path, pictures("train/cat", "train/dog") | pictures("val/cat", "val/dog", count=2)
    )
    source = load_data("image-folder", tmp_path, size=9)
    assert (len(source.train), len(source.test), source.split) == (6, 4, "folders")
    assert source.provenance["test_folder"] == "val"
    write_all(tmp_path, pictures("test/dog", count=1))
    source = load_data("image-folder", tmp_path, size=9)
    assert source.test.labels.tolist() == [1]
    assert source.provenance["test_folder"] == "test"
    write_all(tmp_path / "new", pictures("train/cat", "train/dog", "val/bird"))
    with pytest.raises(ValueError, match="'bird' has pictures in val/, but not in train/"):
        load_data("image-folder", tmp_path / "new")


def test_image_folder_refusals(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for options, message in (
        ({}, r"mine has no class folders with pictures\. They belong in CLASS/, or in train/CLASS"),
        ({"channels": 2}, "channels must be 3 for colour or 1 for grey, got 2"),
        ({"split": "official"}, "split must be 'folders' or 'random'"),
        ({"size": 0}, "size must be 1 pixel or more"),
        ({"size": "big"}, r"a side or \[height, width\] in whole pixels, got 'big'"),
        ({"size": [32, 0]}, r"got \[32, 0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            load_data("image-folder", folder, **options)
    with pytest.raises(ValueError, match=r"folder of the pictures: give it as data\.root=FOLDER"):
        load_data("image-folder")
    write_all(folder, pictures("cat", "dog"))
    with pytest.raises(ValueError, match=r"split 'folders' needs pictures in test/CLASS/ or val/"):
        load_data("image-folder", folder, split="folders")
    (folder / "cat" / "1.png").write_bytes(b"no picture")
    reason = "in no format that Pillow knows"
    with pytest.raises(ValueError, match=rf"mine/cat/1\.png: not a .* can be read \({reason}\)$"):
        load_data("image-folder", folder)
    (folder / "cat" / "1.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cat/1\.png: .* \(the file is empty\)$"):
        load_data("image-folder", folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (pictures("."), r"own has no class folders .* \(3 pictures lie directly in it\)\. .*\.png"),
        (pictures("train", "test"), "own has no class folders with pictures"),
        (pictures("val/cat", "val/dog"), "pictures in val/CLASS/, but not in train/CLASS/"),
        (pictures("shapes"), r"own holds one class only \('shapes'\): .* there are two or more$"),
        (
            pictures("shapes/cross", "shapes/square"),
            r"own holds one class only \('shapes'\): data\.root must be .*, perhaps .*/own/shapes$",
        ),
        (pictures("train/cat"), r"own/train holds one class only \('cat'\)"),
        (
            pictures("cat", "dog") | {"bird/a.heic": b"?", "bird/deeper/b.txt": b"?"},
            r"own/bird holds no pictures, .* a class\. Add some \(\.png .*, or take",
        ),
        (
            pictures("train/cat", "train/dog") | {"train/bird/a.txt": b"?"},
            "own/train/bird holds no",
        ),
        (
            pictures("train/cat", "train/dog", "test/cat") | {"test/dog/a.txt": b"?"},
            "own/test/dog holds no",
        ),
        (
            pictures("cat", "dog") | pictures("bird", count=1),
            r"own/bird holds one picture only, and a random split needs two or more of each",
        ),
        (pictures("train/cat") | pictures("train/dog", count=1), "own/train/dog holds one picture"),
    ],
)
def test_folders_that_are_no_classes(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    write_all(tmp_path / "own", files)
    with pytest.raises(ValueError, match=message):
        load_data("image-folder", tmp_path / "own")


def test_empty_class_folders(tmp_path: Path) -> None:
    write_all(tmp_path, pictures("own/cat", "own/dog"))
    (tmp_path / "own" / "bird").mkdir()
    (tmp_path / "own" / ".hidden").mkdir()
    with pytest.raises(ValueError, match="own/bird holds no pictures"):
        load_data("image-folder", tmp_path / "own")
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for name, content in (pictures("cat", "dog") | {"__MACOSX/cat/._0.png": b"?"}).items():
            archive.writestr(name, content)
    assert load_data("image-folder", tmp_path / "own.zip").classes == ("cat", "dog")
    with zipfile.ZipFile(tmp_path / "own.zip", "a") as archive:
        archive.writestr("bird/", b"")
    with pytest.raises(ValueError, match=r"own\.zip/bird holds no pictures"):
        load_data("image-folder", tmp_path / "own.zip")


def test_a_data_set_in_a_line(tmp_path: Path) -> None:
    write_all(tmp_path, pictures("cross", "a circle", count=10))
    assert load_data("image-folder", tmp_path).describe() == (
        "image-folder: 2 classes (a circle, cross), 16 training + 4 test samples "
        "(split: random), 3x32x32"
    )
    assert load_data("digits").describe() == (
        "digits: 10 classes (0, 1, 2, 3, 4, ...), 1,438 training + 359 test samples "
        "(split: random), 1x8x8"
    )


def test_pictures_of_other_sizes_and_kinds() -> None:
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 255
    assert (decode_picture(encoded(wide), "wide", (10, 10), 3) == 255).all()
    assert decode_picture(encoded(wide), "wide", (20, 20), 1).shape == (1, 20, 20)

    transparent = np.full((4, 4, 4), 200, np.uint8)
    transparent[..., 3] = 0
    assert not decode_picture(encoded(transparent), "transparent", (4, 4), 3).any()

    deep = np.full((4, 4), 128 << 8, np.uint16)
    assert (decode_picture(encoded(deep), "16 bits", (4, 4), 1) == 128).all()

    turned = Image.fromarray(np.array([[0, 0], [255, 255]], np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    buffer = io.BytesIO()
    turned.save(buffer, "png", exif=exif)
    assert decode_picture(buffer.getvalue(), "turned", (2, 2), 1)[0].tolist() == [[255, 0]] * 2


# Events


def recording(seed: int, side: int, count: int = 50) -> list[formats.Event]:
    draw = np.random.default_rng(seed)
    columns = (
        draw.integers(0, side, count),
        draw.integers(0, side, count),
        np.sort(draw.integers(0, 2**20, count)),
        draw.integers(0, 2, count),
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


def framed(events: Sequence[formats.Event], T: int, side: int) -> NDArray[np.int64]:
    """Frames of equal event count, slowly."""
    frames = np.zeros((T, 2, side, side), np.int64)
    for i, (x, y, _, p) in enumerate(events):
        frames[min(i // (len(events) // T), T - 1), p, y, x] += 1
    return frames


def test_nmnist(tmp_path: Path) -> None:
    for part in ("Train", "Test"):
        for digit in range(10):
            events = recording(digit + 10 * (part == "Test"), 34)
            name = f"{part}/{digit}/{digit:05}.bin"
            write_all(tmp_path / "nmnist", {name: formats.nmnist(events)})
    source = load_data("nmnist", tmp_path, T=3)
    assert source.train.inputs.shape == (10, 3, 2, 34, 34)
    assert source.train.inputs.dtype == torch.uint8
    assert source.is_events
    assert (source.in_channels, source.image_size, source.num_classes) == (2, (34, 34), 10)
    for digit in range(10):
        expected = framed(recording(10 + digit, 34), 3, 34)
        np.testing.assert_array_equal(source.test.inputs[digit].numpy(), expected)
        assert source.test.labels[digit] == digit
    assert (source.split, source.provenance["T"]) == ("official", 3)
    by_time = load_data("nmnist", tmp_path, T=3, framing="time", window_us=1000)
    assert by_time.provenance["window_us"] == 1000
    assert by_time.train.inputs.sum() < source.train.inputs.sum()
    with pytest.raises(ValueError, match="framing must be count or time"):
        load_data("nmnist", tmp_path, framing="number")


def test_hot_pixels_and_empty_recordings(tmp_path: Path) -> None:
    write_all(
        tmp_path,
        {
            "Train/0/00001.bin": formats.nmnist([(3, 4, 7, 1)] * 600),
            "Train/1/00002.bin": b"",
            "Test/1/00003.bin": formats.nmnist(recording(0, 34)),
        },
    )
    source = load_data("nmnist", tmp_path, T=2)
    assert source.train.inputs.dtype == torch.int16
    assert source.train.inputs[0, :, 1, 4, 3].tolist() == [300, 300]
    x, _ = source.train.batch([0, 1])
    assert x.sum((1, 2, 3, 4)).tolist() == [600, 0]


def test_a_truncated_recording_stops_the_preparation(tmp_path: Path, data_folder: Path) -> None:
    write_all(tmp_path, {"Train/0/00001.bin": b"\1\2\3\4\5\6", "Test/1/00003.bin": b""})
    with pytest.raises(ValueError, match=r"00001\.bin: byte 5: the file ends within an event"):
        load_data("nmnist", tmp_path)
    assert [p.name for p in (data_folder / "prepared").iterdir()] == [".nmnist.lock"]


def test_cifar10_dvs(tmp_path: Path) -> None:
    count = 102
    for label, name in enumerate(CIFAR10.classes):
        folder = tmp_path / "cifar10-dvs" / name
        folder.mkdir(parents=True)
        for i in range(count):
            events = [(label, i % 128, j, j % 2) for j in range(4)]
            (folder / f"cifar10_{name}_{i}.aedat").write_bytes(formats.aedat2(events))
    source = load_data("cifar10-dvs", tmp_path, T=2)
    assert source.train.inputs.shape == (20, 2, 2, 128, 128)
    assert len(source.test) == 1000
    assert (source.split, source.provenance["split"]) == ("published", "published")
    # in lexicographic order 0, 1, 10, 100, 101, 11 ...: the first two are left for training
    assert source.train.inputs.sum((1, 2, 4)).nonzero()[:, 1].tolist() == [0, 1] * 10
    assert source.test.labels.bincount().tolist() == [100] * 10
    assert source.test.inputs[:3].sum((1, 2, 4)).nonzero()[:, 1].tolist() == [10, 100, 101]

    random = load_data("cifar10-dvs", tmp_path, T=2, split="random", seed=3)
    assert random.test.labels.bincount().tolist() == [10] * 10
    assert random.train.labels.bincount().tolist() == [92] * 10
    assert random.provenance["split_seed"] == 3
    with pytest.raises(ValueError, match="split must be 'published' or 'random', got 'official'"):
        load_data("cifar10-dvs", tmp_path, split="official")


@pytest.mark.parametrize("inside", ["dvs-gesture", "DvsGesture"])
def test_dvs_gesture(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / inside
    folder.mkdir()
    recordings = {}
    for name in ("user01_led", "user24_led"):
        late = [(x, y, t + 2**20, p) for x, y, t, p in recording(1, 128, 100)]
        events = recording(len(recordings), 128, 100) + late
        packets = [formats.aedat3_packet(events[i : i + 30]) for i in range(0, 200, 30)]
        (folder / f"{name}.aedat").write_bytes(formats.aedat3(packets))
        (folder / f"{name}_labels.csv").write_bytes(
            b"class,startTime_usec,endTime_usec\n11,100000,600000\n1,900000,1500000\n"
        )
        recordings[name] = events
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\n\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\r\n")
    source = load_data("dvs-gesture", tmp_path, T=4)
    assert source.num_classes == 11
    for arrays, name in ((source.train, "user01_led"), (source.test, "user24_led")):
        assert arrays.labels.tolist() == [10, 0]
        for i, (start, end) in enumerate(((100_000, 600_000), (900_000, 1_500_000))):
            part = [event for event in recordings[name] if start <= event[2] < end]
            assert len(part) > 8
            np.testing.assert_array_equal(arrays.inputs[i].numpy(), framed(part, 4, 128))
    (folder / "user24_led.aedat").unlink()
    with pytest.raises(FileNotFoundError, match=r"user24_led\.aedat, which .*trials_to_test\.txt"):
        load_data("dvs-gesture", tmp_path, T=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class;start;end\n", "line 1 must be 'class,startTime_usec,endTime_usec'"),
        ("", "line 1"),
        ("class,startTime_usec,endTime_usec\n1,2\n", "line 2 must be three whole numbers"),
        ("class,startTime_usec,endTime_usec\n\n1,2,x\n", "line 3 must be three whole numbers"),
        ("class,startTime_usec,endTime_usec\n12,2,3\n", "line 2 must have a class from 1 to 11"),
        ("class,startTime_usec,endTime_usec\n0,2,3\n", "line 2 must have a class from 1 to 11"),
        ("class,startTime_usec,endTime_usec\n1,3,3\n", "a start before its end"),
    ],
)
def test_gesture_labels(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_gesture_times(path)


def test_where_files_are_looked_for(tmp_path: Path) -> None:
    place = Place("set", tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "b").touch()
    assert place.find("a", "b") == tmp_path / "b"
    (tmp_path / "set" / "a").touch()
    assert place.find("b", "a") == tmp_path / "set" / "a"
