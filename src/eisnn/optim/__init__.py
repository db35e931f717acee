"""Optimisation that fits the circuit: rules that work with any optimiser of torch.

>>> model = eisnn.ei_init_(eisnn.create_model("vgg8", num_classes=10), images)
>>> _ = eisnn.optim.add_homeostasis_(model, images, tonic=1.0)
>>> optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
>>> _ = eisnn.constrain(model, optimiser)
>>> _ = eisnn.optim.homeostasis(model, optimiser)
>>> _ = eisnn.optim.centre_gradients(model, optimiser)
>>> _ = eisnn.optim.agc(model, optimiser)
"""

from eisnn.optim.gradients import agc, centre_gradients
from eisnn.optim.homeostasis import absorb_homeostasis_, add_homeostasis_, homeostasis
from eisnn.optim.hooks import before_step

__all__ = [
    "absorb_homeostasis_",
    "add_homeostasis_",
    "agc",
    "before_step",
    "centre_gradients",
    "homeostasis",
]
