"""Recipes: everything that defines a training run, typed, readable, in one YAML file.

Unknown keys, wrong types and values out of range are errors that name the field.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

__all__ = [
    "CircuitConfig",
    "DataConfig",
    "ModelConfig",
    "OptimiserConfig",
    "Recipe",
    "TrainingConfig",
    "dump_recipe",
    "list_recipes",
    "load_recipe",
]

Norm = Literal["ei", "bn", "none"]


@dataclass(frozen=True)
class DataConfig:
    """What to train on."""

    name: str
    """Data set, as in ``eisnn.data.load_data``."""
    root: str | None = None
    """Folder of the data sets; the default is ``EISNN_DATA`` or ``~/.cache/eisnn``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the data set, such as ``split``."""
    augmentation: str = "none"
    """Applied to training batches."""
    validation: float = 0.1
    """Share of the training set held back to choose the best epoch on."""
    train_samples: int | None = None
    """Train on no more than so many samples, drawn evenly from the classes."""
    select_on_test: bool = False
    """Choose the best epoch on the test set, as the published runs did; the result says so."""


@dataclass(frozen=True)
class CircuitConfig:
    """How the E-I circuits depart from the published method, for research: the fields of
    ``eisnn.nn.CircuitOptions``, which explains them."""

    stabilisation: Literal["adaptive", "fixed", "none"] = "adaptive"
    epsilon: float = 1e-5
    straight_through: bool = True
    scale_gradient: bool = True
    inhibition: Literal["both", "subtractive", "divisive"] = "both"
    dale: bool = True
    learn_gains: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """Which network; the fields are the arguments of ``eisnn.create_model``, and ``init``."""

    name: str
    norm: Norm = "ei"
    T: int = 4
    ei_ratio: int = 4
    tau: float = 2.0
    v_threshold: float = 1.0
    surrogate: str = "sigmoid"
    classifier: str = "light"
    width: float = 1.0
    recompute: bool = False
    """Less memory for about a third more time; not for BatchNorm."""
    circuit: CircuitConfig = CircuitConfig()
    init: Literal["ei", "fixed_p", "kaiming"] = "ei"
    """How E-I layers get their weights: the ``scheme`` of ``eisnn.ei_init_``."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``eisnn.create_model``, ``name`` among them."""
        from eisnn.nn import CircuitOptions  # brings torch, which listing recipes need not

        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["init"]
        return {**values, "circuit": CircuitOptions(**asdict(self.circuit))}


@dataclass(frozen=True)
class OptimiserConfig:
    """SGD, with a learning rate that warms up linearly and falls to zero along a cosine."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    """Applies to all parameters."""
    warmup_epochs: float = 0.0
    warmup_lr: float = 0.0
    """Learning rate from which the warm-up starts."""
    agc: float | None = None
    """Clip gradients of E-I layers, unit by unit, to this share of the weight:
    ``eisnn.optim.agc``."""
    agc_outputs: bool = False
    """Clip the output layer too; for networks of fifty layers."""
    centre: bool = False
    """Remove what acts along the mean input from gradients of ``W_EE, W_IE, W_EI``:
    ``eisnn.optim.centre_gradients``."""
    homeostasis: float | None = None
    """Every neuron subtracts its mean quotient and divides by its deviation, running averages
    that move by this share at each step: ``eisnn.optim.homeostasis``."""
    tonic: float = 0.0
    """Share of the mean inhibition that always acts on the divisor, a part of homeostasis."""


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how."""

    epochs: int
    batch_size: int
    seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """``bfloat16``, ``float16`` (GPUs only): convolutions and matrix products in it, everything
    else in float32."""
    gradient_clip: float | None = None
    """Largest global norm of the gradient."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one step."""
    patience: int | None = None
    """Stop after this many epochs without a better validation accuracy."""
    checkpoint_minutes: float = 10.0
    """Time between checkpoints within an epoch; one is written after each epoch too."""
    dynamics: bool = True
    """Record what every layer does after each epoch, in dynamics.jsonl."""
    logger: Literal["none", "tensorboard", "wandb"] = "none"
    """In addition to metrics.csv."""
    accelerator: str = "auto"
    """``cpu``, ``gpu``, ..., as Lightning names them."""
    devices: int = 1
    """Number of devices, on each of ``nodes`` machines."""
    nodes: int = 1


@dataclass(frozen=True)
class Recipe:
    """A training run."""

    description: str
    data: DataConfig
    model: ModelConfig
    optimiser: OptimiserConfig
    training: TrainingConfig
    twins: dict[Norm, OptimiserConfig] = field(default_factory=dict)
    """Optimiser settings with which ``--compare`` trains the same network with another norm."""
    published: float | None = None
    """Published top-1 accuracy in % with these settings, of the published checkpoint if there is
    one. Its epoch was chosen on the test set; ``data.select_on_test`` does that too."""
    cost: str = "not measured"
    """What to expect, in words; CPU means two cores."""

    def __post_init__(self) -> None:
        for norm in self.twins:
            _require(norm in get_args(Norm), "a key of twins", f"one of {get_args(Norm)}", norm)
        optimisers = {f"twins.{norm}": twin for norm, twin in self.twins.items()}
        for name, optimiser in {"optimiser": self.optimiser, **optimisers}.items():
            _require(optimiser.lr > 0, f"{name}.lr", "> 0", optimiser.lr)
            for key in ("momentum", "weight_decay", "warmup_epochs", "warmup_lr", "tonic"):
                value = getattr(optimiser, key)
                _require(value >= 0, f"{name}.{key}", ">= 0", value)
            agc, rate, tonic = optimiser.agc, optimiser.homeostasis, optimiser.tonic
            _require(agc is None or agc > 0, f"{name}.agc", "> 0 or null", agc)
            fits = agc is not None or not optimiser.agc_outputs
            _require(fits, f"{name}.agc_outputs", f"false without {name}.agc", True)
            a_share = rate is None or 0 < rate <= 1
            _require(a_share, f"{name}.homeostasis", "above 0 and at most 1, or null", rate)
            fits = rate is not None or not tonic
            _require(fits, f"{name}.tonic", f"0 without {name}.homeostasis", tonic)
            of_circuits = (self.model.norm if name == "optimiser" else name[6:]) == "ei"
            for key, off in (("agc", None), ("centre", False), ("homeostasis", None)):
                value = getattr(optimiser, key)
                fits = of_circuits or value == off
                _require(fits, f"{name}.{key}", "left out: it is for E-I networks", value)
        fits = not (self.model.recompute and self.model.norm == "bn")
        _require(
            fits, "model.recompute", "false for BatchNorm, whose statistics it would spoil", True
        )
        epsilon = self.model.circuit.epsilon
        positive = 0 < epsilon < math.inf
        _require(positive, "model.circuit.epsilon", "a positive number", epsilon)
        for key in ("epochs", "batch_size", "accumulate", "devices", "nodes"):
            value = getattr(self.training, key)
            _require(value >= 1, f"training.{key}", ">= 1", value)
        ranks = self.training.devices * self.training.nodes
        _require(
            self.training.batch_size % ranks == 0,
            "training.batch_size",
            f"a multiple of the {ranks} devices, which share each batch",
            self.training.batch_size,
        )
        samples = self.data.train_samples
        _require(samples is None or samples > 0, "data.train_samples", "> 0 or null", samples)
        clip, patience = self.training.gradient_clip, self.training.patience
        _require(clip is None or clip > 0, "training.gradient_clip", "> 0 or null", clip)
        _require(patience is None or patience >= 1, "training.patience", ">= 1 or null", patience)
        watched = self.data.validation > 0 or self.data.select_on_test
        _require(
            patience is None or watched,
            "training.patience",
            "null without a validation set to watch (set data.validation above 0)",
            patience,
        )
        minutes = self.training.checkpoint_minutes
        _require(minutes > 0, "training.checkpoint_minutes", "> 0", minutes)
        published = self.published
        known = published is None or 0 <= published <= 100
        _require(known, "published", "a percentage from 0 to 100", published)
        frames = self.data.options.get("T", self.model.T)
        _require(
            frames == self.model.T,
            "data.options.T",
            f"model.T ({self.model.T}), because the frames of events are the time steps",
            frames,
        )
        share = self.data.validation
        _require(0 <= share < 1, "data.validation", "a share from 0 to below 1", share)
        if self.optimiser.warmup_epochs > self.training.epochs:
            raise ValueError(
                f"optimiser.warmup_epochs ({self.optimiser.warmup_epochs}) must not exceed "
                f"training.epochs ({self.training.epochs})"
            )


def _require(fits: bool, name: str, rule: str, value: object) -> None:
    if not fits:
        raise ValueError(f"{name} must be {rule}, got {value}")


def list_recipes() -> dict[str, Path]:
    """The recipes that come with the package: name to file."""
    folder = Path(str(resources.files("eisnn"))) / "recipes"
    return dict(sorted((path.stem, path) for path in folder.glob("*.yaml")))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or file.

    Args:
        name: one of :func:`list_recipes`, or the path of a YAML file, such as the
            ``config.yaml`` of a run.
        overrides: ``key=value``, such as ``optimiser.lr=0.01``.

    Raises:
        ValueError: no such recipe, an unknown key or a value that does not fit; the message
            names the field.
    """
    known = list_recipes()
    path = known.get(name, Path(name))
    if not path.is_file():
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no recipe or file {name!r}.{hint} Recipes: {', '.join(known)}")
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no recipe: it must be a mapping of fields to values")
    keys = _leaves(Recipe)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ValueError(f"an override is written key=value, got {override!r}")
        if key not in keys and not any(key.startswith(f"{k}.") for k in ("data.options", "twins")):
            raise ValueError(_unknown_field(key))
        *groups, last = key.split(".")
        target = content
        for group in groups:
            target = target.setdefault(group, {})
        target[last] = _parsed(value, keys.get(key))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe)
    try:
        values = parser.instantiate(parser.parse_object(copy.deepcopy(content))).as_dict()
    except (ArgumentError, TypeError) as error:
        reason = _wrong_value(content, Recipe) or f"recipe {name}: {error}"
        raise ValueError(reason) from None
    return Recipe(**values)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML that :func:`load_recipe` reads."""
    text: str = yaml.safe_dump(asdict(recipe), sort_keys=False, allow_unicode=True)
    return text


def _leaves(cls: type, prefix: str = "") -> dict[str, Any]:
    """The fields of a dataclass, with those of nested ones as ``outer.inner``, and their types."""
    leaves: dict[str, Any] = {}
    for name, kind in get_type_hints(cls).items():
        nested = isinstance(kind, type) and is_dataclass(kind)
        leaves |= _leaves(kind, f"{prefix}{name}.") if nested else {prefix + name: kind}
    return leaves


def _unknown_field(key: str) -> str:
    """What to say about a field that does not exist: ``lr`` is known as ``optimiser.lr``."""
    group, _, leaf = key.rpartition(".")
    twin = group.startswith("twins.")
    keys = [k for k in _leaves(Recipe) if not twin or k.startswith("optimiser.")]
    meant = f"optimiser.{leaf}" if twin else key
    same = [k for k in keys if k.rpartition(".")[2] == leaf]
    close = difflib.get_close_matches(meant, same or keys, n=1, cutoff=0.0 if same else 0.4)
    if not close:
        return f"a recipe has no field {key!r}. Fields: {', '.join(keys)}"
    nearest = close[0].replace("optimiser.", f"{group}.") if twin else close[0]
    return (
        f"a recipe has no field {key!r}. Did you mean {nearest!r}? All fields are shown by "
        "eisnn train RECIPE --print-config"
    )


def _parsed(text: str, kind: Any) -> Any:
    """What was written behind ``=``; a folder may be called 2024, and a run of numbers is text."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if kind is str or (kind == str | None and value is not None):
        return value if isinstance(value, str) else text
    return value


def _wrong_value(content: dict[str, Any], cls: type, prefix: str = "") -> str | None:
    """What is wrong: a field that does not exist, or whose value is of another type."""
    kinds = get_type_hints(cls)
    for name in content:
        if name not in kinds:
            return _unknown_field(f"{prefix}{name}")
    for name, kind in kinds.items():
        if name not in content:
            continue
        key, value = prefix + name, content[name]
        nested: dict[str, tuple[Any, type]] = {}
        if isinstance(kind, type) and is_dataclass(kind):
            nested = {key: (value, kind)}
        if name == "twins" and isinstance(value, dict):
            nested = {f"{key}.{norm}": (twin, OptimiserConfig) for norm, twin in value.items()}
        for path, (inner, inner_kind) in nested.items():
            if not isinstance(inner, dict):
                return f"{path} must be a mapping of fields to values, got {inner!r}"
            if reason := _wrong_value(inner, inner_kind, f"{path}."):
                return reason
        if not nested and not _fits(value, kind):
            got = "nothing" if value is None else repr(value)
            return f"{key} must be {_in_words(kind)}, got {got}"
    return None


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of a type, numbers as text included (``1e-4`` is text to YAML)."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is dict:
        return isinstance(value, dict)
    if args := get_args(kind):  # with None
        return any(_fits(value, arg) for arg in args)
    if isinstance(value, bool):
        return kind is bool
    if kind in (int, float) and isinstance(value, str):
        try:
            return math.isfinite(kind(value))
        except ValueError:
            return False
    return isinstance(value, (int, float) if kind is float else kind)


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is dict:
        return "a mapping of names to values"
    if args := get_args(kind):
        return " or ".join(_in_words(arg) for arg in args)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(kind, "null" if kind is NoneType else str(kind))
