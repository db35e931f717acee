"""The command line; ``eisnn --help`` lists its commands."""

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
        hint = ". Fields of a recipe are written KEY=VALUE: training.epochs=3, data.root=FOLDER"
        parser.error(
            f"unrecognized arguments: {' '.join(rest)}{hint * hasattr(options, 'overrides')}"
        )
    try:
        if rest:
            options.overrides += rest
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `eisnn recipes | head`: the reader has left, nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141  # 128 + SIGPIPE, as the shell says
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
        help="for evaluation.json and confusion.png (default: MODEL without .ckpt)",
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

    report = commands.add_parser(
        "report",
        help="show runs in one HTML page",
        description="Write one HTML page, which needs no network, on a run or several side by "
        "side: curves, firing rates, E-I balance, distributions of currents over the epochs, "
        "gradients, parameters, confusion matrix (after eisnn evaluate), configuration.",
        epilog="example: eisnn report runs/digits",
    )
    report.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folder, or folder of several such as eisnn train --compare leaves",
    )
    report.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: report.html in the first RUN)"
    )
    report.set_defaults(run=_report)

    figures = commands.add_parser(
        "figures",
        help="draw the paper's figures for a run",
        description="Draw the paper's figures for a run: distributions of the integrated current "
        "before and after training and as an animation, gradient norms at initialisation, and "
        "for E-I networks theory beside measurement.",
        epilog="example: eisnn figures runs/digits/ei",
    )
    figures.add_argument("folder", type=Path, metavar="RUN", help="run folder")
    figures.add_argument("--out", type=Path, metavar="FOLDER", help="default: figures in RUN")
    figures.set_defaults(run=_figures)

    depth = commands.add_parser(
        "depth",
        help="follow activity and gradients through deep networks",
        description="Initialise VGGs of several depths, with E-I circuits, BatchNorm and neither, "
        "on one batch of a recipe's data, and follow mean, variance, firing rate and gradient "
        "from layer to layer: CSV and picture.",
        epilog="example: eisnn depth cifar10-vgg8 model.width=0.25 --depths 8 16 67",
    )
    depth.add_argument("recipe", metavar="RECIPE", help="gives data, time steps and width")
    depth.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="any field of the recipe")
    depth.add_argument(
        "--depths", type=int, nargs="+", metavar="N", help="default: 8 11 16 19 35 67"
    )
    depth.add_argument(
        "--out", type=Path, metavar="FOLDER", default=Path("runs/depth"), help="(%(default)s)"
    )
    depth.set_defaults(run=_depth)

    ablate = commands.add_parser(
        "ablate",
        help="train a recipe without one part of the method at a time",
        description="Train the full method and variants of it with the same data, budget and "
        "seeds, and write a table (CSV, Markdown, picture). Called again, it continues.",
        epilog="example: eisnn ablate digits --seeds 3 --variants no-ste,no-dale",
    )
    ablate.add_argument("recipe", metavar="RECIPE", help="name (see eisnn recipes) or YAML file")
    ablate.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="any field of the recipe")
    ablate.add_argument(
        "--seeds", default="3", metavar="N", help="number of seeds, or a list: 0,5 (default: 3)"
    )
    ablate.add_argument(
        "--variants", metavar="A,B", help="instead of all; full is always among them"
    )
    ablate.add_argument("--out", type=Path, help="folder (default: runs/RECIPE-ablation)")
    ablate.set_defaults(run=_ablate)

    recipes = commands.add_parser(
        "recipes",
        help="list the recipes",
        description="List the recipes that come with the package.",
        epilog="example: eisnn recipes --long",
    )
    recipes.add_argument("--long", action="store_true", help="with a description of each")
    recipes.set_defaults(run=_recipes)

    memory = commands.add_parser(
        "memory",
        help="estimate the memory of a recipe's training",
        description="Estimate the memory that each device needs for a training step of a recipe, "
        "without computing or allocating it.",
        epilog="example: eisnn memory cifar10-resnet18 model.T=16 model.recompute=true "
        "--input 3 32 32",
    )
    memory.add_argument("recipe", metavar="RECIPE", help="name (see eisnn recipes) or YAML file")
    memory.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="any field of the recipe")
    memory.add_argument(
        "--input",
        type=int,
        nargs=3,
        metavar=("C", "H", "W"),
        help="shape of an input (default: of the recipe's data, which must be there)",
    )
    memory.add_argument("--layers", action="store_true", help="also what each layer keeps")
    memory.set_defaults(run=_memory)

    doctor = commands.add_parser(
        "doctor",
        help="show devices, versions and backends",
        description="Show versions, devices, and for each device the backend of the fused "
        "operations and why the others are not used.",
        epilog="example: eisnn doctor; with another backend: EISNN_BACKEND=torch eisnn doctor",
    )
    doctor.set_defaults(run=_doctor)
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


def _ablate(options: argparse.Namespace) -> int:
    from eisnn.training import ablation, allocator, recipe, survival

    numbers = options.seeds.split(",")
    if not all(number.isdecimal() for number in numbers) or numbers == ["0"]:
        raise ValueError(f"--seeds takes a number or a list such as 0,5, got {options.seeds!r}")
    seeds = [int(n) for n in numbers] if len(numbers) > 1 else range(int(options.seeds))
    folder = options.out or Path("runs") / f"{Path(options.recipe).stem}-ablation"
    allocator.keep_freed_memory()
    try:
        table = ablation.ablate(
            recipe.load_recipe(options.recipe, options.overrides),
            folder,
            seeds,
            options.variants.split(",") if options.variants else None,
            report=lambda line: print(line, flush=True),
        )
    except survival.Interrupted as signal:
        print(f"\n{signal}: to continue, give the same command again", file=sys.stderr)
        return 128 + signal.number
    print(f"\n{table.read_text()}\nAll of it is in {folder}")
    return 0


def _survive(start: Callable[[ModuleType], Any]) -> int:
    """Run, print the results, and turn a signal into the exit code that shells expect."""
    from eisnn.training import (  # brings Lightning, which takes seconds to import
        allocator,
        result,
        run,
        survival,
    )

    allocator.keep_freed_memory()
    try:
        results = start(run)
    except survival.Interrupted as signal:
        if run.is_first_process():
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
    if run.is_first_process():
        print(f"\n{result.describe(results)}")
    return 0


def _free_folder(wanted: Path) -> Path:
    """``wanted``, or ``wanted-2``, ``wanted-3``, ... if it is taken; the same in every process.

    Raises:
        ValueError: the processes were started by torchrun or srun, and would not agree.
    """
    if FOLDER_VARIABLE not in os.environ:
        if max(int(os.environ.get(n) or 1) for n in ("WORLD_SIZE", "SLURM_NTASKS")) > 1:
            raise ValueError(
                "several processes share this run: name its folder, --out FOLDER, so that all of "
                "them use the same"
            )
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
    folder = options.out or (
        options.model if options.model.is_dir() else options.model.with_suffix("")
    )
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


def _report(options: argparse.Namespace) -> int:
    from eisnn.analysis.report import write_report

    path = options.out or options.runs[0] / "report.html"
    shown = write_report(options.runs, path)
    print(f"{len(shown)} run{'s' * (len(shown) > 1)} in one page: {path}")
    return 0


def _figures(options: argparse.Namespace) -> int:
    from eisnn.training import figures

    for path in figures.make_figures(options.folder, options.out):
        print(path)
    return 0


def _depth(options: argparse.Namespace) -> int:
    from eisnn.training import figures
    from eisnn.training.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    for path in figures.make_depth_study(recipe, options.out, options.depths):
        print(path)
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


def _memory(options: argparse.Namespace) -> int:
    from eisnn.training import memory
    from eisnn.training.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    print(memory.describe(memory.estimate(recipe, options.input), options.layers))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from eisnn import doctor

    print(doctor.describe(doctor.examine()))
    return 0


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="run folder, RUN/checkpoints/NAME.ckpt, or folder of a published checkpoint",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to run (default: auto, on a GPU if there is one)",
    )


if __name__ == "__main__":
    sys.exit(main())
