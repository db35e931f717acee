"""Adding homeostasis to a network, keeping it up to date, and absorbing it.

The equations are in :mod:`eisnn.nn.homeostasis`.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from eisnn.nn import EIConv2d, EIModule, EIOutput
from eisnn.nn.homeostasis import Homeostat

__all__ = ["absorb_homeostasis_", "add_homeostasis_", "homeostasis"]


def add_homeostasis_(
    model: nn.Module, batch: Tensor | None = None, *, tonic: float = 0.0
) -> nn.Module:
    """Give every E-I layer of ``model`` but output layers a homeostat, in place.

    Without a batch (or where a ``state_dict`` is loaded afterwards) the network's function stays
    what it was. With a batch, the statistics are those of the batch, layer by layer: each layer's
    integrated current then starts at mean ``b_E`` and variance ``g_E^2`` in every neuron, however
    deep the network is.

    Call it after :func:`eisnn.ei_init_`, and before DistributedDataParallel wraps the model. It
    adds buffers ``homeostasis.*`` to the layers' ``state_dict``.

    Args:
        model: any module with E-I layers; those with homeostasis already keep theirs.
        batch: what ``model`` takes, as for :func:`eisnn.ei_init_`.
        tonic: ``alpha``, the share of mean inhibition that always acts on the divisor.

    Returns:
        ``model``.

    Raises:
        ValueError: ``tonic`` is negative.
    """
    if not tonic >= 0:
        raise ValueError(f"tonic is a share of mean inhibition, >= 0, got {tonic!r}. Use 0 or 1")
    layers = [layer for layer in _integrating(model) if layer.homeostasis is None]
    for layer in layers:
        n_e, n_i = layer.weight_ei.shape
        n_in = layer.weight_ee.shape[1]
        if isinstance(layer, EIConv2d):
            n_in = layer.in_channels
        layer.homeostasis = Homeostat(n_e, n_i, n_in, tonic, like=layer.weight_ei)
    if batch is not None:
        _calibrate_(model, layers, batch)
    return model


def _calibrate_(model: nn.Module, layers: list[EIModule], batch: Tensor) -> None:
    training = {module: module.training for module in model.modules()}
    pending = set(layers)

    def calibrate(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, EIModule)
        if layer in pending:
            pending.remove(layer)
            layer.calibrate_homeostasis_(args[0])

    handles = [layer.register_forward_pre_hook(calibrate) for layer in layers]
    try:
        model.eval()
        with torch.no_grad():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode


def homeostasis(model: nn.Module, optimiser: Optimizer, rate: float = 0.1) -> RemovableHandle:
    """Move the running statistics of ``model`` after every step of ``optimiser``.

    Forward passes in training mode only take note of their moments. After the step the notes of
    all forward passes since the last one, and of all processes of data-parallel training, are
    averaged (one ``all_reduce``), so that the statistics are the same on all ranks.

    Args:
        model: with homeostasis, :func:`add_homeostasis_`.
        optimiser: of ``model``.
        rate: the share by which a running statistic moves to the latest one; about ``1 / rate``
            steps are averaged.

    Returns:
        a handle whose ``remove()`` ends the updates.

    Raises:
        ValueError: ``rate`` is out of its range, or no layer has homeostasis.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate is a share, 0 < rate <= 1, got {rate!r}. Use 0.1")
    if not any(layer.homeostasis for layer in _integrating(model)):
        raise ValueError(
            f"no layer of this {type(model).__name__} has homeostasis. Call "
            "eisnn.optim.add_homeostasis_(model, batch) first"
        )

    def update(*_: object) -> None:
        homeostats = [h for layer in _integrating(model) if (h := layer.homeostasis) is not None]
        notes = [(h, o) for h in homeostats if (o := h.take_observed()) is not None]
        if not notes:
            return
        flat = torch.cat([observed for _h, observed in notes])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
        averages = flat.split([len(observed) for _h, observed in notes])
        for (homeostat, _o), average in zip(notes, averages, strict=True):
            homeostat.update_(average, rate)

    return optimiser.register_step_post_hook(update)


@torch.no_grad()
def absorb_homeostasis_(model: nn.Module) -> nn.Module:
    """Fold the running means and variances into gains and biases, which changes no output.

    ``g_E <- g_E / sqrt(nu)``, ``b_E <- b_E - g_E mu``. Homeostats are removed; those with tonic
    inhibition, which no parameter can express, stay with ``mu = 0``, ``nu = 1``.

    Args:
        model: any module; layers without homeostasis are left as they are.

    Returns:
        ``model``.
    """
    for layer in _integrating(model):
        if layer.homeostasis is None:
            continue
        gain, bias = layer.homeostasis.adapted(layer.gain_e, layer.bias)
        layer.gain_e.copy_(gain)
        layer.bias.copy_(bias)
        layer.homeostasis.mean.zero_()
        layer.homeostasis.variance.fill_(1)
        if not layer.homeostasis.tonic:
            layer.homeostasis = None
    return model


def _integrating(model: nn.Module) -> list[EIModule]:
    return [m for m in model.modules() if isinstance(m, EIModule) and not isinstance(m, EIOutput)]
