"""MNIST and the data sets in its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eisnn.data.download import Remote, obtain
from eisnn.data.files import Place, digest
from eisnn.data.idx import read_idx
from eisnn.data.sets.common import DIGITS, image_arrays, padding, warn_unpublished
from eisnn.data.source import Arrays, DataSource

__all__ = ["FASHION_MNIST", "MNIST", "Idx", "idx_images"]


@dataclass(frozen=True)
class Idx:
    """A data set of four IDX files.

    Attributes:
        name: of the data set.
        classes: a name for each label.
        remote: where the files can be had, and their MD5 as published.
        sha256: digests of what is in the files for training and for test. The published
            files are often packed anew, which changes the MD5 but not these.
    """

    name: str
    classes: tuple[str, ...]
    remote: Remote
    sha256: tuple[str, str]


MNIST = Idx(
    "mnist",
    DIGITS,
    Remote(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    (
        "465b4c294b957b850120e6abb5b8a2e81d06429f0e2fd488ddf7a4e046b4c37d",
        "43eade786d86f967f3e08102d3f21409f5b69b59f1d56701589f1a10416cb79b",
    ),
)
"""LeCun, Cortes & Burges: 60,000 + 10,000 handwritten digits of 28x28 pixels."""

FASHION_MNIST = Idx(
    "fashion-mnist",
    (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    Remote(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    (
        "261d33572702535fea59d40a648265f893b1a1151b298a05b5fd7708fb6e22de",
        "a198428800c5b18f9efb271a84ccd91cb5322b3511c26065cd55007b8040e9c2",
    ),
)
"""Xiao, Rasul & Vollgraf 2017 (arXiv 1708.07747): clothes, in the sizes of MNIST."""


def idx_images(
    data_set: Idx,
    root: Path,
    *,
    pad_to: int | None = None,
    download: bool = True,
    url: str | None = None,
) -> DataSource:
    """A data set of four IDX files, with its official split.

    Args:
        data_set: which.
        root: the files, gzipped or plain, are looked for in its folder of the data set's name,
            then in itself.
        pad_to: side in pixels to which images are padded with zeros on all sides.
        download: whether files that are not there may be downloaded.
        url: another folder on the web to download them from.
    """
    place = Place(data_set.name, root)
    parts: dict[str, Arrays] = {}
    provenance = padding(pad_to)
    for part, prefix, published in zip(
        ("train", "test"), ("train", "t10k"), data_set.sha256, strict=True
    ):
        images, labels = (
            read_idx(obtain(place, data_set.remote, file, f"{file}.gz", download=download, url=url))
            for file in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
        )
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{data_set.name}: the {prefix} files must hold images [n, H, W] and labels [n], "
                f"got {list(images.shape)} and {list(labels.shape)}"
            )
        content = digest(images, labels)
        if content != published:
            warn_unpublished(f"the {prefix} files of {data_set.name} in {root} are")
        parts[part] = image_arrays(images[:, None], labels, 255, pad_to)
        provenance[f"{part}_sha256"] = content
    return DataSource(
        name=data_set.name,
        train=parts["train"],
        test=parts["test"],
        classes=data_set.classes,
        split="official",
        provenance=provenance,
    )
