"""Recipes: typed, overridable, and clear about what does not fit."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from eisnn.models import create_model
from eisnn.nn import CircuitOptions
from eisnn.training.recipe import (
    CircuitConfig,
    ModelConfig,
    OptimiserConfig,
    TrainingConfig,
    dump_recipe,
    list_recipes,
    load_recipe,
)
from eisnn.training.samples import sample_format


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_loads_and_its_dump_is_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "config.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(str(path)) == recipe


def test_overrides_reach_every_level() -> None:
    recipe = load_recipe(
        "digits",
        ["optimiser.lr=0.02", "twins.none.lr=3e-1", "model.norm=bn", "data.options.seed=4"],
    )
    assert recipe.optimiser.lr == 0.02
    assert recipe.twins["none"].lr == 0.3
    assert recipe.twins["bn"] == load_recipe("digits").twins["bn"]
    assert recipe.model.norm == "bn"
    assert recipe.data.options == {"seed": 4}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=1", "no field 'optimizer.lr'. Did you mean 'optimiser.lr'"),
        ("optimiser.lrr=1", "Did you mean 'optimiser.lr'"),
        ("lr=1", "no field 'lr'. Did you mean 'optimiser.lr'"),
        ("model.epochs=1", "Did you mean 'training.epochs'"),
        ("twins.bn.lrr=1", "no field 'twins.bn.lrr'. Did you mean 'twins.bn.lr'"),
        ("zzz=1", "no field 'zzz'. Fields: description, data.name"),
        ("optimiser.lr=nan", "optimiser.lr must be a number, got 'nan'"),
        ("model.norm=layer", "model.norm must be one of ei, bn, none, got 'layer'"),
        ("training.epochs=3.5", "training.epochs must be a whole number, got 3.5"),
        ("training.epochs=abc", "training.epochs must be a whole number, got 'abc'"),
        ("training.epochs=", "training.epochs must be a whole number, got nothing"),
        ("training.seed=true", "training.seed must be a whole number, got True"),
        ("training.patience=x", "training.patience must be a whole number or null, got 'x'"),
        ("optimiser.lr=fast", "optimiser.lr must be a number, got 'fast'"),
        ("optimiser.lr=[", r"optimiser.lr must be a number, got '\['"),
        ("twins.bn.lr=fast", "twins.bn.lr must be a number, got 'fast'"),
        ("data.select_on_test=maybe", "data.select_on_test must be true or false, got 'maybe'"),
        ("model.circuit.dales=true", "Did you mean 'model.circuit.dale'"),
        ("model.circuit.dale=maybe", "model.circuit.dale must be true or false, got 'maybe'"),
        ("model.circuit.inhibition=no", "model.circuit.inhibition must be one of both, subtr"),
        ("model.circuit.epsilon=0", "model.circuit.epsilon must be a positive number, got 0"),
        ("model.init=he", "model.init must be one of ei, fixed_p, kaiming, got 'he'"),
        ("data.options=3", "data.options must be a mapping of names to values, got 3"),
        ("training.epochs=0", "training.epochs must be >= 1, got 0"),
        ("optimiser.lr=-1", "optimiser.lr must be > 0"),
        ("twins.bn.lr=0", r"twins.bn.lr must be > 0"),
        ("twins.layer.lr=1", "twins"),
        ("data.validation=1", "data.validation must be a share"),
        ("optimiser.warmup_epochs=13", "must not exceed"),
        ("nonsense", "key=value"),
    ],
)
def test_a_wrong_override_is_an_error_that_names_the_field(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("digits", [override])


def test_text_may_look_like_a_number() -> None:
    recipe = load_recipe("digits", ["data.root=2024", "description=1e-3"])
    assert (recipe.data.root, recipe.description) == ("2024", "1e-3")
    assert load_recipe("digits", ["data.root=null"]).data.root is None


def test_a_wrong_type_in_a_file_is_an_error_that_names_the_field(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = list_recipes()["digits"].read_text()
    path.write_text(text.replace("name: mlp8", "name: 8"))
    with pytest.raises(ValueError, match=r"model\.name must be text, got 8"):
        load_recipe(str(path))
    path.write_text(text.replace("data:\n  name: digits", "data: digits"))
    with pytest.raises(
        ValueError, match="data must be a mapping of fields to values, got 'digits'"
    ):
        load_recipe(str(path))


def test_an_unknown_recipe_lists_what_exists() -> None:
    with pytest.raises(ValueError, match=r"'digit'. Did you mean 'digits'\? Recipes: .*digits"):
        load_recipe("digit")


def test_an_unknown_key_in_a_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(list_recipes()["digits"].read_text() + "colour: blue\n")
    with pytest.raises(ValueError, match="no field 'colour'"):
        load_recipe(str(path))
    path.write_text(list_recipes()["digits"].read_text().replace("  epochs:", "  epoch:"))
    with pytest.raises(ValueError, match=r"'training\.epoch'. Did you mean 'training\.epochs'"):
        load_recipe(str(path))


def test_a_file_without_a_mapping_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="holds no recipe"):
        load_recipe(str(path))


# The published runs: data set, network, norm, T, batch, learning rate, from which the warm-up
# starts, its epochs, weight decay, published top-1 % (of the checkpoint, where there is one).
PUBLISHED = """
cifar10-resnet18        cifar10        resnet18  ei   4  128  0.001  0      30  5e-4  92.06
cifar10-vgg8            cifar10        vgg8      ei   4  128  0.002  0      10  5e-4  87.03
cifar10-vgg11           cifar10        vgg11     ei   4  128  0.002  0      10  5e-4  88.43
cifar10-vgg16           cifar10        vgg16     ei   4  128  0.001  0      30  5e-4  91.01
cifar10-vgg19           cifar10        vgg19     ei   4  128  0.001  0      30  5e-4  91.36
cifar100-vgg16          cifar100       vgg16     ei   4  128  0.001  0      30  5e-4  65.90
cifar100-vgg19          cifar100       vgg19     ei   4  128  0.001  0      30  5e-4  64.06
cifar10-dvs-vgg8        cifar10-dvs    vgg8      ei  10   32  0.001  0      10  5e-4  78.40
cifar10-dvs-vgg11       cifar10-dvs    vgg11     ei  10   32  0.001  0      10  5e-4  78.40
dvs-gesture-vgg8        dvs-gesture    vgg8      ei  16   32  0.001  0      10  5e-4  95.83
tiny-imagenet-resnet18  tiny-imagenet  resnet18  ei   4  128  0.003  0.001  10  5e-4  50.29
cifar10-resnet18-bn     cifar10        resnet18  bn   4  128  0.1    0       0  1e-4  95.37
cifar10-vgg16-bn        cifar10        vgg16     bn   4  128  0.1    0       0  1e-4  -
cifar10-vgg19-bn        cifar10        vgg19     bn   4  128  0.1    0       0  1e-4  -
"""
ROWS = [row.split() for row in PUBLISHED.split("\n") if row]

AUGMENTATIONS = {
    "cifar10": "cifar",
    "cifar100": "cifar",
    "tiny-imagenet": "tiny-imagenet",
    "cifar10-dvs": "cifar10-dvs",
    "dvs-gesture": "dvs-gesture",
}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_published_runs_are_recipes(row: list[str]) -> None:
    name, data, model, norm, T, batch, lr, start, warmup, decay, published = row
    recipe = load_recipe(name)
    assert (recipe.data.name, recipe.model.name, recipe.model.norm) == (data, model, norm)
    assert recipe.model == ModelConfig(model, norm="bn" if norm == "bn" else "ei", T=int(T))
    assert recipe.optimiser == OptimiserConfig(
        lr=float(lr),
        momentum=0.9,
        weight_decay=float(decay),
        warmup_epochs=float(warmup),
        warmup_lr=float(start),
    )
    assert recipe.training == TrainingConfig(epochs=300, batch_size=int(batch))
    assert recipe.published == (None if published == "-" else float(published))
    assert recipe.data.augmentation == AUGMENTATIONS[data]
    options = {"T": int(T), "framing": "count"} if data in ("cifar10-dvs", "dvs-gesture") else {}
    assert recipe.data.options == options | (
        {"split": "published"} if data == "cifar10-dvs" else {}
    )
    if norm == "ei":
        assert recipe.twins["bn"] == OptimiserConfig(lr=0.1, weight_decay=1e-4)


SHAPES = {  # of the samples as they are stored, and the number of classes
    "digits": (1, 8, 10),
    "mnist": (1, 28, 10),
    "fashion-mnist": (1, 28, 10),
    "cifar10": (3, 32, 10),
    "cifar100": (3, 32, 100),
    "tiny-imagenet": (3, 64, 200),
    "cifar10-dvs": (2, 128, 10),
    "dvs-gesture": (2, 128, 11),
    "nmnist": (2, 34, 10),
    "image-folder": (3, 32, 3),  # whatever is in it
}


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_builds_its_network_for_its_data(name: str) -> None:
    recipe = load_recipe(name)
    channels, side, num_classes = SHAPES[recipe.data.name]
    form = sample_format(recipe.data)
    assert (form.channels, form.size) == (channels, (side, side))
    assert len(form.classes) in (0, num_classes)
    if form.framing is not None:
        assert form.framing.T == recipe.model.T
    with torch.device("meta"):
        model = create_model(
            num_classes=num_classes,
            in_channels=channels,
            image_size=form.input_size,
            **recipe.model.arguments(),
        )
        steps = () if form.framing is None else (form.framing.T,)
        batch = torch.zeros(2, *steps, channels, *form.input_size)
    assert sum(p.numel() for p in model.parameters()) > 0
    if model.image_size is not None:
        assert model.image_size == batch.shape[-2:]
    assert min(batch.shape[-2:]) >= model.min_size


def test_the_circuit_of_a_recipe_is_the_circuit_of_the_network() -> None:
    names = {field.name for field in fields(CircuitOptions)}
    assert {field.name for field in fields(CircuitConfig)} == names
    assert load_recipe("digits").model.arguments()["circuit"] == CircuitOptions()
    overrides = ["stabilisation=fixed", "epsilon=1e-3", "dale=false"]
    recipe = load_recipe("digits", [f"model.circuit.{override}" for override in overrides])
    options = CircuitOptions(stabilisation="fixed", epsilon=1e-3, dale=False)
    assert recipe.model.arguments()["circuit"] == options


def test_recipes_are_ordered_by_name() -> None:
    assert list(list_recipes()) == sorted(list_recipes())


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("cifar10-dvs-vgg8", "model.T=5", r"data.options.T must be model.T \(5\).* got 10"),
        ("digits", "published=101", "published must be a percentage"),
        ("nmnist-small", "training.patience=2", "training.patience must be null without a valid"),
    ],
)
def test_fields_that_do_not_go_together(name: str, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(name, [override])
