"""The equations of the method as pure functions: no modules, no state.

* :mod:`eisnn.functional.circuit`: currents, inhibition, stabilisation, integration
* :mod:`eisnn.functional.neuron`: leaky integrate-and-fire with surrogate gradients
* :mod:`eisnn.functional.init`: the statistics and formulas of E-I Init
"""

from eisnn.functional.circuit import (
    convolution_reach,
    divisive_inhibition,
    fold,
    inhibitory_output,
    integrate,
    scale_grad,
    stabilise,
    subtractive_inhibition,
)
from eisnn.functional.init import (
    InputMoments,
    inhibitory_gain,
    input_moments,
    kaiming_std,
    spike_moments,
    weight_scale,
)
from eisnn.functional.neuron import (
    SURROGATES,
    ArcTan,
    LeakyReLU,
    Sigmoid,
    Surrogate,
    heaviside,
    lif_multistep,
    lif_step,
)

__all__ = [
    "SURROGATES",
    "ArcTan",
    "InputMoments",
    "LeakyReLU",
    "Sigmoid",
    "Surrogate",
    "convolution_reach",
    "divisive_inhibition",
    "fold",
    "heaviside",
    "inhibitory_gain",
    "inhibitory_output",
    "input_moments",
    "integrate",
    "kaiming_std",
    "lif_multistep",
    "lif_step",
    "scale_grad",
    "spike_moments",
    "stabilise",
    "subtractive_inhibition",
    "weight_scale",
]
