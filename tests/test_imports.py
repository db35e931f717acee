"""Imports run strictly downward, and the core brings nothing heavier than torch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import eisnn

ROOT = Path(eisnn.__file__).parent
LAYERS = [
    ("cli",),
    ("training", "analysis", "interop", "doctor"),
    ("optim", "models", "data"),
    ("initialise",),
    ("nn",),
    ("ops",),
    ("functional",),
]
LEVEL = {part: level for level, parts in enumerate(reversed(LAYERS)) for part in parts}
EXTRAS = [
    "lightning",
    "matplotlib",
    "safetensors",
    "jsonargparse",
    "sklearn",
    "yaml",
    "rich",
    "torchmetrics",
]


def part_of(module: str) -> str:
    """``eisnn.nn.lif`` is of ``nn``; names of the package itself are of where they live."""
    part = module.split(".")[1]
    return eisnn._HOME[part].split(".")[1] if part in eisnn._HOME else part


def imported(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Everything of eisnn that a module names: imported anywhere in it, or used as ``eisnn.x``."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("eisnn."))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            if base == "eisnn":
                yield from (f"eisnn.{a.name}" for a in node.names)
            elif base.startswith("eisnn."):
                yield base
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "eisnn"
            and not node.attr.startswith("__")
        ):
            yield f"eisnn.{node.attr}"


def upward(source: str, module: str, is_package: bool = False) -> list[str]:
    own = LEVEL[part_of(module)]
    return [m for m in imported(source, module, is_package) if LEVEL[part_of(m)] > own]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(("eisnn", *parts)).removesuffix(".__init__")
        if name not in ("eisnn", "eisnn.__main__"):
            found[name] = path
    return found


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_from_its_own_or_lower_layers_only(module: str) -> None:
    path = modules()[module]
    assert part_of(module) in LEVEL, "a new part of the package needs a place in LAYERS"
    assert upward(path.read_text(), module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("eisnn.nn.lif", "from eisnn.models import create_model", ["eisnn.models"]),
        ("eisnn.nn.lif", "import eisnn.models.vgg as vgg", ["eisnn.models.vgg"]),
        ("eisnn.nn.lif", "from eisnn import models", ["eisnn.models"]),
        ("eisnn.nn.lif", "from eisnn import ei_init_", ["eisnn.ei_init_"]),
        ("eisnn.nn.lif", "def f():\n    from ..data import x", ["eisnn.data"]),
        ("eisnn.nn.lif", "from .. import data", ["eisnn.data"]),
        ("eisnn.nn", "from ..training import x", ["eisnn.training"]),
        ("eisnn.models.vgg", "import eisnn\neisnn.interop.load_published", ["eisnn.interop"]),
        ("eisnn.functional.init", "from eisnn.ops import x", ["eisnn.ops"]),
        ("eisnn.initialise", "from eisnn.nn import x\nfrom eisnn import project_", []),
        ("eisnn.training.run", "import eisnn\neisnn.__version__\nfrom eisnn.analysis import x", []),
        ("eisnn.nn", "from .lif import LIF\nfrom eisnn.nn.time import present", []),
    ],
)
def test_the_rule_finds_every_form_of_import(module: str, source: str, found: list[str]) -> None:
    assert upward(source, module, is_package=module == "eisnn.nn") == found


def fresh(code: str) -> str:
    """What ``code`` prints in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout


HELP = "import eisnn, pydoc; print('interop' in dir(eisnn), len(pydoc.render_doc(eisnn)) > 500)"


def test_dir_lists_what_is_public_and_help_works_without_extras() -> None:
    assert set(eisnn.__all__) <= set(dir(eisnn))
    assert set(dir(eisnn)) - set(eisnn.__all__) == {n for n in dir(eisnn) if n.startswith("__")}
    assert fresh(HELP).split() == ["True", "True"]
    without = f"import sys\nfor name in {EXTRAS!r}: sys.modules[name] = None\n"
    assert fresh(without + HELP).split() == ["False", "True"]


CORE = "eisnn.nn, eisnn.create_model, eisnn.ei_init_, eisnn.project_, eisnn.functional"


def test_the_core_needs_torch_only_and_no_time_of_its_own() -> None:
    code = f"""
import json, sys, time
import torch
before = time.perf_counter()
import eisnn
lazy = [m for m in sys.modules if m.startswith("eisnn.")]
{CORE}, eisnn.constrain, eisnn.is_initialised, eisnn.list_models()
seconds = time.perf_counter() - before
print(json.dumps([seconds, lazy, sorted({{m.split(".")[0] for m in sys.modules}})]))
"""
    for _ in range(3):  # the time on a busy machine is not the import's
        seconds, lazy, loaded = json.loads(fresh(code))
        assert "torch" in loaded
        assert set(loaded).isdisjoint(EXTRAS)
        assert lazy == []
        if seconds < 0.3:
            return
    pytest.fail(f"importing eisnn takes {seconds:.2f} s more than torch")


def test_the_core_works_where_no_extra_is_installed() -> None:
    code = f"""
import sys
for name in {EXTRAS!r}:
    sys.modules[name] = None  # importing it is an ImportError
import eisnn, torch
{CORE}
model = eisnn.create_model("mlp2", num_classes=3, image_size=4, width=0.1)
x = torch.rand(8, 3, 4, 4)
eisnn.ei_init_(model, x)
eisnn.constrain(model, torch.optim.SGD(model.parameters()))
print(tuple(model(x).shape))
"""
    assert fresh(code).strip() == "(8, 3)"


def test_names_of_the_package_are_all_there() -> None:
    for name in eisnn.__all__:
        assert getattr(eisnn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = eisnn.nothing
