"""Modules: thin shells around :mod:`eisnn.functional`."""

from eisnn.nn.circuit import EIConv2d, EILinear, EIModule, EIOutput, set_options
from eisnn.nn.constraint import (
    constrain,
    nonnegative_parameters,
    parameter_groups,
    project_,
    register_nonnegative,
    unregister_nonnegative,
)
from eisnn.nn.lif import LIF
from eisnn.nn.options import CircuitOptions
from eisnn.nn.pool import AvgPool2d
from eisnn.nn.spiking import Spiking
from eisnn.nn.time import TimeWise, present, time_first

__all__ = [
    "LIF",
    "AvgPool2d",
    "CircuitOptions",
    "EIConv2d",
    "EILinear",
    "EIModule",
    "EIOutput",
    "Spiking",
    "TimeWise",
    "constrain",
    "nonnegative_parameters",
    "parameter_groups",
    "present",
    "project_",
    "register_nonnegative",
    "set_options",
    "time_first",
    "unregister_nonnegative",
]
