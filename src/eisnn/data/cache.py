"""Prepared data on disk: what takes long to decode is decoded once.

Each preparation is a folder with one ``.npy`` file per array and a ``manifest.json``. Its name
ends in a digest of everything that it depends on (the version of this format, the parameters,
the names, sizes and times of the source files), so a changed parameter is another folder and
an old one is never taken for it. A folder is written under a temporary name and renamed when
it is complete; whoever dies in between leaves nothing that counts. A lock per data set lets
other processes wait for the first instead of doing its work again.

Legend: n samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from eisnn.data.files import default_root, digest, require
from eisnn.data.progress import progress
from eisnn.data.source import Arrays, Provenance

__all__ = ["Part", "prepared"]

_VERSION = 1
_KEY_DIGITS = 16
_MANIFEST = "manifest.json"
_DTYPES = tuple(map(np.dtype, ("u1", "<i2", "<i4")))  # what torch has, narrowest first


@dataclass(frozen=True)
class Part:
    """Samples that may have to be prepared.

    Attributes:
        labels: the class of each.
        samples: the arrays of each, all of one shape, non-negative integers, in the order of
            ``labels``. It is not touched if they are prepared already.
    """

    labels: Sequence[int]
    samples: Iterable[NDArray[Any]]


def prepared(
    name: str,
    parts: Mapping[str, Part],
    *,
    scale: float,
    parameters: Provenance,
    sources: Sequence[Path],
    cache: Path | str | None = None,
) -> tuple[dict[str, Arrays], Provenance]:
    """Arrays as they were prepared earlier, or prepared now.

    Args:
        name: of the data set.
        parts: the samples of each part.
        scale: as in :class:`Arrays`.
        parameters: what else the result depends on.
        sources: the files it is made from; one that was replaced since makes it be made anew.
        cache: where to keep it; by default the folder ``prepared`` in
            :func:`eisnn.data.default_root`.

    Returns:
        for each part, its arrays, mapped from disk and read as they are used; and their
        provenance: the parameters, and the digest of each part's content.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
        ValueError: a sample cannot be read, or does not have the shape of the others.
    """
    home = Path(cache).expanduser() if cache is not None else default_root() / "prepared"
    request = {
        "version": _VERSION,
        "name": name,
        "parameters": parameters,
        "sources": _fingerprint(sources),
        "labels": {part: digest(_labels(parts[part])) for part in parts},
    }
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:_KEY_DIGITS]
    folder = home / f"{name}-{key}"
    manifest = _read_manifest(folder, request)
    if manifest is None:
        try:
            manifest = _prepare(folder, parts, request)
        except OSError as error:
            if error.filename is not None and not str(error.filename).startswith(str(home)):
                raise  # a source file, not the cache
            raise OSError(
                error.errno,
                f"cannot keep prepared data of {name} ({error.strerror}); another folder is "
                "named by data.options.cache=FOLDER (cache= in Python) or by EISNN_DATA",
                str(home),
            ) from error
    arrays = {
        part: Arrays(
            _mapped(folder / f"{part}_inputs.npy"), _mapped(folder / f"{part}_labels.npy"), scale
        )
        for part in parts
    }
    return arrays, parameters | {f"{part}_sha256": manifest["sha256"][part] for part in parts}


def _prepare(folder: Path, parts: Mapping[str, Part], request: dict[str, Any]) -> dict[str, Any]:
    """Write ``folder``, unless another process does so first; return its manifest."""
    filelock = require("filelock", "filelock")
    home, name = folder.parent, request["name"]
    home.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(home / f".{name}.lock"):
        manifest = _read_manifest(folder, request)
        if manifest is not None:
            return manifest
        for left_over in home.glob(f".{name}-{'[0-9a-f]' * _KEY_DIGITS}-*.tmp"):
            shutil.rmtree(left_over)  # of a process that died: the lock is ours
        temporary = home / f".{folder.name}-{os.getpid()}.tmp"
        temporary.mkdir()
        try:
            manifest = _write(temporary, parts, request)
            if folder.exists():  # damaged, or we would have used it
                shutil.rmtree(folder)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return manifest


def _write(folder: Path, parts: Mapping[str, Part], request: dict[str, Any]) -> dict[str, Any]:
    total = sum(len(part.labels) for part in parts.values())
    digests = {}
    with progress(f"preparing {request['name']}", total) as advance:
        for name, part in parts.items():

            def counted(samples: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
                for sample in samples:
                    yield sample
                    advance(1)

            inputs, labels = folder / f"{name}_inputs.npy", folder / f"{name}_labels.npy"
            write_samples(inputs, counted(part.samples), len(part.labels))
            with labels.open("xb") as file:
                np.save(file, _labels(part), allow_pickle=False)
                _flush(file)
            digests[name] = digest(np.load(inputs, mmap_mode="r"), _labels(part))
    manifest = request | {
        "sha256": digests,
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    with (folder / _MANIFEST).open("xb") as file:
        file.write(json.dumps(manifest, indent=1).encode())
        _flush(file)
    return manifest


def write_samples(path: Path, samples: Iterable[NDArray[Any]], count: int) -> None:
    """Write an ``.npy`` file of ``[count, *shape]`` sample by sample.

    The values are kept in the smallest of uint8, int16 and int32 that holds all of them: when
    one turns up that does not fit, the file is written anew in the next wider type. Nothing
    saturates or wraps.

    Raises:
        ValueError: samples of different shapes, not ``count`` of them, or values below 0 or
            above 2**31 - 1.
    """
    shape: tuple[int, ...] | None = None
    dtype = _DTYPES[0]
    file: BinaryIO = path.open("xb")
    written = 0
    try:
        for sample in samples:
            if shape is None:
                shape = sample.shape
                _write_header(file, dtype, (count, *shape))
            if sample.shape != shape:
                raise ValueError(
                    f"samples must have one shape, got {list(sample.shape)} after {list(shape)}"
                )
            low, high = int(sample.min(initial=0)), int(sample.max(initial=0))
            if low < 0 or high > np.iinfo(_DTYPES[-1]).max:
                raise ValueError(f"samples must be 0 to 2**31 - 1, got {low} to {high}")
            if high > np.iinfo(dtype).max:
                narrow = dtype
                dtype = next(wide for wide in _DTYPES if high <= np.iinfo(wide).max)
                file.close()
                file = _widen(path, narrow, dtype, (count, *shape), written)
            file.write(sample.astype(dtype).tobytes())
            written += 1
        _flush(file)
    finally:
        file.close()
    if written != count:
        raise ValueError(f"{count} labels need as many samples, got {written}")


def _widen(
    path: Path, narrow: np.dtype[Any], wide: np.dtype[Any], shape: tuple[int, ...], written: int
) -> BinaryIO:
    """Write the first ``written`` samples of a file anew in a wider type; leave it open."""
    old = path.with_suffix(".narrow")
    path.replace(old)
    file = path.open("xb")
    _write_header(file, wide, shape)
    with old.open("rb") as source:
        source.seek(file.tell())  # both headers have the same length
        size = int(np.prod(shape[1:])) * narrow.itemsize
        for _ in range(written):
            file.write(np.frombuffer(source.read(size), narrow).astype(wide).tobytes())
    old.unlink()
    return file


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _read_manifest(folder: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of a complete preparation that is what was asked for."""
    try:
        manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
        same = all(manifest[key] == value for key, value in request.items())
        sizes = {name: (folder / name).stat().st_size for name in manifest["files"]}
        return manifest if same and sizes == manifest["files"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _mapped(path: Path) -> torch.Tensor:
    """The array in a file, read as it is used; writing to it would not change the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _labels(part: Part) -> NDArray[np.int64]:
    return np.array(part.labels, np.int64)


def _fingerprint(sources: Sequence[Path]) -> dict[str, str | int]:
    """What tells whether source files were replaced, without reading them."""
    sha, size = hashlib.sha256(), 0
    for path in sources:
        stat = path.stat()
        sha.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        size += stat.st_size
    return {"files": len(sources), "bytes": size, "fingerprint": sha.hexdigest()}
