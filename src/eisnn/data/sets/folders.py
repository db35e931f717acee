"""Tiny-ImageNet, and pictures of one's own in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from eisnn.data.cache import Part, prepared
from eisnn.data.download import Remote, obtain
from eisnn.data.files import Place, default_root
from eisnn.data.pictures import (
    Listing,
    Tree,
    class_folders,
    decode_pictures,
    tiny_imagenet_parts,
)
from eisnn.data.source import DataSource, Provenance
from eisnn.data.splits import stratified

__all__ = ["image_folder", "tiny_imagenet"]

_TINY_IMAGENET = Remote(
    "http://cs231n.stanford.edu", {"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"}
)


def tiny_imagenet(
    root: Path,
    *,
    download: bool = True,
    url: str | None = None,
    cache: Path | str | None = None,
) -> DataSource:
    """Tiny-ImageNet: 200 classes of 500 + 50 colour images, 64x64 pixels.

    The labels of its test images were never published; as in the published runs, its
    validation images are the test set. Classes are WordNet numbers, in their order.

    Args:
        root: ``tiny-imagenet-200.zip`` or its folder is looked for in its folder
            ``tiny-imagenet``, then in itself.
        download: whether the archive may be downloaded if there is none.
        url: another folder on the web to download it from.
        cache: as in :func:`eisnn.data.cache.prepared`.
    """
    place = Place("tiny-imagenet", root)
    names = ("tiny-imagenet-200", "tiny-imagenet-200.zip")
    tree = Tree.of(obtain(place, _TINY_IMAGENET, *names, download=download, url=url))
    train, test = tiny_imagenet_parts(tree)
    return _pictures("tiny-imagenet", tree, train, test, "official", {}, (64, 64), 3, cache)


def image_folder(
    root: Path,
    *,
    size: int | tuple[int, int] = 32,
    channels: int = 3,
    split: str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    cache: Path | str | None = None,
) -> DataSource:
    """Pictures of one's own, with a folder for each class.

    They are in ``train/CLASS/`` and ``test/CLASS/`` (split ``"folders"``), or there is no test
    folder and a share of each class is taken (split ``"random"``) from ``train/CLASS/`` or
    from ``CLASS/``.

    Args:
        root: the folder, or a .zip archive of it.
        size: side, or height and width, in pixels to which pictures are scaled and cropped.
        channels: 3 for colour, 1 for grey.
        split: ``"folders"`` or ``"random"``; by default the first if there is a test folder.
        test_fraction: that share.
        seed: of the random split.
        cache: as in :func:`eisnn.data.cache.prepared`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no root is given, there are no pictures, or a class in the test folder has
            none for training.
    """
    if root == default_root():
        raise ValueError("image-folder needs the folder of the pictures: give it as root")
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {root} of pictures: give it as root")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 3 for colour or 1 for grey, got {channels}")
    if split not in ("folders", "random", None):
        raise ValueError(f"split must be 'folders' or 'random', got {split!r}")
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size must be 1 pixel or more, got {size}")

    tree = Tree.of(root)
    train, test = class_folders(tree, "train"), class_folders(tree, "test")
    train = train or ([] if test else class_folders(tree))
    if not train or (split == "folders" and not test):
        part = "test" if train else "train"
        raise ValueError(
            f"{root}: there are no pictures in {part}/CLASS/, where CLASS stands for the name of "
            "each class"
        )
    if unknown := {label for _, label in test} - {label for _, label in train}:
        raise ValueError(f"{root}: class {min(unknown)!r} has pictures in test/, but not in train/")
    parameters: Provenance = {"height": height, "width": width, "channels": channels}
    split = split or ("folders" if test else "random")
    if split == "random":
        classes = sorted({label for _, label in train})
        labels = torch.tensor([classes.index(label) for _, label in train])
        rest, held_out = stratified(labels, test_fraction, seed)
        train, test = _chosen(train, rest.tolist()), _chosen(train, held_out.tolist())
        parameters |= {"test_fraction": test_fraction, "split_seed": seed}
    return _pictures(
        "image-folder", tree, train, test, split, parameters, (height, width), channels, cache
    )


def _chosen(listing: Listing, indices: Sequence[int]) -> Listing:
    return [listing[i] for i in indices]


def _pictures(
    name: str,
    tree: Tree,
    train: Listing,
    test: Listing,
    split: str,
    parameters: Provenance,
    size: tuple[int, int],
    channels: int,
    cache: Path | str | None,
) -> DataSource:
    """Decoded pictures, from the cache if they are there."""
    classes = tuple(sorted({label for _, label in train + test}))
    number = {label: i for i, label in enumerate(classes)}
    parts = {
        part: Part(
            [number[label] for _, label in listing],
            decode_pictures(tree, [file for file, _ in listing], size, channels),
        )
        for part, listing in (("train", train), ("test", test))
    }
    arrays, provenance = prepared(
        name,
        parts,
        scale=255,
        parameters=parameters | {"split": split},
        sources=tree.sources,
        cache=cache,
    )
    return DataSource(name, arrays["train"], arrays["test"], classes, split, provenance)
