"""The rules of eisnn.optim in a training run: wired, continued exactly, the same on two devices."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
from test_survival import assert_same_outcome, outcome, start, wait_for

from eisnn.training.checkpoint import read_checkpoint
from eisnn.training.evaluate import evaluate
from eisnn.training.recipe import load_recipe
from eisnn.training.run import resume, train
from eisnn.training.trained import load_trained

RULES = [
    "data.augmentation=flip",
    "model.name=mlp4",
    "model.width=0.1",
    "training.epochs=4",
    "optimiser.lr=0.1",
    "optimiser.agc=0.03",
    "optimiser.centre=true",
    "optimiser.homeostasis=0.1",
    "optimiser.tonic=1",
]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "run"
    train(load_recipe("digits", RULES), folder, progress=False)
    return folder


def test_a_signal_and_a_resume_lead_to_the_same_bits(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start("digits", *RULES, "--out", str(folder))
    wait_for(folder / "metrics.csv", process)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    resume(folder, progress=False)
    assert_same_outcome(folder, uninterrupted)


def test_statistics_are_kept_and_the_kept_network_is_the_one_that_was_tested(
    uninterrupted: Path,
) -> None:
    weights, _ = outcome(uninterrupted)
    assert weights["body.linear1.homeostasis.mean"].abs().max() > 0
    summary = json.loads((uninterrupted / "summary.json").read_text())
    assert summary["test_accuracy"] > 0.3  # chance is 0.1
    found = evaluate(load_trained(uninterrupted))
    assert found.top1 == pytest.approx(summary["test_accuracy"], abs=1e-6)


def test_the_recipe_says_whether_the_output_layer_is_clipped(tmp_path: Path) -> None:
    few = [*RULES[:5], "training.epochs=1", "data.train_samples=64", "optimiser.warmup_epochs=0"]
    few.append("optimiser.agc=0.0001")
    train(load_recipe("digits", few), tmp_path / "without", progress=False)
    train(
        load_recipe("digits", [*few, "optimiser.agc_outputs=true"]),
        tmp_path / "with",
        progress=False,
    )
    names = [name for name in outcome(tmp_path / "with")[0] if name.endswith("weight_ee")]
    free, clipped = (outcome(tmp_path / kind)[0][names[-1]] for kind in ("without", "with"))
    assert not torch.equal(free, clipped)


@pytest.mark.parametrize("rule", ["agc=0.0001", "centre=true", "homeostasis=0.1"])
def test_each_rule_alone_changes_the_training(rule: str, tmp_path: Path) -> None:
    few = [*RULES[:5], "training.epochs=1", "data.train_samples=64", "optimiser.warmup_epochs=0"]
    train(load_recipe("digits", few), tmp_path / "without", progress=False)
    train(load_recipe("digits", [*few, f"optimiser.{rule}"]), tmp_path / "with", progress=False)
    name = "body.linear1.weight_ee"
    assert not torch.equal(
        outcome(tmp_path / "with")[0][name], outcome(tmp_path / "without")[0][name]
    )


def test_two_devices_give_the_same_parameters_and_statistics_as_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    options = [*RULES, "training.epochs=1", "training.accelerator=cpu", "data.augmentation=none"]
    train(load_recipe("digits", options), one, progress=False)
    process = start("digits", *options, "--devices", "2", "--out", str(two))
    _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    single, double = (read_checkpoint(f / "checkpoints" / "last.ckpt") for f in (one, two))
    for name, value in single["state_dict"].items():
        torch.testing.assert_close(
            double["state_dict"][name], value, rtol=1e-3, atol=1e-5, msg=name
        )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimiser.agc=0"], "optimiser.agc must be > 0 or null, got 0"),
        (["optimiser.homeostasis=2"], "optimiser.homeostasis must be above 0 and at most 1"),
        (
            ["optimiser.agc_outputs=true"],
            "optimiser.agc_outputs must be false without optimiser.agc",
        ),
        (["optimiser.tonic=1"], "optimiser.tonic must be 0 without optimiser.homeostasis"),
        (["twins.bn.agc=0.1"], "twins.bn.agc must be left out: it is for E-I networks"),
        (["model.norm=bn", "optimiser.centre=true"], "optimiser.centre must be left out"),
        (["optimiser.centre=1"], "optimiser.centre must be true or false, got 1"),
    ],
)
def test_rules_that_do_not_fit_are_errors(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("digits", overrides)
