"""CIFAR-10 and CIFAR-100."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eisnn.data.cifar_files import read_cifar_binary, read_cifar_pickle, read_members
from eisnn.data.download import Remote, md5_of, obtain
from eisnn.data.files import Place, digest
from eisnn.data.sets.common import image_arrays, warn_unpublished
from eisnn.data.source import Arrays, DataSource, Provenance

__all__ = ["CIFAR10", "CIFAR100", "Cifar", "cifar"]


@dataclass(frozen=True)
class Version:
    """One of the versions in which the files are published.

    Attributes:
        archive: the archive.
        folder: its folder.
        train, test: the files in it.
    """

    archive: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Cifar:
    """CIFAR-10 or CIFAR-100.

    Attributes:
        name: of the data set.
        classes: a name for each label.
        md5: of the archives, as published.
        binary, python: their versions.
        label_bytes: of each record in the binary version.
        label_key: of the labels in the Python version.
    """

    name: str
    classes: tuple[str, ...]
    md5: dict[str, str]
    binary: Version
    python: Version
    label_bytes: int
    label_key: str


_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"

_CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
    kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
    mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew
    skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
    telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf
    woman worm
"""

CIFAR10 = Cifar(
    name="cifar10",
    classes=tuple(_CIFAR10_CLASSES.split()),
    md5={
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    },
    binary=Version(
        "cifar-10-binary.tar.gz",
        "cifar-10-batches-bin",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        ("test_batch.bin",),
    ),
    python=Version(
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        ("test_batch",),
    ),
    label_bytes=1,
    label_key="labels",
)

CIFAR100 = Cifar(
    name="cifar100",
    classes=tuple(_CIFAR100_CLASSES.split()),
    md5={
        "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    },
    binary=Version("cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), ("test.bin",)),
    python=Version("cifar-100-python.tar.gz", "cifar-100-python", ("train",), ("test",)),
    label_bytes=2,
    label_key="fine_labels",
)


def cifar(
    data_set: Cifar, root: Path, *, download: bool = True, url: str | None = None
) -> DataSource:
    """CIFAR-10 or CIFAR-100, with its official split.

    Args:
        data_set: which.
        root: an archive or its folder, of the binary or the Python version, is looked for in its
            folder of the data set's name, then in itself.
        download: whether the binary version may be downloaded if there is none.
        url: another folder on the web to download it from.
    """
    binary, python = data_set.binary, data_set.python
    path = obtain(
        Place(data_set.name, root),
        Remote("https://www.cs.toronto.edu/~kriz", data_set.md5),
        *(binary.folder, python.folder, python.archive, binary.archive),
        download=download,
        url=url,
    )
    if path.name in data_set.md5 and md5_of(path) != data_set.md5[path.name]:
        warn_unpublished(f"{path} is")
    version = python if path.name in (python.folder, python.archive) else binary
    train = _read(data_set, path, version.train)
    test = _read(data_set, path, version.test)
    provenance: Provenance = {
        f"{part}_sha256": digest(arrays.inputs.numpy(), arrays.labels.numpy())
        for part, arrays in (("train", train), ("test", test))
    }
    return DataSource(data_set.name, train, test, data_set.classes, "official", provenance)


def _read(data_set: Cifar, path: Path, names: tuple[str, ...]) -> Arrays:
    """The images of one part, one file after the other."""
    batches = []
    for name, data in zip(names, read_members(path, names), strict=True):
        if name.endswith(".bin"):
            batch = read_cifar_binary(
                data,
                path / name,
                label_bytes=data_set.label_bytes,
                num_classes=len(data_set.classes),
            )
        else:
            batch = read_cifar_pickle(
                data, path / name, label_key=data_set.label_key, num_classes=len(data_set.classes)
            )
        batches.append(batch)
    images, labels = (np.concatenate(column) for column in zip(*batches, strict=True))
    return image_arrays(images, labels, 255)
