"""The command line: ``eisnn train``, ``evaluate``, ``predict``, ``recipes``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["main"]

FOLDER_VARIABLE = "EISNN_RUN_FOLDER"
"""Tells the processes that Lightning starts for further devices which run they belong to."""


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
    except ModuleNotFoundError as error:
        print(f"eisnn: error: {error}. Commands need: pip install 'eisnn[train]'", file=sys.stderr)
        return 2
    except (ValueError, OSError, ImportError) as error:
        print(f"eisnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("eisnn: stopped", file=sys.stderr)
        return 130
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
        epilog="example: eisnn train digits optimiser.lr=0.01 training.epochs=20; with pictures "
        "of your own, in a folder for each class: eisnn train image-folder-small data.root=FOLDER",
    )
    train.add_argument(
        "recipe", nargs="?", metavar="RECIPE", help="name (see eisnn recipes) or YAML file"
    )
    train.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="any field of the recipe, e.g. model.T=8"
    )
    train.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE)")
    train.add_argument("--resume", type=Path, metavar="RUN", help="continue an interrupted run")
    train.add_argument("--devices", type=int, metavar="N", help="share each batch among N devices")
    train.add_argument(
        "--select-on-test",
        action="store_true",
        help="choose the best epoch on the test set, as the published runs did",
    )
    train.add_argument(
        "--compare",
        action="store_true",
        help="also train the recipe's twins (BatchNorm, none) and show them side by side",
    )
    train.add_argument(
        "--print-config", action="store_true", help="show the resolved recipe and stop"
    )
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        "evaluate",
        help="test a trained network",
        description="Test a trained network on the test set of its training: accuracy, confusion "
        "matrix, precision and recall of each class, firing rates.",
        epilog="example: eisnn evaluate runs/digits/ei",
    )
    _add_model(evaluate)
    evaluate.add_argument(
        "--data-root",
        type=Path,
        metavar="FOLDER",
        help="of the data sets (default: as in training)",
    )
    evaluate.add_argument(
        "--batch-size", type=int, default=128, metavar="N", help="samples at a time (default: 128)"
    )
    evaluate.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for evaluation.json and confusion.png (default: the folder of the network)",
    )
    evaluate.set_defaults(run=_evaluate)

    predict = commands.add_parser(
        "predict",
        help="classify pictures or recordings of your own",
        description="Classify pictures, which are scaled to the size of the network and should "
        "look like those that it was trained on (MNIST: white on black), or recordings of an "
        "event camera (.bin of N-MNIST, .aedat).",
        epilog="example: eisnn predict runs/mnist-mlp4 three.png seven.png",
    )
    _add_model(predict)
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE", help="to classify")
    predict.add_argument("--json", action="store_true", help="print JSON")
    predict.set_defaults(run=_predict)

    recipes = commands.add_parser(
        "recipes",
        help="list the recipes",
        description="List the recipes that come with the package.",
        epilog="example: eisnn recipes --long",
    )
    recipes.add_argument("--long", action="store_true", help="with a description of each")
    recipes.set_defaults(run=_recipes)
    return parser


def _train(options: argparse.Namespace) -> int:
    from eisnn.training.recipe import dump_recipe, load_recipe

    if options.resume is not None:
        given = [word for word in (options.recipe, *options.overrides) if word is not None]
        for flag in ("compare", "out", "select_on_test", "devices", "print_config"):
            if getattr(options, flag) not in (None, False):
                given.append(f"--{flag.replace('_', '-')}")
        if given:
            raise ValueError(
                "--resume continues a run as it was started and takes no other options: leave out "
                f"{' '.join(given)}. For other settings start a new run: eisnn train "
                f"{options.resume / 'config.yaml'} KEY=VALUE ..."
            )
        return _survive(lambda run: [run.resume(options.resume)])
    if options.recipe is None:
        raise ValueError("give a recipe to train, or --resume RUN to continue a run")

    overrides = options.overrides + ["data.select_on_test=true"] * options.select_on_test
    if options.devices is not None:
        overrides.append(f"training.devices={options.devices}")
    recipe = load_recipe(options.recipe, overrides)
    if options.print_config:
        print(dump_recipe(recipe), end="")
        return 0
    folder = options.out or _free_folder(Path("runs") / Path(options.recipe).stem)
    if options.compare:
        code = _survive(lambda run: run.compare(recipe, folder))
        print(f"\nSide by side: {folder / 'comparison.png'}" if code == 0 else "")
        return code
    return _survive(lambda run: [run.train(recipe, folder)])


def _survive(start: Callable[[ModuleType], Any]) -> int:
    """Run, print the results, and turn a signal into the exit code that shells expect."""
    from eisnn.training import (  # brings Lightning, which takes seconds to import
        result,
        run,
        survival,
    )

    try:
        results = start(run)
    except survival.Interrupted as signal:
        print(
            f"\n{signal}: a checkpoint is written. To continue: "
            f"eisnn train --resume {signal.checkpoint.parent.parent}",
            file=sys.stderr,
        )
        return 128 + signal.number
    except survival.NonFiniteError as error:
        print(f"\neisnn: error: {error}", file=sys.stderr)
        return 1
    finally:
        os.environ.pop(FOLDER_VARIABLE, None)
    print(f"\n{result.describe(results)}")
    return 0


def _free_folder(wanted: Path) -> Path:
    """``wanted``, or ``wanted-2``, ``wanted-3``, ... if it is taken; the same in every process."""
    if FOLDER_VARIABLE not in os.environ:
        folder, number = wanted, 1
        while folder.exists():
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")
        os.environ[FOLDER_VARIABLE] = str(folder)
    return Path(os.environ[FOLDER_VARIABLE])


def _evaluate(options: argparse.Namespace) -> int:
    from eisnn.training import evaluate, trained

    network = trained.load_trained(options.model, trained.choose_device(options.device))
    result = evaluate.evaluate(
        network,
        root=options.data_root,
        batch_size=options.batch_size,
        show_progress=sys.stderr.isatty(),
    )
    folder = options.out or options.model
    evaluate.write(result, folder)
    print(evaluate.describe(result))
    print(f"\nAll numbers: {folder / 'evaluation.json'}, picture: {folder / 'confusion.png'}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from eisnn.training import predict, trained

    network = trained.load_trained(options.model, trained.choose_device(options.device))
    predictions = [p for file in options.files for p in predict.predict(network, file)]
    print((predict.as_json if options.json else predict.as_text)(predictions))
    return 0


def _recipes(options: argparse.Namespace) -> int:
    from eisnn.training.recipe import list_recipes, load_recipe

    layout = "{:<22}  {:<13}  {:<11}  {:>2}  {:>6}  {:>6}  {}"
    print(layout.format("RECIPE", "DATA SET", "NETWORK", "T", "EPOCHS", "PUBL.%", "COST"))
    for name in list_recipes():
        recipe = load_recipe(name)
        model = recipe.model
        row = (
            name,
            recipe.data.name,
            f"{model.name} {model.norm}",
            model.T,
            recipe.training.epochs,
            "-" if recipe.published is None else f"{recipe.published:.2f}",
            recipe.cost,
        )
        print(layout.format(*row))
        if options.long:
            print(f"    {recipe.description}")
    print(
        "\nPUBL.%: published top-1 accuracy; its epoch was chosen on the test set, as "
        "--select-on-test does.\nCOST: CPU means two cores; ~ is an estimate from single training "
        "steps. A GPU takes less."
    )
    return 0


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="run folder, or folder of a published checkpoint"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to run (default: auto, on a GPU if there is one)",
    )


if __name__ == "__main__":
    sys.exit(main())
