"""The paper's figures and the depth study, from the command line."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from eisnn.analysis.depth import DEPTHS, study_depth
from eisnn.cli import main
from eisnn.training.recipe import load_recipe
from eisnn.training.run import train

SMALL = ["model.name=mlp4", "model.width=0.1", "training.epochs=2", "data.train_samples=64"]


@pytest.mark.parametrize("norm", ["ei", "bn", "none"])
def test_a_run_gives_all_figures(
    norm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(load_recipe("digits", [*SMALL, f"model.norm={norm}"]), run, progress=False)
    weights = (run / "weights.safetensors").read_bytes()
    assert main(["figures", str(run)]) == 0
    names = {"figure4.png", "figure5.png", "evolution.gif"}
    names |= {"theory.png", "theory.json"} if norm == "ei" else set()
    assert {path.name for path in (run / "figures").iterdir()} == names
    assert {Path(line).name for line in capsys.readouterr().out.split()} == names
    for name in names - {"theory.json"}:
        with Image.open(run / "figures" / name) as picture:
            assert min(picture.size) > 200
            assert getattr(picture, "n_frames", 1) == (3 if name == "evolution.gif" else 1)
    if norm == "ei":
        layers = json.loads((run / "figures" / "theory.json").read_text())
        assert [layer["layer"] for layer in layers] == ["linear1", "linear2", "linear3", "output"]
        record = json.loads((run / "dynamics.jsonl").read_text().splitlines()[0])
        seen = record["layers"][0]["currents"]["i_int"]  # of the same network, other samples
        assert layers[0]["variance"] == pytest.approx(seen["std"] ** 2, rel=0.2)
    assert (run / "weights.safetensors").read_bytes() == weights


def test_a_folder_without_figures_to_draw_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["figures", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("")
    assert main(["figures", str(tmp_path)]) == 2
    assert "dynamics.jsonl" in capsys.readouterr().err
    (tmp_path / "dynamics.jsonl").write_text('{"epoch": 0}\n')
    assert main(["figures", str(tmp_path)]) == 2
    assert "not finished an epoch" in capsys.readouterr().err


def test_depth_study_writes_a_row_for_each_layer(tmp_path: Path) -> None:
    command = ["depth", "digits", "data.options.pad_to=32", "model.width=0.05", "model.T=2"]
    assert main([*command, "--depths", "8", "11", "--out", str(tmp_path)]) == 0
    with (tmp_path / "depth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["norm"], r["depth"], r["layer"]) for r in rows] == [
        (norm, depth, str(i))
        for depth, layers in (("8", 5), ("11", 8))
        for norm in ("ei", "bn", "none")
        for i in range(1, layers + 1)
    ]
    with Image.open(tmp_path / "depth.png") as picture:
        assert picture.size[0] > 1000


def test_depth_study_measures_what_is_there() -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(16, 3, 32, 32), torch.arange(16) % 4
    state = torch.get_rng_state()
    rows = study_depth(images, labels, depths=[8], norms=["bn", "none"], T=2, width=0.1)
    assert torch.equal(torch.get_rng_state(), state)
    for row in rows:
        if row.norm == "bn":  # normalised by the batch itself
            assert row.mean == pytest.approx(0, abs=1e-3)
            assert row.variance == pytest.approx(1, abs=0.05)
            assert row.gradient > 0
    silent = [row for row in rows if row.norm == "none"][-1]
    assert silent.rate == 0
    assert silent.variance < 0.1
    assert {depth: sum(map(len, stages)) for depth, stages in DEPTHS.items()} == {
        8: 5, 11: 8, 16: 13, 19: 16, 35: 32, 67: 64,
    }  # fmt: skip


def test_a_depth_that_is_not_there_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["depth", "digits", "--depths", "9", "--out", str(tmp_path)]) == 2
    assert "depth must be one of 8, 11, 16" in capsys.readouterr().err
