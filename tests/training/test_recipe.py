"""Recipes: typed, overridable, and clear about what does not fit."""

from pathlib import Path

import pytest

from eisnn.training.recipe import dump_recipe, list_recipes, load_recipe


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
        ("model.norm=layer", "model.norm"),
        ("training.epochs=3.5", "training.epochs"),
        ("training.epochs=0", "training.epochs must be >= 1, got 0"),
        ("optimiser.lr=-1", "optimiser.lr must be > 0"),
        ("twins.bn.lr=0", r"twins.bn.lr must be > 0"),
        ("twins.layer.lr=1", "twins"),
        ("data.validation=1", "data.validation must be a share"),
        ("optimiser.warmup_epochs=11", "must not exceed"),
        ("nonsense", "key=value"),
    ],
)
def test_a_wrong_override_is_an_error_that_names_the_field(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("digits", [override])


def test_an_unknown_recipe_lists_what_exists() -> None:
    with pytest.raises(ValueError, match=r"'digit'. Did you mean 'digits'\? Recipes: .*digits"):
        load_recipe("digit")


def test_an_unknown_key_in_a_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(list_recipes()["digits"].read_text() + "colour: blue\n")
    with pytest.raises(ValueError, match="colour"):
        load_recipe(str(path))


def test_a_file_without_a_mapping_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="holds no recipe"):
        load_recipe(str(path))
