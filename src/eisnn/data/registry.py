"""Data sets by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, get_args, get_type_hints

from eisnn.data.files import default_root
from eisnn.data.sets.cifar import CIFAR10, CIFAR100, cifar
from eisnn.data.sets.digits import digits
from eisnn.data.sets.events import cifar10_dvs, dvs_gesture, nmnist
from eisnn.data.sets.folders import image_folder, tiny_imagenet
from eisnn.data.sets.mnist import FASHION_MNIST, MNIST, idx_images
from eisnn.data.source import DataSource

__all__ = ["data_options", "list_data_sets", "load_data"]

_LOADERS: Mapping[str, Callable[..., DataSource]] = MappingProxyType(
    {
        "digits": digits,
        "mnist": partial(idx_images, MNIST),
        "fashion-mnist": partial(idx_images, FASHION_MNIST),
        "cifar10": partial(cifar, CIFAR10),
        "cifar100": partial(cifar, CIFAR100),
        "tiny-imagenet": tiny_imagenet,
        "image-folder": image_folder,
        "cifar10-dvs": cifar10_dvs,
        "dvs-gesture": dvs_gesture,
        "nmnist": nmnist,
    }
)


def list_data_sets() -> list[str]:
    """The names that :func:`load_data` knows."""
    return list(_LOADERS)


def data_options(name: str) -> dict[str, object]:
    """The options of a data set, with their defaults.

    Raises:
        ValueError: no such data set.
    """
    _, *options = inspect.signature(_loader(name)).parameters.values()  # the first is root
    return {option.name: option.default for option in options}


def load_data(name: str, root: Path | str | None = None, **options: object) -> DataSource:
    """A data set, from the files in which it is published.

    Files are looked for in the folder ``root/name``, then in ``root`` itself. What can be
    downloaded is. What takes long to decode is kept, prepared, for the next time.

    Args:
        name: see :func:`list_data_sets`.
        root: folder of all data sets, which must exist; by default ``EISNN_DATA``, if this
            environment variable is set, else ``~/.cache/eisnn``, made when it is needed.
        **options: of that data set, see :func:`data_options`.

    Returns:
        training and test samples, with their provenance.

    Raises:
        ValueError: no such data set or option, an option out of its range, or a file that is
            damaged or in another format.
        FileNotFoundError: there is no ``root``, or a file is missing; the message says which,
            and where it belongs.
        ImportError: a library is missing; the message says how to install it.
    """
    loader = _loader(name)
    known = data_options(name)
    kinds = get_type_hints(loader.func if isinstance(loader, partial) else loader)
    for option, value in options.items():
        if option not in known:
            raise ValueError(_unknown(f"option of {name}", option, known))
        if not _fits(value, kinds[option]):
            what = getattr(kinds[option], "__name__", None) or str(kinds[option])
            raise ValueError(
                f"data.options.{option} ({option}= in Python) must be {what}, got {value!r}"
            )
    if root is None:
        return loader(default_root(), **options)
    folder = Path(root).expanduser()
    if not folder.exists():  # nothing is downloaded into a folder that was mistyped
        make = f", or make it first, for {name} to be downloaded there" if "url" in known else ""
        raise FileNotFoundError(
            f"there is no folder {folder}: data.root=FOLDER (root= in Python) must name one that "
            f"exists. Correct it{make}"
        )
    return loader(folder, **options)


def _fits(value: object, kind: Any) -> bool:
    """Whether an option is of its type; those of several shapes are checked where they are used."""
    kinds = get_args(kind) or (kind,)
    if not set(kinds) <= {int, float, str, bool, NoneType}:
        return True
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds:
        return True
    return type(value) in kinds


def _loader(name: str) -> Callable[..., DataSource]:
    if name not in _LOADERS:
        raise ValueError(_unknown("data set", name, _LOADERS))
    return _LOADERS[name]


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """ "There is no ... Did you mean ...?" """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no {kind} {name!r}.{hint} There are: {', '.join(names) or 'none'}"
