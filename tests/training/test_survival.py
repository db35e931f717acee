"""Runs survive signals, kills, full disks and bad files, and end as if nothing had happened."""

import csv
import errno
import gc
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import eisnn
from eisnn.cli import main
from eisnn.data import DataSource, load_data
from eisnn.training import checkpoint as checkpoint_module
from eisnn.training import run as run_module
from eisnn.training.checkpoint import AtomicCheckpointIO, read_checkpoint
from eisnn.training.recipe import load_recipe
from eisnn.training.run import resume, train
from eisnn.training.survival import (
    Interrupted,
    NonFiniteError,
    NonFiniteWatch,
    first_non_finite,
)

SMALL = [
    "data.augmentation=flip",
    "model.name=mlp4",
    "model.width=0.1",
    "training.epochs=6",
    "optimiser.lr=0.02",
]
CHATTY = "training.checkpoint_minutes=1e-9"  # a checkpoint after every step
TIMES = ("seconds", "samples_per_second")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "eisnn.cli", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not path.exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, str]]]:
    with (folder / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
    return load_file(folder / "weights.safetensors"), rows


def assert_same_outcome(folder: Path, reference: Path) -> None:
    (weights, rows), (weights_0, rows_0) = outcome(folder), outcome(reference)
    assert rows == rows_0
    assert all(torch.equal(weights[key], weights_0[key]) for key in weights_0)
    last, last_0 = (read_checkpoint(f / "checkpoints" / "last.ckpt") for f in (folder, reference))
    momenta, momenta_0 = (
        [state["momentum_buffer"] for state in c["optimizer_states"][0]["state"].values()]
        for c in (last, last_0)
    )
    assert all(torch.equal(m, m_0) for m, m_0 in zip(momenta, momenta_0, strict=True))
    assert last["lr_schedulers"] == last_0["lr_schedulers"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "run"
    process = start("digits", *SMALL, "--out", str(folder))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return folder


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_writes_a_checkpoint_and_the_run_continues_exactly(
    number: int, code: int, uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start("digits", *SMALL, "--out", str(folder))
    wait_for(folder / "metrics.csv", process)  # the first epoch is over
    time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"eisnn train --resume {folder}" in err
    assert not (folder / "weights.safetensors").exists()
    resume(folder, progress=False)
    assert_same_outcome(folder, uninterrupted)


def test_a_signal_between_accumulated_batches_lets_the_step_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("digits", [*SMALL, "training.epochs=2", "training.accumulate=3"])
    train(recipe, tmp_path / "reference", progress=False)
    look = NonFiniteWatch.on_train_batch_start

    def interrupt(self: Any, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        look(self, trainer, module, batch, batch_idx)
        if trainer.current_epoch == 0 and batch_idx == 6:  # the first of three
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(NonFiniteWatch, "on_train_batch_start", interrupt)
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run", progress=False)
    resume(tmp_path / "run", progress=False)
    assert_same_outcome(tmp_path / "run", tmp_path / "reference")


def test_kill_9_at_random_moments_loses_nothing_that_matters(
    uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start("digits", *SMALL, CHATTY, "--out", str(folder))
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    draw = random.Random(0)
    for _ in range(3):  # within the epoch, often within the writing of a checkpoint
        time.sleep(draw.uniform(0, 0.6))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        read_checkpoint(folder / "checkpoints" / "last.ckpt")  # whole, whatever happened
        before = (folder / "checkpoints" / "last.ckpt").stat().st_mtime_ns
        process = start("--resume", str(folder))
        while (folder / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.02)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert_same_outcome(folder, uninterrupted)


def test_a_run_killed_before_its_first_checkpoint_starts_over(
    uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", "activity.json"):
        (folder / name).write_bytes((uninterrupted / name).read_bytes())
    resume(folder, progress=False)
    assert_same_outcome(folder, uninterrupted)


def test_resuming_a_finished_run_changes_nothing(uninterrupted: Path) -> None:
    before = outcome(uninterrupted)
    resume(uninterrupted, progress=False)
    after = outcome(uninterrupted)
    assert before[1] == after[1]
    assert all(torch.equal(before[0][key], after[0][key]) for key in before[0])


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/eisnn-was-here",)


@pytest.mark.parametrize(
    "kind", ["truncated", "garbage", "empty", "bomb", "packed bomb", "a changed bit", "foreign"]
)
def test_a_bad_checkpoint_is_a_clear_error_and_is_not_executed(
    kind: str, uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "activity.json"):
        (folder / name).write_bytes((uninterrupted / name).read_bytes())
    last = folder / "checkpoints" / "last.ckpt"
    whole = (uninterrupted / "checkpoints" / "last.ckpt").read_bytes()
    flipped = bytes([whole[len(whole) // 2] ^ 1])
    if kind == "foreign":
        torch.save({"weights": torch.zeros(3)}, last)
    elif kind == "packed bomb":
        torch.save({"state_dict": Bomb()}, last)
    else:
        content = {
            "truncated": whole[: len(whole) // 2],
            "a changed bit": whole[: len(whole) // 2] + flipped + whole[len(whole) // 2 + 1 :],
            "garbage": bytes(range(256)) * 8,
            "empty": b"",
            "bomb": pickle.dumps({"state_dict": Bomb()}),
        }
        last.write_bytes(content[kind])
    assert main(["train", "--resume", str(folder)]) == 2
    message = capsys.readouterr().err
    assert str(last) in message
    assert "Delete it" in message
    assert message.count("\n") == 1
    assert "weights_only" not in message
    assert not Path("/tmp/eisnn-was-here").exists()


def test_a_failed_write_leaves_the_old_checkpoint_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"state_dict": {"a": torch.ones(2)}}, path)

    def full_disk(content: Any, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_module.torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        io.save_checkpoint({"state_dict": {"a": torch.zeros(2)}}, path)
    assert read_checkpoint(path)["state_dict"]["a"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_cannot_be_written_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    out = str(tmp_path / "file" / "run")
    assert main(["train", "digits", *SMALL, "--out", out]) == 2
    assert out in capsys.readouterr().err


def test_resume_says_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path), "--compare"]) == 2
    assert "no other options" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert "give a recipe" in capsys.readouterr().err


def test_a_non_finite_loss_names_the_layer_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    recipe = load_recipe("digits", [*SMALL, "model.norm=none", "optimiser.lr=1e38"])
    with pytest.raises(NonFiniteError, match=r"It begins in the output of layer linear1"):
        train(recipe, tmp_path / "run", progress=False)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert not last.exists()  # none had been written, and none was written for the broken weights


def test_a_non_finite_loss_fails_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*SMALL, "model.norm=none", "optimiser.lr=1e38", "--out", str(tmp_path / "run")]
    assert main(["train", "digits", *options]) == 1
    assert "linear1" in " ".join(capsys.readouterr().err.split())


def test_the_first_non_finite_layer_is_found() -> None:
    model = eisnn.create_model("mlp4", num_classes=3, in_channels=1, image_size=4, width=0.1)
    x = torch.rand(4, 1, 4, 4)
    eisnn.ei_init_(model, x)
    assert "Every layer's output is finite" in first_non_finite(model, x)
    with torch.no_grad():
        model.get_submodule("body.linear2").bias[0] = torch.nan  # type: ignore[index,union-attr]
    assert "in the output of layer linear2" in first_non_finite(model, x)
    assert "body.linear2.bias" in first_non_finite(model, x)
    assert "The batch itself" in first_non_finite(model, x / 0)


def test_a_silent_layer_is_warned_about_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = load_recipe(
        "digits", ["model.norm=none", "training.epochs=1", "model.width=0.2", "optimiser.lr=0.01"]
    )
    with caplog.at_level(logging.WARNING, "eisnn"):
        train(recipe, tmp_path / "run", progress=False)
    assert "layer lif7 is silent" in caplog.text


def test_two_devices_give_the_same_parameters_as_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    options = [*SMALL, "training.epochs=1", "training.accelerator=cpu"]
    options += ["data.augmentation=none"]  # each device draws its own
    options += ["data.train_samples=643"]  # later on, rounding flips a spike somewhere
    train(load_recipe("digits", options), one, progress=False)
    process = start("digits", *options, "--devices", "2", "--out", str(two))
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    single, double = (read_checkpoint(f / "checkpoints" / "last.ckpt") for f in (one, two))
    for name, value in single["state_dict"].items():
        torch.testing.assert_close(double["state_dict"][name], value, rtol=1e-4, atol=1e-6)
    (_, rows), (_, rows_2) = outcome(one), outcome(two)
    assert float(rows[0]["train_loss"]) == pytest.approx(float(rows_2[0]["train_loss"]), rel=1e-4)


def test_early_stopping_clipping_accumulation_and_bfloat16_work_together(tmp_path: Path) -> None:
    recipe = load_recipe(
        "digits",
        [
            *SMALL,
            "optimiser.lr=1e-9",
            "training.patience=1",
            "training.gradient_clip=1.0",
            "training.accumulate=2",
            "training.precision=bfloat16",
        ],
    )
    result = train(recipe, tmp_path / "run", progress=False)
    assert len(result.history) == 2  # nothing improves at this learning rate


def test_selecting_on_the_test_set_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    options = [*SMALL, "training.epochs=1", "--select-on-test", "--out", out]
    assert main(["train", "digits", *options]) == 0
    assert "chosen ON THE TEST SET" in " ".join(capsys.readouterr().out.split())
    assert '"selected_on_test": true' in (tmp_path / "run" / "summary.json").read_text()


def test_after_a_run_signals_act_as_before_and_its_data_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[DataSource]] = []

    def load(*args: Any, **kwargs: Any) -> DataSource:
        source = load_data(*args, **kwargs)
        made.append(weakref.ref(source))
        return source

    monkeypatch.setattr(run_module, "load_data", load)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    train(load_recipe("digits", [*SMALL, "training.epochs=1"]), tmp_path / "run", progress=False)
    assert [signal.getsignal(number) for number in numbers] == before
    gc.collect()
    assert [source() for source in made] == [None]
