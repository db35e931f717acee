"""Trained networks tested, and tried on files: against direct computation, and every mistake."""

import gzip
import json
import shutil
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import eisnn
from eisnn.analysis.confusion import class_scores, plot_confusion
from eisnn.cli import main
from eisnn.data import DataSource, load_data
from eisnn.data.events import DVS128_SIDE, NMNIST_SIDE
from eisnn.interop import save_published
from eisnn.training.evaluate import Evaluation, describe, evaluate, write
from eisnn.training.predict import predict
from eisnn.training.recipe import DataConfig, Recipe, dump_recipe, load_recipe
from eisnn.training.samples import sample_format
from eisnn.training.trained import Trained, load_trained

SMALL = ["model.name=mlp4", "model.width=0.1", "training.epochs=2", "optimiser.lr=0.02"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a small network on the digits."""
    from eisnn.training.run import train

    folder = tmp_path_factory.mktemp("runs") / "small"
    train(load_recipe("digits", SMALL), folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def digits() -> DataSource:
    return load_data("digits")


@pytest.fixture(scope="module")
def trained(run: Path) -> Trained:
    return load_trained(run)


@pytest.fixture(scope="module")
def result(trained: Trained) -> Evaluation:
    return evaluate(trained, batch_size=100)


@pytest.fixture(scope="module")
def answers(trained: Trained, digits: DataSource) -> tuple[Tensor, Tensor]:
    """Logits and labels of the test set, all at once."""
    images, labels = digits.test.batch(range(len(digits.test)))
    with torch.no_grad():
        return trained.model(images), labels


def test_accuracy_is_that_of_the_summary_and_of_direct_computation(
    run: Path, result: Evaluation, answers: tuple[Tensor, Tensor]
) -> None:
    logits, labels = answers
    summary = json.loads((run / "summary.json").read_text())
    assert result.top1 == pytest.approx(summary["test_accuracy"], abs=1e-6)
    assert result.top1 == (logits.argmax(1) == labels).double().mean().item()
    five = (logits.topk(5).indices == labels[:, None]).any(1).double().mean().item()
    assert result.top5 == pytest.approx(five, abs=1e-6)
    assert result.top1 < five < 1


def test_confusion_and_scores_of_each_class(
    result: Evaluation, answers: tuple[Tensor, Tensor]
) -> None:
    logits, labels = answers
    predicted = logits.argmax(1)
    assert result.confusion.sum() == len(labels)
    assert torch.equal(result.confusion.sum(1), labels.bincount(minlength=10))
    assert torch.equal(result.confusion.sum(0), predicted.bincount(minlength=10))
    for label, score in enumerate(result.scores):
        right = int(((predicted == label) & (labels == label)).sum())
        taken = int((predicted == label).sum())
        assert score.name == str(label)
        assert score.count == int((labels == label).sum())
        assert score.recall == pytest.approx(right / score.count)
        assert score.precision == (pytest.approx(right / taken) if taken else None)


def test_layers_are_observed(result: Evaluation) -> None:
    assert [layer.layer for layer in result.layers] == ["lif1", "lif2", "lif3"]
    assert all(0 <= layer.rate <= 1 for layer in result.layers)
    assert result.smallest_divisor is not None
    assert result.smallest_divisor > 0
    assert result.observed == 100


def test_the_result_does_not_depend_on_the_batch_size(trained: Trained, result: Evaluation) -> None:
    assert torch.equal(evaluate(trained, batch_size=37).confusion, result.confusion)
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        evaluate(trained, batch_size=0)


def test_what_is_written(result: Evaluation, tmp_path: Path) -> None:
    write(result, tmp_path / "new")
    content = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert content["top1"] == result.top1
    assert content["top5"] == result.top5
    assert content["data"]["name"] == "digits"
    assert content["data"]["test_samples"] == sum(row["count"] for row in content["classes"])
    assert content["confusion"] == result.confusion.tolist()
    assert list(content["rates"]) == ["lif1", "lif2", "lif3"]
    assert content["smallest_divisor"] == result.smallest_divisor
    assert content["selected_on_test"] is False
    assert (tmp_path / "new" / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_the_description_is_for_people(result: Evaluation) -> None:
    text = describe(result)
    assert f"{100 * result.top1:.2f} %" in text
    assert "359 test samples (split: random)" in text
    assert max(map(len, text.splitlines())) <= 100
    chosen = replace(result, trained=replace(result.trained, selected_on_test=True))
    assert "ON THE TEST SET" in describe(chosen)
    many = class_scores(torch.eye(30, dtype=torch.int64), [f"class {i}" for i in range(30)])
    assert "20 of 30 classes" in describe(replace(result, scores=many))


def test_classes_without_samples_or_predictions_have_no_score(tmp_path: Path) -> None:
    confusion = torch.tensor([[3, 1, 0], [0, 0, 0], [2, 0, 0]])
    a, b, c = class_scores(confusion, "abc")
    assert (a.precision, a.recall) == (3 / 5, 3 / 4)
    assert (b.count, b.precision, b.recall) == (0, 0, None)
    assert (c.precision, c.recall) == (None, 0)
    with pytest.raises(ValueError, match=r"of 2 classes has shape \[2, 2\], got \[3, 3\]"):
        class_scores(confusion, "ab")
    plot_confusion(tmp_path / "few.png", confusion, "abc", "three")
    plot_confusion(tmp_path / "many.png", torch.eye(100), [str(i) for i in range(100)], "many")
    assert (tmp_path / "many.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_from_the_shell(
    run: Path, result: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "--out", str(tmp_path), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"{100 * result.top1:.2f} %" in out
    assert str(tmp_path / "evaluation.json") in out
    assert (tmp_path / "confusion.png").exists()


def test_a_checkpoint_of_a_run_is_evaluated(
    run: Path, result: Evaluation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = tmp_path / "run"
    shutil.copytree(run, unfinished, ignore=shutil.ignore_patterns("weights*", "summary*"))
    best = unfinished / "checkpoints" / "best.ckpt"
    assert torch.equal(evaluate(load_trained(best), batch_size=100).confusion, result.confusion)
    assert main(["evaluate", str(best)]) == 0
    assert f"{100 * result.top1:.2f} %" in capsys.readouterr().out
    assert (best.parent / "best" / "evaluation.json").is_file()
    best.write_bytes(best.read_bytes()[:1000])
    assert main(["evaluate", str(best)]) == 2
    assert "cannot be read as a checkpoint" in capsys.readouterr().err


# --- published checkpoints -----------------------------------------------------------------


def idx(array: np.ndarray[Any, Any]) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of data sets, with an MNIST of 40 noisy images for training and 24 for test."""
    root = tmp_path_factory.mktemp("data")
    (root / "mnist").mkdir()
    draw = np.random.default_rng(0)
    for prefix, count in (("train", 40), ("t10k", 24)):
        images = draw.integers(0, 256, (count, 28, 28))
        (root / "mnist" / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (root / "mnist" / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count) % 10))
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published MLP-2 for MNIST, freshly initialised."""
    model = eisnn.create_model("mlp2", num_classes=10, in_channels=1, image_size=28)
    eisnn.ei_init_(model, torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    folder = tmp_path_factory.mktemp("published")
    save_published(model, folder, config={"dataset": "MNIST"})
    return folder


@pytest.mark.filterwarnings("ignore:the .* files of mnist:UserWarning")
def test_a_published_checkpoint_is_evaluated_on_its_data_set(
    checkpoint: Path, mnist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = eisnn.interop.load_published(checkpoint)
    images, labels = load_data("mnist", mnist).test.batch(range(24))
    with torch.no_grad():
        right = int((model(images).argmax(1) == labels).sum())
    arguments = ["evaluate", str(checkpoint), "--data-root", str(mnist), "--out", str(tmp_path)]
    assert main([*arguments, "--batch-size", "7"]) == 0
    assert f"{100 * right / 24:.2f} %" in capsys.readouterr().out
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["top1"] == right / 24
    assert content["data"]["test_samples"] == 24
    assert content["selected_on_test"] is None


def test_a_checkpoint_without_its_data_says_where_they_belong(
    checkpoint: Path, tmp_path: Path
) -> None:
    trained = load_trained(checkpoint)
    without_download = replace(trained, data=DataConfig("mnist", options={"download": False}))
    with pytest.raises(FileNotFoundError, match="mnist needs train-images-idx3-ubyte"):
        evaluate(without_download, root=tmp_path)


@pytest.mark.parametrize(
    ("name", "in_channels", "num_classes", "dataset", "data_set", "input_size"),
    [
        ("vgg8", 2, 10, "CIFAR10DVS", "cifar10-dvs", (48, 48)),
        ("vgg8", 2, 11, "DVSGesture", "dvs-gesture", (48, 48)),
        ("resnet18", 3, 200, "TinyImageNet200", "tiny-imagenet", (32, 32)),
        ("mlp2", 3, 200, "TinyImageNet200", "tiny-imagenet", (64, 64)),
        ("mlp2", 3, 100, "CIFAR100", "cifar100", (32, 32)),
    ],
)
def test_published_checkpoints_bring_the_settings_of_their_data(
    name: str,
    in_channels: int,
    num_classes: int,
    dataset: str,
    data_set: str,
    input_size: tuple[int, int],
    tmp_path: Path,
) -> None:
    model = eisnn.create_model(
        name,
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=input_size,
        T=3,
        norm="bn",
    )
    save_published(model, tmp_path, config={"dataset": dataset})
    trained = load_trained(tmp_path)
    assert trained.data.name == data_set
    assert trained.format.input_size == input_size
    assert len(trained.classes) == num_classes
    framing = trained.format.framing
    assert (framing.T if framing else None) == (3 if in_channels == 2 else None)


# --- predictions ---------------------------------------------------------------------------


def test_predict_on_a_saved_digit(
    run: Path,
    digits: DataSource,
    answers: tuple[Tensor, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    probabilities = answers[0].softmax(1)
    index = int(probabilities.amax(1).argmax())  # the digit that it is surest of
    pixels = (digits.test.inputs[index, 0].float() * 255 / 16).round().byte()
    picture = tmp_path / "digit.png"
    Image.fromarray(pixels.numpy()).save(picture)

    assert main(["predict", str(run), str(picture), "--json"]) == 0
    (content,) = json.loads(capsys.readouterr().out)
    assert content["sample"] == str(picture)
    best = content["classes"][0]
    assert best["class"] == str(int(probabilities[index].argmax()))
    assert best["probability"] == pytest.approx(probabilities[index].max().item(), abs=0.05)
    assert len(content["classes"]) == 3

    assert main(["predict", str(run), str(picture), str(picture)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.startswith(f"{picture}  {best['class']} ")


def test_pictures_get_the_channels_and_the_size_of_the_data_set(tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), (255, 255, 255)).save(tmp_path / "white.jpg")
    grey = sample_format(DataConfig("mnist", options={"pad_to": 32}))
    ((_, image),) = grey.read(tmp_path / "white.jpg")
    assert image.shape == (1, 1, 32, 32)
    assert image.sum() == 28 * 28  # white, with black around it
    colour = sample_format(DataConfig("tiny-imagenet", augmentation="tiny-imagenet"))
    ((_, image),) = colour.read(tmp_path / "white.jpg")
    assert image.shape == (1, 3, 32, 32)
    own = sample_format(DataConfig("image-folder", options={"size": [20, 30], "channels": 1}))
    assert own.input_size == (20, 30)
    ((_, image),) = own.read(tmp_path / "white.jpg")
    assert image.shape == (1, 1, 20, 30)


def nmnist_events(count: int) -> bytes:
    """Events along the diagonal, all of positive polarity."""
    return b"".join(bytes([i % 34, i % 34, 0x80, i // 256, i % 256]) for i in range(count))


def untrained(recipe: Recipe, folder: Path, in_channels: int, side: int) -> Path:
    """A run folder whose network has random weights (BatchNorm, which needs no data)."""
    model = eisnn.create_model(
        recipe.model.name,
        num_classes=10,
        in_channels=in_channels,
        image_size=side,
        norm="bn",
        width=recipe.model.width,
    )
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_recipe(recipe))
    save_file(model.state_dict(), folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="module")
def event_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = load_recipe("nmnist-small", ["model.norm=bn"])
    folder = tmp_path_factory.mktemp("events") / "run"
    return untrained(recipe, folder, in_channels=2, side=NMNIST_SIDE)


def test_predict_on_a_recording(event_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "00001.bin"
    path.write_bytes(nmnist_events(205))
    trained = load_trained(event_run)
    ((_, frames),) = trained.format.read(path)
    assert frames.shape == (1, 10, 2, 34, 34)
    assert frames.sum((0, 2, 3, 4)).tolist() == [20] * 9 + [25]  # the remainder in the last
    assert frames[:, :, 0].sum() == 0  # polarity is the channel
    (prediction,) = predict(trained, path)
    names, chances = zip(*prediction.classes, strict=True)
    assert len(set(names)) == 3
    assert list(chances) == sorted(chances, reverse=True)
    assert sum(chances) < 1


def aedat3(events: list[tuple[int, int]]) -> bytes:
    """Positive events (pixel on the diagonal, microseconds) in one packet."""
    body = b"".join(struct.pack("<II", x << 17 | x << 2 | 2 | 1, t) for x, t in events)
    count = len(events)
    head = struct.pack("<HHIIIIII", 1, 0, 8, 4, 0, count, count, count)
    return b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + head + body


def test_aedat_recordings_whole_or_cut_at_their_labels(tmp_path: Path) -> None:
    form = sample_format(DataConfig("dvs-gesture", augmentation="dvs-gesture"))
    path = tmp_path / "user01_led.aedat"
    path.write_bytes(aedat3([(i % DVS128_SIDE, 1000 * i) for i in range(320)]))
    ((name, frames),) = form.read(path)
    assert name == str(path)
    assert frames.shape == (1, 16, 2, 48, 48)
    table = "class,startTime_usec,endTime_usec\n2,0,100000\n9,100000,300000\n"
    path.with_name("user01_led_labels.csv").write_text(table)
    names = [name for name, _ in form.read(path)]
    assert names == [f"{path} from 0.0 s to 0.1 s", f"{path} from 0.1 s to 0.3 s"]

    second = tmp_path / "cat.aedat"
    second.write_bytes(b"#!AER-DAT2.0\r\n" + struct.pack(">II", 0x0102, 5) * 30)
    ((_, frames),) = sample_format(DataConfig("cifar10-dvs")).read(second)
    assert frames.shape == (1, 10, 2, 128, 128)
    assert frames.sum() == 30


# --- mistakes ------------------------------------------------------------------------------


def copy(run: Path, to: Path) -> Path:
    to.mkdir()
    for name in ("config.yaml", "weights.safetensors"):
        shutil.copy(run / name, to / name)
    return to


def mistakes(run: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Folders that hold no usable network, and what is said about them."""
    yield folder / "nothing", "there is no folder .*nothing. Give a run folder"
    yield run / "config.yaml", f"is a file. Give the folder that holds it: {run}"
    (folder / "empty").mkdir()
    yield folder / "empty", "neither a run folder .* nor a published checkpoint"
    yield run.parent, rf"holds several runs. Choose one of: {run}"
    yield run.parent.parent, rf"holds several runs. Choose one of: .*{run}"  # one deeper: compared
    unfinished = copy(run, folder / "unfinished")
    (unfinished / "weights.safetensors").unlink()
    yield unfinished, f"training is not finished. .* eisnn train --resume {unfinished}"
    damaged = copy(run, folder / "damaged")
    (damaged / "weights.safetensors").write_bytes(b"oh")
    yield damaged, "is damaged or not a safetensors file"
    other = copy(run, folder / "other")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("name: mlp4", "name: mlp2"))
    yield other, "does not fit the network that config.yaml describes"
    odd = copy(run, folder / "odd")
    (odd / "config.yaml").write_text(config.replace("options: {}", "options: {colour: 1}"))
    yield odd, "digits has no option 'colour'"


def test_a_folder_without_a_network_is_a_clear_error(run: Path, tmp_path: Path) -> None:
    for folder, message in mistakes(run, tmp_path):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_trained(folder)


def test_files_that_cannot_be_classified(
    trained: Trained, event_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "a.bin").write_bytes(nmnist_events(3))
    (tmp_path / "empty.bin").write_bytes(b"")
    (tmp_path / "a.aedat").write_bytes(aedat3([(1, 1)]))
    events = load_trained(event_run)
    for network, name, message in (
        (trained, "missing.png", "there is no file .*missing.png"),
        (
            trained,
            "text.png",
            r"not a picture that can be read \(in no format that Pillow knows\)$",
        ),
        (trained, "", r"is a folder: name the files, e\.g\. .*/\*\.png$"),
        (events, "", r"is a folder: name the files, e\.g\. .*/\*\.bin$"),
        (trained, "a.bin", "trained on images. Give pictures"),
        (events, "text.png", "not a recording of an event camera"),
        (events, "empty.bin", "holds no events"),
        (events, "a.aedat", "a camera with 128x128 pixels, .* recordings of 34x34"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            predict(network, tmp_path / name)
    assert main(["predict", str(event_run), str(tmp_path / "missing.bin")]) == 2
    assert "eisnn: error: there is no file" in capsys.readouterr().err


def test_a_network_that_diverged_is_not_used(run: Path, trained: Trained, tmp_path: Path) -> None:
    folder = copy(run, tmp_path / "diverged")
    state = load_file(folder / "weights.safetensors")
    state["body.output.weight_ee"].fill_(torch.nan)
    save_file(state, folder / "weights.safetensors")
    with pytest.raises(ValueError, match=r"NaN .* in body.output.weight_ee .* diverged"):
        load_trained(folder)
    with pytest.raises(ValueError, match="answers with NaN or infinite values"):
        trained.logits(torch.full((1, 1, 8, 8), torch.inf))


def test_other_data_are_refused(trained: Trained) -> None:
    fewer = replace(trained, classes=("a", "b"))
    with pytest.raises(ValueError, match="tells 2 classes apart, and digits has 10"):
        evaluate(fewer)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_clear_error(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "--device", "cuda"]) == 2
    assert "torch finds no GPU" in capsys.readouterr().err


def test_low_precision_is_that_of_the_training(trained: Trained, digits: DataSource) -> None:
    images, _ = digits.test.batch(range(20))
    full = trained.logits(images)
    low = replace(trained, precision="bfloat16").logits(images)
    assert low.dtype == torch.float32
    assert not torch.equal(low, full)
    assert torch.equal(replace(trained, precision="float16").logits(images), full)  # no GPU here


def test_the_names_of_an_image_folders_classes_are_kept_with_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = torch.Generator().manual_seed(0)
    for part in ("train", "test"):
        for name, bright in (("day", 255), ("dusk", 128), ("night", 40)):
            folder = tmp_path / "own" / part / name
            folder.mkdir(parents=True)
            for i in range(20):
                noise = torch.rand(16, 16, 3, generator=pixels)
                Image.fromarray((noise * bright).byte().numpy()).save(folder / f"{i}.png")
    options = ["data.name=image-folder", f"data.root={tmp_path / 'own'}", "data.options.size=16"]
    options += ["model.name=mlp2", "training.epochs=4", "--out", str(tmp_path / "run")]
    assert main(["train", "digits", *options]) == 0
    assert main(["predict", str(tmp_path / "run"), str(folder / "0.png")]) == 0
    assert "night" in capsys.readouterr().out
