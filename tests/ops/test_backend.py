"""The choice of a backend: automatic, overridable, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from eisnn import ops

CPU = torch.device("cpu")

needs_compiler = pytest.mark.skipif(
    ops.unavailable("native", CPU) is not None, reason="no C compiler"
)

STEP = """
import torch, eisnn
from eisnn import ops
torch.manual_seed(0)
model = eisnn.create_model("mlp2", num_classes=3, image_size=4, width=0.1)
eisnn.ei_init_(model, torch.rand(8, 3, 4, 4))
out = model(torch.ones(2, 3, 4, 4))
out.sum().backward()
print(ops.backend_for(torch.device("cpu")), ops.unavailable("native", torch.device("cpu")))
print([round(x, 4) for x in out[0].tolist()])
"""


def fresh(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", STEP],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_a_compiler_plain_torch_runs_and_gives_the_same(tmp_path: Path) -> None:
    without = fresh(CC="/no/such/compiler", EISNN_CACHE=str(tmp_path))
    backend, numbers = without.stdout.splitlines()
    assert backend.startswith("torch no C compiler was found")
    assert list(tmp_path.iterdir()) == []
    assert fresh().stdout.splitlines()[1] == numbers


@needs_compiler
def test_a_compiler_that_fails_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "out of order" >&2\nexit 1\n'
    )
    broken.chmod(0o755)
    done = fresh(CC=str(broken), EISNN_CACHE=str(tmp_path / "cache"))
    assert done.stdout.startswith("torch ")
    assert "out of order" in done.stdout
    assert list((tmp_path / "cache").iterdir()) == []


@needs_compiler
def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = fresh(EISNN_CACHE=str(tmp_path / "file" / "cache"))
    assert done.stdout.startswith("torch ")


@needs_compiler
def test_the_library_is_compiled_once_also_by_processes_at_the_same_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: fresh(EISNN_CACHE=str(tmp_path)), range(3)))
    assert [run.stdout.split()[0] for run in runs] == ["native"] * 3
    (library,) = tmp_path.iterdir()
    before = library.stat()
    assert fresh(EISNN_CACHE=str(tmp_path)).stdout.startswith("native")
    assert library.stat() == before


@needs_compiler
def test_a_damaged_library_is_no_obstacle(tmp_path: Path) -> None:
    fresh(EISNN_CACHE=str(tmp_path))
    (library,) = tmp_path.iterdir()
    library.write_bytes(library.read_bytes()[:100])
    done = fresh(EISNN_CACHE=str(tmp_path))
    assert done.returncode == 0
    assert done.stdout.startswith("torch ")


def test_the_environment_overrides_the_choice() -> None:
    assert fresh(EISNN_BACKEND="torch").stdout.startswith("torch ")
    done = fresh(EISNN_BACKEND="fortran")
    assert "must be one of native, triton, torch, got 'fortran'" in done.stderr
    assert done.returncode != 0


def test_a_block_overrides_the_choice_and_ends() -> None:
    chosen = ops.backend_for(CPU)
    with ops.use_backend("torch"):
        assert ops.backend_for(CPU) == "torch"
    assert ops.backend_for(CPU) == chosen
    with pytest.raises(KeyError), ops.use_backend("torch"):
        raise KeyError
    assert ops.backend_for(CPU) == chosen
    with pytest.raises(ValueError, match="must be one of"), ops.use_backend("fortran"):
        pass


def test_what_was_asked_for_and_cannot_run_is_an_error_not_something_else() -> None:
    with ops.use_backend("native"), pytest.raises(RuntimeError, match="in float32, not"):
        ops.backend_for(CPU, torch.float64)
    assert ops.backend_for(CPU, torch.float64) == "torch"
    assert ops.backend_for(torch.device("meta")) == "torch"
