"""The command line, as a user types it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from eisnn.cli import main
from eisnn.training.recipe import list_recipes


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "eisnn.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100"},
    )


def test_help_answers_without_waiting_for_torch() -> None:
    started = time.perf_counter()
    result = run("--help")
    assert result.returncode == 0
    assert "eisnn train digits" in result.stdout
    loaded = "import eisnn.cli, sys; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout
    assert out == "False\n", f"took {time.perf_counter() - started:.1f} s"


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "evaluate",
        "predict",
        "report",
        "figures",
        "depth",
        "ablate",
        "recipes",
        "memory",
        "doctor",
    ],
)
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"example: eisnn {command}" in capsys.readouterr().out


def test_a_reader_that_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "eisnn.cli", "recipes"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--long"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert set(list_recipes()) <= set(rows)
    assert rows["cifar10-vgg8"].split()[:7] == [
        *("cifar10-vgg8", "cifar10", "vgg8", "ei", "4", "300", "87.03"),
    ]
    assert "    CIFAR-10 with an E-I VGG-8, as in the published run\n" in out


def test_print_config_shows_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--print-config", "model.T=8"]) == 0
    out = capsys.readouterr().out
    assert "T: 8" in out
    assert "lr:" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "digit"], "Did you mean 'digits'"),
        (["train", "digits", "modle.T=8"], "Did you mean 'model.T'"),
        (["train", "digits", "model.name=vgg9"], "Did you mean"),
    ],
)
def test_mistakes_are_told_and_give_a_failing_exit_code(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if arguments[0] == "train":
        arguments += ["--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["training.epochs=14"], "training.epochs=14"),
        (
            ["digits", "model.T=8", "--compare", "--devices", "2"],
            "digits model.T=8 --compare --dev",
        ),
        (
            ["--out", "elsewhere", "--print-config", "--select-on-test"],
            "--out --select-on-test --p",
        ),
    ],
)
def test_resume_takes_no_other_options(
    arguments: list[str], given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", "runs/digits", *arguments]) == 2
    err = capsys.readouterr().err
    assert "continues a run as it was started and takes no other options" in err
    assert f"leave out {given}" in err
    assert "eisnn train runs/digits/config.yaml KEY=VALUE" in err
    assert main(["train"]) == 2
    assert "give a recipe to train, or --resume RUN" in capsys.readouterr().err


def test_resume_on_a_folder_of_runs_lists_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_folder in ("one", "compared/ei", "compared/bn"):
        (tmp_path / run_folder).mkdir(parents=True)
        (tmp_path / run_folder / "config.yaml").touch()
    assert main(["train", "--resume", str(tmp_path)]) == 2
    runs = [str(tmp_path / name) for name in ("compared/bn", "compared/ei", "one")]
    assert f"holds several runs. Choose one of: {', '.join(runs)}" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path / "none")]) == 2
    assert "none holds no run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["digits", "data.root=."], "digits comes with scikit-learn and takes no data.root"),
        (["image-folder-small"], "give it as data.root=FOLDER (root= in Python)"),
        (["image-folder-small", "data.root=typo"], "there is no folder typo"),
        (
            ["digits", "training.accelerator=abacus"],
            "training.accelerator=abacus with training.devices=1",
        ),
        (["digits", "model.name=vgg8"], "Set data.options.pad_to=32"),
        (
            ["digits", "training.accelerator=cpu", "training.precision=float16"],
            "training.precision=float16 needs a GPU",
        ),
        (["nmnist-small", "data.augmentation=flop"], "no augmentation 'flop'"),
        (["nmnist-small", "model.surrogate=step"], "got 'step'"),
        (["digits", "data.name=nmnist"], "model.T must be the number of frames of nmnist, 10"),
        (["digits", "data.options.seed=a"], "data.options.seed (seed= in Python) must be int"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(
    overrides: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *overrides, "--out", "run"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_of_train_tells_of_pictures_of_ones_own() -> None:
    assert "eisnn train image-folder-small data.root=FOLDER" in " ".join(
        run("train", "--help").stdout.split()
    )


def test_a_missing_library_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "eisnn.training.recipe", None)
    assert main(["train", "digits"]) == 2
    assert "pip install 'eisnn[train]'" in capsys.readouterr().err


def test_unknown_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "digits", "--epochs", "3"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "unrecognized arguments: --epochs 3. Fields of a recipe are written KEY=VALUE" in err


def test_train_digits_from_the_shell(tmp_path: Path) -> None:
    result = run(
        "train", "digits", "model.name=mlp2", "model.width=0.1", "training.epochs=1", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "% of the test set" in result.stdout
    assert (tmp_path / "runs" / "digits" / "weights.safetensors").exists()


def test_doctor_names_versions_and_backends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"torch {torch.__version__}" in printed
    assert "backend: " in printed
    assert "not triton: " in printed


def test_doctor_says_who_asked_for_a_backend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EISNN_BACKEND", "torch")
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "backend: torch" in printed
    assert "asked for by EISNN_BACKEND=torch" in printed
    assert "gradients of 3x3 convolutions: PyTorch's, as the backend is not native" in printed
    monkeypatch.setenv("EISNN_BACKEND", "tritom")
    assert main(["doctor"]) == 0
    assert "must be one of native, triton, torch, got 'tritom'" in capsys.readouterr().out


def test_memory_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    def mebibytes(what: str, *options: str) -> float:
        assert main(["memory", *options]) == 0
        (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith(what))
        return float(line.split()[-2].replace(",", ""))

    small = ["cifar10-vgg8", "model.width=0.1", "training.batch_size=8", "--input", "3", "32", "32"]
    long = [*small, "model.T=16"]
    kept, peak = "kept for the backward pass", "most at any time"
    assert mebibytes(peak, *long) > 2 * mebibytes(peak, *small)
    assert mebibytes(kept, *long, "model.recompute=true") < 0.7 * mebibytes(kept, *long)
    assert mebibytes(peak, "digits") > 0  # from the data themselves
    events = ["dvs-gesture-vgg8", "model.width=0.1", "training.batch_size=8"]
    events += ["--input", "2", "32", "32"]  # each frame passes the first layer
    assert mebibytes(kept, *events) > 1.2 * mebibytes(kept, *long)


def test_memory_refuses_a_shape_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "cifar10-vgg8", "--input", "3", "0", "32"]) == 2
    assert "three positive sizes, C H W, got [3, 0, 32]" in capsys.readouterr().err
