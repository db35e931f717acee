"""Prepared data: exact, complete or absent, made once, made anew when anything changed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eisnn.data.cache import Part, prepared, write_samples

LABELS = [0, 1, 2, 1]


def samples(factor: int = 1) -> list[NDArray[np.int64]]:
    return [factor * np.arange(i, i + 24).reshape(2, 3, 4) for i in range(len(LABELS))]


def untouchable() -> Iterator[NDArray[Any]]:
    raise AssertionError("prepared already, so nothing may be decoded")
    yield


def prepare(cache: Path | None, data: Any = None, **changes: Any) -> Any:
    data = samples() if data is None else data
    options = {"scale": 1, "parameters": {"T": 4}, "sources": [], "cache": cache} | changes
    return prepared("things", {"train": Part(LABELS, data)}, **options)


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if not path.name.startswith("."))


def test_made_once_and_read_back(tmp_path: Path) -> None:
    arrays, provenance = prepare(tmp_path / "cache")
    again, same_provenance = prepare(tmp_path / "cache", untouchable())
    for train in (arrays["train"], again["train"]):
        assert train.inputs.dtype == torch.uint8
        assert train.labels.tolist() == LABELS
        np.testing.assert_array_equal(train.inputs.numpy(), np.stack(samples()))
    assert provenance == same_provenance
    assert provenance["T"] == 4
    assert len(str(provenance["train_sha256"])) == 64
    (folder,) = folders(tmp_path / "cache")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["parameters"] == {"T": 4}
    assert manifest["files"].keys() == {"train_inputs.npy", "train_labels.npy"}
    assert np.load(folder / "train_inputs.npy", allow_pickle=False).shape == (4, 2, 3, 4)


def test_arrays_can_be_written_to_without_changing_the_file(tmp_path: Path) -> None:
    prepare(tmp_path)[0]["train"].inputs.zero_()
    assert prepare(tmp_path, untouchable())[0]["train"].inputs.any()


def test_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EISNN_DATA", str(tmp_path / "data"))
    prepare(None)
    assert len(folders(tmp_path / "data" / "prepared")) == 1


@given(
    values=st.lists(
        st.one_of(st.integers(0, 300), st.integers(0, 70_000), st.integers(0, 2**31 - 1)),
        min_size=1,
        max_size=12,
    )
)
def test_the_smallest_type_that_holds_all_values(tmp_path: Path, values: list[int]) -> None:
    path = tmp_path / "values.npy"
    path.unlink(missing_ok=True)
    write_samples(path, (np.array([[v, 0]]) for v in values), len(values))
    read = np.load(path, allow_pickle=False)
    assert read[:, 0, 0].tolist() == values
    expected = next(t for t in (np.uint8, np.int16, np.int32) if max(values) <= np.iinfo(t).max)
    assert read.dtype == expected
    assert [p.name for p in tmp_path.iterdir()] == ["values.npy"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([np.zeros((2, 2), int), np.zeros((2, 3), int)], "must have one shape"),
        ([np.zeros((2, 2), int)], "2 labels need as many samples, got 1"),
        ([np.zeros((2, 2), int)] * 3, "2 labels need as many samples, got 3"),
        ([np.array([[-1]])] * 2, "must be 0 to 2"),
        ([np.array([[2**31]])] * 2, "must be 0 to 2"),
    ],
)
def test_samples_that_do_not_fit(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_samples(tmp_path / "values.npy", data, 2)


def test_a_change_makes_it_anew(tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"one")
    cache = tmp_path / "cache"
    prepare(cache, sources=[source])
    prepare(cache, untouchable(), sources=[source])
    prepare(cache, sources=[source], parameters={"T": 5})
    assert len(folders(cache)) == 2
    source.write_bytes(b"three")
    arrays, _ = prepare(cache, samples(2), sources=[source])
    np.testing.assert_array_equal(arrays["train"].inputs.numpy(), np.stack(samples(2)))
    os.utime(source, (1, 1))
    prepare(cache, samples(3), sources=[source])
    assert len(folders(cache)) == 4


@pytest.mark.parametrize("harm", ["truncated", "lost", "no manifest", "half a manifest", "another"])
def test_damage_makes_it_anew(tmp_path: Path, harm: str) -> None:
    prepare(tmp_path)
    (folder,) = folders(tmp_path)
    inputs, manifest = folder / "train_inputs.npy", folder / "manifest.json"
    if harm == "truncated":
        inputs.write_bytes(inputs.read_bytes()[:-1])
    elif harm == "lost":
        inputs.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "half a manifest":
        manifest.write_bytes(manifest.read_bytes()[:50])
    else:
        manifest.write_text("[1, 2]")
    arrays, _ = prepare(tmp_path, samples(2))
    np.testing.assert_array_equal(arrays["train"].inputs.numpy(), np.stack(samples(2)))
    prepare(tmp_path, untouchable())


def test_an_error_while_decoding_leaves_nothing(tmp_path: Path) -> None:
    def damaged() -> Iterator[NDArray[Any]]:
        yield samples()[0]
        raise ValueError("picture.png: not a picture")

    with pytest.raises(ValueError, match="not a picture"):
        prepare(tmp_path, damaged())
    assert [path.name for path in tmp_path.iterdir()] == [".things.lock"]


def test_a_missing_source_is_not_blamed_on_the_cache(tmp_path: Path) -> None:
    def missing() -> Iterator[NDArray[Any]]:
        yield np.frombuffer((tmp_path / "gone.bin").read_bytes())

    with pytest.raises(FileNotFoundError, match=r"gone\.bin"):
        prepare(tmp_path / "cache", missing())


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"cannot keep prepared data of things .*options\.cache"):
        prepare(tmp_path / "cache")


def test_a_full_disk(tmp_path: Path) -> None:
    def large() -> Iterator[NDArray[Any]]:
        for _ in LABELS:
            yield np.zeros((1, 1, 1 << 16), np.uint8)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot keep prepared data of things"):
            prepare(tmp_path, large())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folders(tmp_path) == []
    assert list(tmp_path.glob(".*.tmp")) == []


PROCESS = """
import sys, time
import numpy as np
from eisnn.data.cache import Part, prepared

def samples():
    for i in range(40):
        print(i, flush=True)
        time.sleep(float(sys.argv[2]))
        yield np.full((1, 64, 64), 7 * i)

arrays, _ = prepared("things", {"train": Part([0] * 40, samples())}, scale=1, parameters={"T": 4},
                     sources=[], cache=sys.argv[1])
assert arrays["train"].inputs[:, 0, 0, 0].tolist() == [7 * i for i in range(40)]
print("done", flush=True)
"""


def start(cache: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROCESS, str(cache), str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize("decoded", [1, 20, 40])  # 255 is passed, and the file widened, at 37
def test_killed_on_the_way(tmp_path: Path, decoded: int) -> None:
    with start(tmp_path, 0.005) as process:
        assert process.stdout is not None
        for _ in range(decoded):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    complete = folders(tmp_path)
    left_over = list(tmp_path.glob(".*.tmp"))
    assert len(left_over) == 1
    assert complete == []
    arrays, _ = prepared(
        "things",
        {"train": Part([0] * 40, (np.full((1, 64, 64), 7 * i) for i in range(40)))},
        scale=1,
        parameters={"T": 4},
        sources=[],
        cache=tmp_path,
    )
    assert arrays["train"].inputs[:, 0, 0, 0].tolist() == [7 * i for i in range(40)]
    assert list(tmp_path.glob(".*.tmp")) == []
    assert len(folders(tmp_path)) == 1


def test_two_processes_at_once(tmp_path: Path) -> None:
    with start(tmp_path, 0.02) as first, start(tmp_path, 0.02) as second:
        outputs = []
        for process in (first, second):
            assert process.stdout is not None
            outputs.append(process.stdout.read())
    assert first.returncode == second.returncode == 0
    assert sorted(len(output.splitlines()) for output in outputs) == [1, 41]
    assert len(folders(tmp_path)) == 1
