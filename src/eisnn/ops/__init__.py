"""The hot operations, fused; each equals its readable form in :mod:`eisnn.functional`."""

from eisnn.ops.backend import BACKENDS, backend_for, unavailable, use_backend
from eisnn.ops.circuit_weight import circuit_weight
from eisnn.ops.convolution import convolve
from eisnn.ops.convolution3x3 import unavailable as winograd_unavailable
from eisnn.ops.neuron import Neuron
from eisnn.ops.product import linear
from eisnn.ops.spiking_circuit import spiking_circuit
from eisnn.ops.transforms import transforming
from eisnn.ops.window import Window, spread

__all__ = [
    "BACKENDS",
    "Neuron",
    "Window",
    "backend_for",
    "circuit_weight",
    "convolve",
    "linear",
    "spiking_circuit",
    "spread",
    "transforming",
    "unavailable",
    "use_backend",
    "winograd_unavailable",
]
