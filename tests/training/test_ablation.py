"""Ablations at the smallest scale: the runs, what is not repeated, what went wrong, the table."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from eisnn.cli import main
from eisnn.data import load_data
from eisnn.nn import CircuitOptions, EIModule
from eisnn.training import ablation
from eisnn.training.ablation import VARIANTS, ablate, variant_recipe, variants_of
from eisnn.training.ablation_cost import StepCost, step_costs
from eisnn.training.ablation_table import Outcome, summarise
from eisnn.training.recipe import Recipe, load_recipe
from eisnn.training.trained import load_trained

TINY = [
    "model.name=mlp4",
    "model.width=0.05",
    "training.epochs=1",
    "training.dynamics=false",
    "data.train_samples=64",
    "data.options.test_fraction=0.05",
    "optimiser.lr=0.01",
]
CHOSEN = ["no-stabilisation", "no-dale"]


def tiny(*overrides: str) -> Recipe:
    return load_recipe("digits", [*TINY, *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds; in a network this narrow some samples are silent: without stabilisation, NaN."""
    folder = tmp_path_factory.mktemp("ablation") / "out"
    ablate(tiny(), folder, [0, 1], CHOSEN)
    return folder


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "ablation.csv").open() as file:
        return {row["variant"]: row for row in csv.DictReader(file)}


def test_each_run_is_a_run_folder_and_the_table_is_of_them(folder: Path) -> None:
    rows = table(folder)
    assert list(rows) == ["full", "no-stabilisation", "no-dale"]
    for name in ("full", "no-dale"):
        accuracies = []
        for seed in (0, 1):
            run = folder / name / f"seed-{seed}"
            assert load_recipe(str(run / "config.yaml")).training.seed == seed
            summary = json.loads((run / "summary.json").read_text())
            accuracies.append(100 * summary["test_accuracy"])
        assert rows[name]["n"] == "2"
        assert float(rows[name]["mean"]) == pytest.approx(statistics.fmean(accuracies))
        assert float(rows[name]["std"]) == pytest.approx(statistics.stdev(accuracies))
        assert rows[name]["accuracies"] == " ".join(f"{a:.2f}" for a in accuracies)
    assert float(rows["full"]["difference"]) == 0
    assert (folder / "ablation.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "ablation.md").read_text()
    for name in rows:
        assert f"| {name} | " in text
    assert f"{float(rows['full']['mean']):.2f} ± {float(rows['full']['std']):.2f}" in text


def test_a_failure_is_recorded_and_the_others_go_on(folder: Path) -> None:
    row = table(folder)["no-stabilisation"]
    assert (row["n"], row["mean"], row["non_finite"]) == ("0", "", "2")
    for seed in (0, 1):
        run = folder / "no-stabilisation" / f"seed-{seed}"
        assert "the loss is nan" in json.loads((run / "failure.json").read_text())["reason"]
    assert "non-finite 2/2" in (folder / "ablation.md").read_text()


def test_what_is_there_is_not_repeated_and_what_is_not_is_continued(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = table(folder)
    run = folder / "no-dale" / "seed-1"
    for name in ("summary.json", "weights.safetensors"):  # as if it had been stopped
        (run / name).unlink()
    resumed: list[Path] = []
    resume = ablation.resume
    monkeypatch.setattr(
        ablation, "resume", lambda folder, **k: resumed.append(folder) or resume(folder, **k)
    )
    monkeypatch.delattr(ablation, "train")  # whoever starts anew fails
    lines: list[str] = []
    recipe = tiny()
    ablate(recipe, folder, [0, 1], CHOSEN, report=lines.append)
    assert resumed == [run]
    costs = {field.name for field in fields(StepCost)}
    for name, row in table(folder).items():
        assert {k: v for k, v in row.items() if k not in costs} == {
            k: v for k, v in before[name].items() if k not in costs
        }
    assert any(
        line.startswith("[5/6] no-stabilisation, seed 1: non-finite: the loss is") for line in lines
    )


def test_a_folder_with_other_settings_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"full/seed-0 holds a run with other settings.*--out"):
        ablate(tiny("optimiser.lr=0.02"), folder, [0], CHOSEN)


def test_the_loaded_network_has_the_options_of_its_run(folder: Path) -> None:
    run = folder / "no-dale" / "seed-0"
    trained = load_trained(run)
    layers = [m for m in trained.model.modules() if isinstance(m, EIModule)]
    assert [layer.options for layer in layers] == [CircuitOptions(dale=False)] * 4
    source = load_data("digits", test_fraction=0.05)
    images, labels = source.test.batch(range(len(source.test)))
    accuracy = (trained.logits(images).argmax(1) == labels).double().mean().item()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["test_accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_circuits_start_from_the_same_weights_apart_from_their_initialisation(
    tmp_path: Path,
) -> None:
    names = ["divisive-only", "kaiming-init"]
    still = tiny("optimiser.lr=1e-30", "optimiser.weight_decay=0", "optimiser.warmup_epochs=0")
    ablate(still, tmp_path, [0], names)

    def weights(name: str) -> dict[str, torch.Tensor]:
        return load_file(tmp_path / name / "seed-0" / "weights.safetensors")

    full = weights("full")
    for name in names:
        same = all(torch.allclose(value, full[key]) for key, value in weights(name).items())
        assert same == (name == "divisive-only")


# -- the variants --------------------------------------------------------------------------------


def test_each_variant_changes_one_thing() -> None:
    recipe = tiny("model.circuit.epsilon=1e-3")
    full = variant_recipe(recipe, "full", 3)
    assert full == replace(recipe, training=replace(recipe.training, seed=3), twins={})
    for name in variants_of(recipe)[1:]:
        one = variant_recipe(recipe, name, 3)
        changed = {
            key
            for config, other in ((one.model, full.model), (one.model.circuit, full.model.circuit))
            for key in (field.name for field in fields(config))
            if key != "circuit" and getattr(config, key) != getattr(other, key)
        }
        assert len(changed) == 1, name
        assert one.training == full.training
        assert one.data == full.data
        assert one.optimiser == recipe.twins.get(one.model.norm, recipe.optimiser)
    assert variant_recipe(recipe, "fixed-epsilon", 0).model.circuit.epsilon == 1e-3


def test_variants_come_in_order_with_the_full_method_first() -> None:
    assert variants_of(tiny()) == list(VARIANTS)
    assert variants_of(tiny(), ["none", "no-ste"]) == ["full", "no-ste", "none"]
    without = replace(tiny(), twins={})
    assert set(VARIANTS) - set(variants_of(without)) == {"bn", "none"}
    with pytest.raises(ValueError, match=r"no variant 'bn' \(the recipe has no twins\.bn\)"):
        variants_of(without, ["bn"])
    with pytest.raises(ValueError, match=r"no variant 'no-sta'\. There are: full, kaiming-init"):
        variants_of(tiny(), ["no-sta"])
    with pytest.raises(ValueError, match=r"needs model\.norm=ei, got bn"):
        variants_of(tiny("model.norm=bn"))
    with pytest.raises(ValueError, match="starts from the full method"):
        variants_of(tiny("model.circuit.dale=false"))


# -- the table -----------------------------------------------------------------------------------


def test_the_rows_say_what_went_wrong() -> None:
    outcomes = [
        Outcome("full", 0, 0.90, (), None),
        Outcome("full", 1, 0.80, (), None),
        Outcome("full", 2, None, (), "the loss is nan"),
        Outcome("worse", 0, 0.70, (), None),
        Outcome("worse", 1, 0.16, ("lif3",), None),  # 0.1 + 3 * 0.03 = 0.19: chance
        Outcome("worse", 2, 0.20, (), None),  # above it
        Outcome("gone", 0, None, (), "the loss is inf"),
    ]
    cost = StepCost(1.0, 2.0, 30, 40, 0.5)
    words = {"full": "nothing", "worse": "something", "gone": "all"}
    full, worse, gone = summarise(outcomes, words, 10, 100, dict.fromkeys(words, cost))
    assert (full.n, full.mean, full.difference) == (2, pytest.approx(85), 0)
    assert full.std == pytest.approx(statistics.stdev([90, 80]))
    assert full.problems == "non-finite 1/3"
    assert worse.difference == pytest.approx((-20 - 64) / 2)  # seed 2 has nothing beside it
    assert worse.problems == "silent 1/3, chance 1/3"
    assert (gone.n, gone.mean, gone.std, gone.difference) == (0, None, None, None)
    assert gone.problems == "non-finite 1/1"


def test_costs_are_of_the_same_step_fused_and_not() -> None:
    recipe = tiny()
    names = ("full", "no-ste", "no-gradient-scaling", "bn")
    costs = step_costs({name: variant_recipe(recipe, name, 0) for name in names}, rounds=1)
    full = costs["full"]
    assert full.saved < full.saved_unfused
    assert costs["no-ste"].saved == costs["no-ste"].saved_unfused
    assert costs["no-gradient-scaling"].saved == full.saved
    assert costs["bn"].init_seconds == 0 < full.init_seconds
    assert all(cost.seconds > 0 and cost.seconds_unfused > 0 for cost in costs.values())
    assert full.relative_to(full) == (1, 1, 1, 1)


# -- the command ---------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["ablate", "digits", *TINY, "--seeds", "4,", "--variants", "no-ste"]
    assert main([*command, "--out", str(out)]) == 2
    assert "--seeds takes a number or a list such as 0,5, got '4,'" in capsys.readouterr().err
    command[command.index("4,")] = "1"
    assert main([*command, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "[2/2] no-ste, seed 0: " in text
    assert (out / "ablation.md").read_text() in text
    assert (out / "no-ste" / "seed-0" / "weights.safetensors").is_file()
