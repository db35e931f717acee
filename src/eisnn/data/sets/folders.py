"""Tiny-ImageNet, and pictures of one's own in folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from eisnn.data.cache import Part, prepared
from eisnn.data.download import Remote, obtain
from eisnn.data.files import Place, default_root
from eisnn.data.pictures import (
    SUFFIXES,
    Listing,
    Tree,
    bare_folders,
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


_GIVE_ROOT = "give it as data.root=FOLDER (root= in Python)"


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

    They are in ``train/CLASS/`` and ``test/CLASS/`` (split ``"folders"``; without a test folder
    ``val/CLASS/`` is the test set, beside one it is not used), or there is neither and a share
    of each class is taken (split ``"random"``) from ``train/CLASS/`` or from ``CLASS/``.

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
        ValueError: no root is given, there are no pictures, fewer than two classes, a class
            without pictures or with too few to be split, or a class in the test folder has none
            for training.
    """
    if root == default_root():
        raise ValueError(f"image-folder needs the folder of the pictures: {_GIVE_ROOT}")
    if not root.exists():
        raise FileNotFoundError(f"there is no folder {root} of pictures: {_GIVE_ROOT}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 3 for colour or 1 for grey, got {channels}")
    if split not in ("folders", "random", None):
        raise ValueError(f"split must be 'folders' or 'random', got {split!r}")
    height, width = _sides(size)

    tree = Tree.of(root)
    top, train, held_out, test = _layout(tree)
    if split == "folders" and not test:
        raise ValueError(
            f"{root}: split 'folders' needs pictures in test/CLASS/ or val/CLASS/, and there are "
            "none. Leave split out, to take a share of each class for the test set"
        )
    if unknown := {label for _, label in test} - {label for _, label in train}:
        raise ValueError(
            f"{root}: class {min(unknown)!r} has pictures in {held_out}/, but not in train/"
        )
    split = split or ("folders" if test else "random")
    parameters: Provenance = {"height": height, "width": width, "channels": channels}
    if split == "random":
        counts = Counter(label for _, label in train)
        if alone := sorted(label for label, count in counts.items() if count == 1):
            raise ValueError(
                f"{root / top / alone[0]} holds one picture only, and a random split needs two or "
                "more of each class: for training and for the test set. Add some, or take the "
                "folder away"
            )
        classes = sorted(counts)
        labels = torch.tensor([classes.index(label) for _, label in train])
        rest, chosen = stratified(labels, test_fraction, seed)
        train, test = _chosen(train, rest.tolist()), _chosen(train, chosen.tolist())
        parameters |= {"test_fraction": test_fraction, "split_seed": seed}
    else:
        parameters |= {"test_folder": held_out}
    return _pictures(
        "image-folder", tree, train, test, split, parameters, (height, width), channels, cache
    )


def _sides(size: object) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else size
    match sides:
        case [int(height), int(width)] if min(height, width) >= 1:
            return height, width
    raise ValueError(
        f"size must be 1 pixel or more, a side or [height, width] in whole pixels, got {size!r}"
    )


def _layout(tree: Tree) -> tuple[str, Listing, str, Listing]:
    """The folder of the classes and its pictures, the test folder and its pictures.

    Raises:
        ValueError: the pictures are in no folders of classes, or there are fewer than two
            classes, or one without pictures.
    """
    root = tree.path
    top, train = "train", class_folders(tree, "train")
    held_out = "test" if class_folders(tree, "test") else "val"
    test = class_folders(tree, held_out)
    if test and not train:
        raise ValueError(
            f"{root}: there are pictures in {held_out}/CLASS/, but not in train/CLASS/"
        )
    if not train:
        top, train = "", class_folders(tree)
    classes = {label for _, label in train}
    if not top and classes <= {"train", "test", "val"}:  # parts, and no classes in them
        direct = sum("/" not in name and name.lower().endswith(SUFFIXES) for name in tree.names)
        lie = f" ({direct:,} pictures lie directly in it)" if direct else ""
        raise ValueError(
            f"{root} has no class folders with pictures{lie}. They belong in CLASS/, or in "
            "train/CLASS/ and test/CLASS/ (or val/CLASS/), where CLASS stands for the name of "
            f"each class. Files that are read: {' '.join(SUFFIXES)}"
        )
    for part in (top, held_out) if test else (top,):
        if bare := bare_folders(tree, part):
            raise ValueError(
                f"{root / part / bare[0]} holds no pictures, and the name of each folder there is "
                f"a class. Add some ({' '.join(SUFFIXES)}), or take the folder away"
            )
    if len(classes) == 1:
        (label,) = classes
        inner = {name for _, name in class_folders(tree, f"{top}/{label}" if top else label)}
        perhaps = f", perhaps {root / top / label}" if len(inner) > 1 and not top else ""
        raise ValueError(
            f"{root / top} holds one class only ({label!r}): data.root must be the folder of the "
            f"class folders, of which there are two or more{perhaps}"
        )
    return top, train, held_out, test


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
