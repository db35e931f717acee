"""The record of a network in training: what is in it, and that it changes nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import eisnn
from eisnn.analysis import gradient_norms
from eisnn.analysis.dynamics import describe_dynamics, read_dynamics
from eisnn.training.recipe import load_recipe
from eisnn.training.run import resume, train


def network(norm: str) -> nn.Module:
    model = eisnn.create_model("mlp4", num_classes=3, image_size=4, width=0.1, norm=norm)
    eisnn.ei_init_(model, torch.rand(64, 3, 4, 4))
    return model


@pytest.mark.parametrize("norm", ["ei", "bn", "none"])
def test_a_record_describes_every_layer(norm: str) -> None:
    model, x, labels = network(norm), torch.rand(80, 3, 4, 4), torch.arange(80) % 3
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    random = torch.get_rng_state()
    record = describe_dynamics(model, x, labels)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    kinds = [layer["kind"] for layer in record["layers"]]
    assert kinds == [norm] * 3 + ["output"] * (norm == "ei")
    for layer in record["layers"][:3]:
        assert len(layer["rate"]) == 4
        assert ("i_div" in layer["currents"]) == (layer["balance"] is not None) == (norm == "ei")
        for current in layer["currents"].values():
            low, high, bins = current["edges"]
            assert len(current["density"]) == bins
            assert sum(current["density"]) * (high - low) / bins == pytest.approx(1, abs=0.02)
            assert current["min"] <= current["quantiles"]["0.5"] <= current["max"]
        for figures in layer["parameters"].values():
            assert 0 <= figures["zero"] <= 1
    norms = gradient_norms(model.eval(), x, labels)
    for gradients in record["gradients"]:
        expected = norms[gradients.pop("name")]
        assert gradients == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_figures_that_do_not_exist_are_null() -> None:
    model = network("ei")
    record = describe_dynamics(model, torch.zeros(4, 3, 4, 4), torch.zeros(4).long())
    assert record["layers"][0]["correlation"] is None
    assert record["layers"][0]["balance"] == [None] * 4
    assert record["layers"][0]["bimodality"] is None


SMALL = ["model.name=mlp4", "model.width=0.1", "training.epochs=2", "data.train_samples=64"]


def test_a_run_records_each_epoch_and_is_the_same_without(tmp_path: Path) -> None:
    recorded = train(load_recipe("digits", SMALL), tmp_path / "on", progress=False)
    off = load_recipe("digits", [*SMALL, "training.dynamics=false"])
    plain = train(off, tmp_path / "off", progress=False)
    weights, others = (
        load_file(f / "weights.safetensors") for f in (tmp_path / "on", plain.folder)
    )
    assert all(torch.equal(weights[name], others[name]) for name in others)
    records = read_dynamics(recorded.folder)
    assert [r["epoch"] for r in records] == [0, 1, 2]
    assert records[0]["layers"][0]["currents"]["i_int"]["mean"] == pytest.approx(
        recorded.before[0].mean, abs=0.05
    )
    assert records[0] != records[1]
    with pytest.raises(FileNotFoundError, match=r"training\.dynamics"):
        read_dynamics(plain.folder)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "dynamics.jsonl").write_text('{"epoch":0}\n{"epoch":1}\n{"epo')
    assert [r["epoch"] for r in read_dynamics(tmp_path)] == [0, 1]


def test_a_run_that_is_continued_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(load_recipe("digits", SMALL), run, progress=False)
    path = run / "dynamics.jsonl"
    whole = path.read_text()
    later = whole.splitlines()[2].replace('"epoch":2', '"epoch":3')
    path.write_text(f'{whole}{later}\n{{"epo')  # killed before the checkpoint of epoch 3
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))
    resume(run, progress=False)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 2, 3]
    assert lines[:3] == whole.splitlines()
