"""A whole run at the smallest scale: what it leaves, and that it can be repeated."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import eisnn
from eisnn.training.module import learning_rate
from eisnn.training.recipe import OptimiserConfig, Recipe, load_recipe
from eisnn.training.result import RunResult, describe
from eisnn.training.run import compare, train

FEW = ["data.train_samples=64", "data.options.test_fraction=0.05"]
SMALL = ["model.name=mlp4", "model.width=0.1", "training.epochs=2", "optimiser.lr=0.02"]


def small(*overrides: str) -> Recipe:
    return load_recipe("digits", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return train(small(), tmp_path_factory.mktemp("runs") / "small", progress=False)


def test_the_run_folder_is_complete(result: RunResult) -> None:
    names = {path.name for path in result.folder.iterdir()}
    assert names >= {
        "config.yaml",
        "metrics.csv",
        "curves.png",
        "currents.png",
        "activity.json",
        "weights.safetensors",
        "summary.json",
        "checkpoints",
    }
    for picture in ("curves.png", "currents.png"):
        assert (result.folder / picture).read_bytes().startswith(b"\x89PNG")


def test_metrics_hold_a_row_for_each_epoch(result: RunResult) -> None:
    with (result.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        assert 0 <= float(row["val_accuracy"]) <= 1
        assert float(row["smallest_divisor"]) > 0
        assert all(0 <= float(row[f"rate/lif{i}"]) <= 1 for i in (1, 2, 3))
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])


def test_kept_weights_give_the_reported_accuracy(result: RunResult) -> None:
    from eisnn.data import load_data

    recipe = load_recipe(str(result.folder / "config.yaml"))
    source = load_data("digits")
    model = eisnn.create_model(
        recipe.model.name,
        num_classes=10,
        in_channels=1,
        image_size=8,
        width=recipe.model.width,
    )
    model.load_state_dict(load_file(result.folder / "weights.safetensors"), strict=True)
    assert eisnn.is_initialised(model)
    images, labels = source.test.batch(range(len(source.test)))
    with torch.no_grad():
        accuracy = (model.eval()(images).argmax(1) == labels).double().mean().item()
    summary = json.loads((result.folder / "summary.json").read_text())
    assert summary["test_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert accuracy == pytest.approx(result.test_accuracy, abs=1e-6)
    assert accuracy > 0.3  # it learns: chance is 0.1


def test_dales_law_holds_after_training(result: RunResult) -> None:
    for name, weight in load_file(result.folder / "weights.safetensors").items():
        if not name.endswith("bias"):
            assert (weight >= 0).all(), name


def test_the_same_config_gives_the_same_weights(result: RunResult, tmp_path: Path) -> None:
    recipe = load_recipe(str(result.folder / "config.yaml"))
    train(recipe, tmp_path / "again", progress=False)
    first = load_file(result.folder / "weights.safetensors")
    again = load_file(tmp_path / "again" / "weights.safetensors")
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_another_seed_gives_other_weights(result: RunResult, tmp_path: Path) -> None:
    train(small("training.seed=1"), tmp_path / "other", progress=False)
    first = load_file(result.folder / "weights.safetensors")
    other = load_file(tmp_path / "other" / "weights.safetensors")
    assert not torch.equal(first["body.linear1.weight_ee"], other["body.linear1.weight_ee"])


def test_a_part_of_the_training_set_is_drawn_evenly_from_the_classes() -> None:
    from eisnn.data import load_data
    from eisnn.training.batches import DataModule

    data = DataModule(load_data("digits"), 32, "none", 0.1, seed=0, train_samples=100)
    assert len(data.train) == 100
    assert set(data.train.labels.bincount().tolist()) <= {9, 10, 11}


def test_a_class_of_one_sample_cannot_be_split() -> None:
    from eisnn.data import load_data
    from eisnn.training.batches import DataModule

    source = load_data("digits")
    labels = source.train.labels
    others, nine = (labels != 9).nonzero().flatten(), (labels == 9).nonzero().flatten()
    few = replace(source, train=source.train.subset([*others.tolist(), int(nine[0])]))
    with pytest.raises(ValueError, match=r"data\.validation needs two .* one left of class '9'"):
        DataModule(few, 32, "none", 0.1, seed=0)
    with pytest.raises(ValueError, match=r"class '9'\. Add some, or set data\.train_samples=null"):
        DataModule(few, 32, "none", 0, seed=0, train_samples=100)
    assert DataModule(few, 32, "none", 0, seed=0).val is None


def test_a_run_says_once_what_it_trains_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "digits: 10 classes (0, 1, 2, 3, 4, ...), 1,707 training + 90 test samples"
    compare(small("training.epochs=1", *FEW), tmp_path / "compare")
    assert capsys.readouterr().out.count(line) == 1
    train(small("training.epochs=1", *FEW), tmp_path / "quiet", progress=False)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("accelerator", ["gpu", "abacus"])
def test_missing_devices_are_told_before_anything_is_made(
    accelerator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match=rf"^training\.accelerator={accelerator} .* cannot .* or cpu \("
    ):
        train(small(f"training.accelerator={accelerator}"), tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_every_epoch(tmp_path: Path) -> None:
    train(small("training.logger=tensorboard"), tmp_path / "run", progress=False)
    files = list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
    assert sum(file.read_bytes().count(b"rate/lif3") for file in files) == 2  # epochs


def test_compare_trains_the_twins_side_by_side(tmp_path: Path) -> None:
    results = compare(small("training.epochs=1"), tmp_path / "compare", progress=False)
    assert [r.norm for r in results] == ["ei", "bn", "none"]
    assert (tmp_path / "compare" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "compare" / "bn" / "weights.safetensors").exists()
    text = describe(results)
    for result in results:
        assert f"{100 * result.test_accuracy:.2f} %" in text
    assert "smallest divisor" in text


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="not empty"):
        train(small(), tmp_path, progress=False)


def test_a_network_that_does_not_fit_the_data_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 32x32"):
        train(small("model.name=vgg8"), tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"those of digits are 8x8\. Set data\.options\.pad_to=32"):
        train(small("model.name=vgg8"), tmp_path / "run", progress=False)
    train(
        small("model.name=vgg8", "data.options.pad_to=32", "training.epochs=1", *FEW),
        tmp_path / "padded",
        progress=False,
    )
    with pytest.raises(ValueError, match="batch_size must not exceed"):
        train(small("training.batch_size=5000"), tmp_path / "run", progress=False)


def test_learning_rate_warms_up_linearly_and_falls_to_zero() -> None:
    config = OptimiserConfig(lr=0.4, warmup_lr=0.1)
    rates = [learning_rate(step, 10, 3, config) for step in range(11)]
    assert rates[:4] == pytest.approx([0.2, 0.3, 0.4, 0.4])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == pytest.approx(0)
