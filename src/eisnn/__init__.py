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
from importlib.metadata import version as _version
from types import ModuleType

from eisnn import functional, nn
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
    "project_",
]


def __getattr__(name: str) -> ModuleType:
    if name == "interop":  # needs safetensors, which the core does not
        return importlib.import_module("eisnn.interop")
    raise AttributeError(f"module 'eisnn' has no attribute {name!r}")
