"""The command line: ``eisnn train``, ``eisnn recipes``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)  # KEY=VALUE may also follow --options
    if rest and (not hasattr(options, "overrides") or any(r.startswith("-") for r in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if rest:
            options.overrides += rest
        code: int = options.run(options)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        print(f"eisnn: error: {error}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eisnn",
        description="Deep spiking networks without normalisation, by lateral inhibition.",
        epilog="example: eisnn train digits --compare",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a network by a recipe",
        description="Train a network and leave a run folder: config, metrics, pictures, weights.",
        epilog="example: eisnn train digits optimiser.lr=0.01 training.epochs=20",
    )
    train.add_argument("recipe", metavar="RECIPE", help="name (see eisnn recipes) or YAML file")
    train.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="any field of the recipe, e.g. model.T=8"
    )
    train.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE)")
    train.add_argument(
        "--compare",
        action="store_true",
        help="also train the recipe's twins (BatchNorm, none) and show them side by side",
    )
    train.add_argument(
        "--print-config", action="store_true", help="show the resolved recipe and stop"
    )
    train.set_defaults(run=_train)

    recipes = commands.add_parser(
        "recipes",
        help="list the recipes",
        description="List the recipes that come with the package.",
        epilog="example: eisnn recipes",
    )
    recipes.set_defaults(run=_recipes)
    return parser


def _train(options: argparse.Namespace) -> int:
    from eisnn.training.recipe import dump_recipe, load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    if options.print_config:
        print(dump_recipe(recipe), end="")
        return 0

    from eisnn.training import run  # brings Lightning, which takes seconds to import

    folder = options.out or run.free_folder(Path("runs") / Path(options.recipe).stem)
    if options.compare:
        results = run.compare(recipe, folder)
        print(f"\nSide by side: {folder / 'comparison.png'}")
    else:
        results = [run.train(recipe, folder)]
    print(f"\n{run.describe(results)}")
    return 0


def _recipes(_: argparse.Namespace) -> int:
    from eisnn.training.recipe import list_recipes, load_recipe

    for name in list_recipes():
        print(f"{name:<16} {load_recipe(name).description}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
