"""Downloads that are checked, and that go on where an interrupted one stopped."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from eisnn.data.files import Place, require
from eisnn.data.progress import progress

__all__ = ["Remote", "download_file", "md5_of", "obtain"]

_CHUNK = 1 << 18
_TIMEOUT = 30  # seconds without a byte
_TRIES = 3


@dataclass(frozen=True)
class Remote:
    """A folder on the web.

    Attributes:
        url: of the folder.
        md5: file names, with the MD5 of each file. It guards against damage, not malice.
    """

    url: str
    md5: Mapping[str, str]


def obtain(
    place: Place, remote: Remote, *names: str, download: bool = True, url: str | None = None
) -> Path:
    """The first of ``names`` that is on disk; if none is, the last one is downloaded.

    Args:
        place: where to look, and where to put it.
        remote: where it can be had.
        *names: a file or folder under its possible names; the last is that of ``remote``.
        download: whether downloading is allowed.
        url: another folder on the web that has the same files.

    Raises:
        FileNotFoundError: not on disk, and downloading is not allowed or failed; the message
            says which file to put where.
        ValueError: what was downloaded has another checksum.
    """
    name = names[-1]
    address = f"{(url or remote.url).rstrip('/')}/{name}"
    if place.find(*names) is None and download:
        try:
            download_file(address, place.folder / name, remote.md5[name])
        except OSError as error:
            raise FileNotFoundError(
                f"{place.name} needs {name} in {place.folder}. Downloading it from {address} "
                f"failed: {error}. Put the file there by hand, or name another folder on the web "
                "that has it: data.options.url=URL (url= in Python)"
            ) from error
    return place.need(*names, source=f"It can be downloaded from {address}")


def download_file(url: str, path: Path, md5: str) -> None:
    """Download to ``path``, with a progress bar.

    What has arrived is kept beside it as ``NAME.part`` until it is complete and its checksum
    right; an interrupted download goes on from there, or starts anew where the server cannot
    do that. Processes that want the same file at once wait for the first.

    Args:
        url: http or https address.
        path: the file; its folder is made.
        md5: expected checksum.

    Raises:
        OSError: the server cannot be reached, refuses, or keeps hanging up; or the disk does.
        ValueError: another kind of address, or a complete file with a wrong checksum, which is
            deleted.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"downloads need an http or https address, got {url!r}")
    filelock = require("filelock", "filelock")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with filelock.FileLock(path.with_name(path.name + ".lock")):
        if path.exists():  # another process was faster
            return
        resumed = part.exists()
        _fetch(url, part)
        got = md5_of(part)
        if got != md5 and resumed:  # the first half may have been of another file
            part.unlink()
            _fetch(url, part)
            got = md5_of(part)
        if got != md5:
            part.unlink()
            raise ValueError(
                f"{url} has MD5 {got}, expected {md5}: the download is damaged or another file, "
                "and was deleted. Try again or give another url"
            )
        part.replace(path)


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _fetch(url: str, part: Path) -> None:
    """Download what ``part`` still lacks; try again when the connection breaks."""
    for attempt in range(1, _TRIES + 1):
        try:
            _fetch_once(url, part)
            return
        except urllib.error.HTTPError:
            raise  # an answer, if not the one we want: asking again will not help
        except (urllib.error.URLError, ConnectionError, TimeoutError, HTTPException) as error:
            if attempt == _TRIES:
                raise ConnectionError(str(error) or type(error).__name__) from error


def _fetch_once(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "eisnn"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == 416:  # nothing after byte `have`: complete, or another file
            return
        raise
    with response:
        if have and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends the whole file again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as file,
            progress(part.stem, total, done=have, in_bytes=True) as advance,
        ):
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
            size = file.tell()
    if total is not None and size < total:
        raise ConnectionError(f"the connection closed at byte {size} of {total}")
