"""The paper's networks, each with one body for three kinds of layers.

``norm="ei"`` builds E-I circuits, ``"bn"`` the comparison network with BatchNorm, ``"none"``
the same network without any normalisation.
"""

from eisnn.models.network import SpikingNetwork
from eisnn.models.registry import create_model, list_models

__all__ = ["SpikingNetwork", "create_model", "list_models"]
