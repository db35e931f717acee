"""Loggers besides metrics.csv: found missing early, one run for each network."""

import json
from pathlib import Path

import pytest

from eisnn.cli import main
from eisnn.training import loggers

SMALL = ["model.name=mlp2", "model.width=0.1", "training.epochs=1", "data.train_samples=64"]


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_a_library_that_is_missing_is_told_before_a_run_begins(
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    out = tmp_path / "run"
    assert main(["train", "digits", *SMALL, f"training.logger={kind}", "--out", str(out)]) == 2
    assert f"pip install 'eisnn[{kind}]'" in capsys.readouterr().err
    assert not out.exists()


def test_tensorboard_gets_the_metrics(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "run"
    assert main(["train", "digits", *SMALL, "training.logger=tensorboard", "--out", str(out)]) == 0
    log = events.EventAccumulator(str(out / "tensorboard")).Reload()
    assert {"train_loss", "val_accuracy", "test_accuracy", "rate/lif1"} <= set(
        log.Tags()["scalars"]
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_gets_a_run_for_each_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = tmp_path / "both"
    options = [*SMALL, "training.logger=wandb", "--compare", "--out", str(out)]
    assert main(["train", "digits", *options]) == 0
    numbers = {(out / norm / "wandb-id").read_text() for norm in ("ei", "bn", "none")}
    assert len(numbers) == 3
    assert wandb.run is None
    for norm in ("ei", "bn", "none"):
        number = (out / norm / "wandb-id").read_text()
        (run,) = (out / norm / "wandb").glob(f"offline-run-*-{number}")
        assert (run / f"run-{number}.wandb").stat().st_size > 0
    assert json.loads((out / "ei" / "summary.json").read_text())["epoch"] == 1
