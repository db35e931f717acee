"""Deep spiking networks without normalisation, by excitatory-inhibitory lateral inhibition.

The method is that of Liu, Ding & Yu, "Training Deep Normalization-Free Spiking Neural
Networks with Lateral Inhibition" (ICLR 2026, arXiv 2509.23253).

>>> import torch, eisnn
>>> model = eisnn.create_model("vgg8", num_classes=10)
>>> images = torch.rand(32, 3, 32, 32)                 # [B, C, H, W] in [0, 1]
>>> _ = eisnn.ei_init_(model, images)                  # before the first forward pass
>>> optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
>>> _ = eisnn.constrain(model, optimizer)              # Dale's law after every step
>>> model(images).shape
torch.Size([32, 10])
"""

import importlib
import importlib.util
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eisnn import functional, interop, nn, optim
    from eisnn.initialise import ei_init_, is_initialised
    from eisnn.models import create_model, list_models
    from eisnn.nn.constraint import constrain, project_

__version__ = _version("eisnn")

__all__ = [
    "constrain",
    "create_model",
    "ei_init_",
    "functional",
    "interop",
    "is_initialised",
    "list_models",
    "nn",
    "optim",
    "project_",
]

_HOME = {
    "constrain": "eisnn.nn.constraint",
    "create_model": "eisnn.models",
    "ei_init_": "eisnn.initialise",
    "is_initialised": "eisnn.initialise",
    "list_models": "eisnn.models",
    "project_": "eisnn.nn.constraint",
}
_PACKAGES = ("analysis", "data", "functional", "interop", "models", "nn", "optim", "training")


def __dir__() -> list[str]:
    """What is public; ``help`` imports all that is listed, so not what would be an error."""
    missing = {"interop"} if importlib.util.find_spec("safetensors") is None else set()
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))} - missing)


def __getattr__(name: str) -> Any:
    """Import at first use: ``eisnn --help`` need not wait for torch, nor the core for extras."""
    if name in _PACKAGES:
        return importlib.import_module(f"eisnn.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'eisnn' has no attribute {name!r}")
