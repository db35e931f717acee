"""Downloads from a server of our own on this machine."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import original_formats as formats
import pytest

from eisnn.data.download import Remote, download_file, obtain
from eisnn.data.files import Place
from eisnn.data.sets.mnist import MNIST, idx_images

CONTENT = bytes(range(256)) * 4000


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass
class Server:
    """What the server offers and how it behaves, and what it was asked."""

    url: str
    files: dict[str, bytes] = field(default_factory=lambda: {"data.bin": CONTENT})
    ranges: bool = True
    hang_up_at: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            content = state.files.get(self.path.rpartition("/")[2])
            if content is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if wanted and state.ranges and start >= len(content):
                self.send_error(416)
                return
            if wanted and state.ranges:
                self.send_response(206)
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
                content = content[start:]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: state.hang_up_at.pop(0)] if state.hang_up_at else content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state = Server(f"http://127.0.0.1:{http.server_address[1]}/folder")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "set" / "data.bin"


def test_download(server: Server, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    download_file(f"{server.url}/data.bin", path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]
    assert not path.with_name("data.bin.part").exists()
    assert "data.bin" in capsys.readouterr().err
    download_file(f"{server.url}/data.bin", path, md5(CONTENT))
    assert server.asked == [None]


def test_a_broken_connection_is_taken_up(server: Server, path: Path) -> None:
    server.hang_up_at = [300_000, 400_000]
    download_file(f"{server.url}/data.bin", path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=700000-"]


def test_a_server_that_always_hangs_up(server: Server, path: Path) -> None:
    server.hang_up_at = [1000] * 3
    with pytest.raises(ConnectionError, match="closed at byte 3000 of 1024000"):
        download_file(f"{server.url}/data.bin", path, md5(CONTENT))
    assert path.with_name("data.bin.part").read_bytes() == CONTENT[:3000]
    download_file(f"{server.url}/data.bin", path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=3000-"


def test_a_server_that_cannot_go_on(server: Server, path: Path) -> None:
    server.ranges, server.hang_up_at = False, [1000]
    download_file(f"{server.url}/data.bin", path, md5(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]


@pytest.mark.parametrize("part", [b"other", CONTENT, CONTENT + b"more"], ids=len)
def test_what_an_earlier_download_left(server: Server, path: Path, part: bytes) -> None:
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(part)
    download_file(f"{server.url}/data.bin", path, md5(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_wrong_checksum(server: Server, path: Path) -> None:
    with pytest.raises(ValueError, match=f"has MD5 {md5(CONTENT)}, expected {md5(b'')}: "):
        download_file(f"{server.url}/data.bin", path, md5(b""))
    assert [file.name for file in path.parent.iterdir()] == ["data.bin.lock"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/data.bin", "data.bin"])
def test_other_addresses(path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="need an http or https address"):
        download_file(url, path, "")


def test_obtain(server: Server, tmp_path: Path) -> None:
    place = Place("set", tmp_path)
    remote = Remote("http://127.0.0.1:1/nobody", {"data.bin": md5(CONTENT)})

    with pytest.raises(FileNotFoundError, match=r"set needs data or data\.bin in .*/set, and"):
        obtain(place, remote, "data", "data.bin", download=False)
    with pytest.raises(FileNotFoundError, match=r"set needs data\.bin in .*/set\. .* by hand"):
        obtain(place, remote, "data", "data.bin")
    with pytest.raises(FileNotFoundError, match=r"HTTP Error 404"):
        obtain(place, Remote(server.url, {"none.bin": ""}), "none.bin")

    got = obtain(place, remote, "data", "data.bin", url=server.url + "/")
    assert got == tmp_path / "set" / "data.bin"
    (tmp_path / "data").mkdir()  # the folder of the unpacked archive, in the root itself
    got.unlink()
    assert obtain(place, remote, "data", "data.bin", download=False) == tmp_path / "data"


def test_a_data_set_is_downloaded(server: Server, tmp_path: Path) -> None:
    images = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4)
    for prefix in ("train", "t10k"):
        server.files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(formats.idx(images))
        server.files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(
            formats.idx(np.arange(12, dtype=np.uint8) % 10)
        )
    remote = Remote("http://127.0.0.1:1", {name: md5(c) for name, c in server.files.items()})
    with pytest.warns(UserWarning, match="not what was published under that name"):
        source = idx_images(replace(MNIST, remote=remote), tmp_path, url=server.url)
    assert len(source.train) == len(source.test) == 12
    assert len(list((tmp_path / "mnist").glob("*.gz"))) == 4
