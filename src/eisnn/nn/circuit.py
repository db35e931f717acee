"""The E-I circuit as modules: linear layer, convolution, output layer.

Each module is a whole circuit (both weights, lateral inhibition, integration): its fan-in is
known in one place and nothing but tensors flows between modules. The equations are those of
:mod:`eisnn.functional.circuit`.

Legend: T time, B batch, N = T*B samples, C channels, E / I excitatory / inhibitory units,
D fan-in.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from eisnn.functional import circuit
from eisnn.nn.constraint import register_nonnegative, unregister_nonnegative
from eisnn.nn.homeostasis import Homeostat
from eisnn.nn.lif import LIF
from eisnn.nn.options import CircuitOptions
from eisnn.nn.pool import AvgPool2d
from eisnn.ops import (
    Neuron,
    Window,
    circuit_weight,
    convolve,
    linear,
    spiking_circuit,
    transforming,
)

__all__ = ["Currents", "EIConv2d", "EILinear", "EIModule", "EIOutput", "set_options"]

WEIGHTS = ("weight_ee", "weight_ie", "weight_ei")
GAINS = ("gain_i", "gain_e")


class Currents(NamedTuple):
    """Every current of one circuit; shapes ``[N, units]`` or ``[N, units, H, W]``.

    The last three are ``None`` for an output layer, which does not divide. An inhibition that
    the layer's options leave out is zero, and the divisor is one where nothing is divided:
    ``i_int = g_E (i_ee - i_sub) / divisor + b_E`` always.
    """

    i_ee: Tensor
    """Excitatory current, E units."""
    i_ie: Tensor
    """Current into the inhibitory neurons, I units."""
    i_sub: Tensor
    """Subtractive inhibition, E units."""
    i_div: Tensor | None
    """Divisive inhibition before stabilisation, E units."""
    divisor: Tensor | None
    """Divisive inhibition after stabilisation, E units."""
    i_int: Tensor | None
    """Integrated current, E units."""


class EIModule(nn.Module):
    """What every E-I layer is: weights that obey Dale's law and wait for E-I Init.

    A fresh layer has no weights yet: ``weight_ee``, ``weight_ie`` and ``gain_i`` hold NaN
    until :func:`eisnn.ei_init_` draws them or a ``state_dict`` brings them. The mark of being
    initialised is thus part of the values and goes wherever they go.

    Attributes:
        fan_in: ``d``, the number of inputs of one neuron.
        initialised: whether the layer has weights; ``forward`` refuses to run without.
        options: how the layer departs from the published method, :class:`CircuitOptions`; not
            at all, unless assigned.
        homeostasis: running statistics that adapt gains and biases, if
            :func:`eisnn.optim.add_homeostasis_` has added them; else ``None``.
    """

    weight_ee: nn.Parameter
    weight_ie: nn.Parameter
    weight_ei: nn.Parameter
    homeostasis: Homeostat | None
    _options = CircuitOptions()

    def __init__(self, shape_ee: tuple[int, ...], shape_ie: tuple[int, ...]) -> None:
        super().__init__()
        n_e, n_i = shape_ee[0], shape_ie[0]
        self.fan_in = math.prod(shape_ee[1:])
        self.initialised = False
        self._kept: tuple[list[tuple[nn.Parameter, int, int]], Tensor] | None = None
        self.weight_ee = nn.Parameter(torch.full(shape_ee, torch.nan))
        self.weight_ie = nn.Parameter(torch.full(shape_ie, torch.nan))
        self.weight_ei = nn.Parameter(torch.full((n_e, n_i), 1 / n_i))
        self.homeostasis = None
        register_nonnegative(self, *WEIGHTS)

    def _add_integration(self) -> None:
        n_e, n_i = self.weight_ei.shape
        self.gain_i = nn.Parameter(torch.full((n_i,), torch.nan))
        self.gain_e = nn.Parameter(torch.ones(n_e))
        self.bias = nn.Parameter(torch.zeros(n_e))
        register_nonnegative(self, *GAINS)

    @property
    def options(self) -> CircuitOptions:
        return self._options

    @options.setter
    def options(self, options: CircuitOptions) -> None:
        if not isinstance(options, CircuitOptions):
            raise ValueError(
                f"options must be CircuitOptions, got {options!r}. Use eisnn.nn.CircuitOptions(...)"
            )
        own = [name for name in (*WEIGHTS, *GAINS) if hasattr(self, name)]
        (register_nonnegative if options.dale else unregister_nonnegative)(self, *own)
        for name in own:  # what the user has frozen stays so
            if options.learned(name) != self._options.learned(name):
                getattr(self, name).requires_grad_(options.learned(name))
        self._options = options

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.mark_initialised()

    def mark_initialised(self) -> bool:
        """Look whether the weights hold values and remember the answer.

        Called after E-I Init and after loading; call it yourself only after writing to
        ``weight_ee`` by hand.

        Returns:
            the new value of ``initialised``.
        """
        weight = self.weight_ee.detach()
        self.initialised = not (weight.is_meta or bool(weight.isnan().any()))
        return self.initialised

    @abstractmethod
    def _merged(self, x: Tensor) -> Tensor:
        """Check the input and merge time and batch, ``[N, ...]``."""

    @abstractmethod
    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        """``weight x``: matrix product or convolution of the merged input."""

    def _reach(self, x: Tensor) -> Tensor | None:
        """Where inhibitory currents can be non-zero; ``None`` where zeros are exact."""
        return None

    def currents(self, x: Tensor) -> Currents:
        """Every current of the circuit, each computed as its equation says.

        For looking inside. ``forward`` computes the same integrated current with folded
        weights and keeps none of the others.

        Args:
            x: what ``forward`` takes.

        Returns:
            the currents, with time and batch merged.
        """
        x = self._merged(x)
        weight_ei = self._scaled_weight_ei()
        i_ee, i_ie = self._product(x, self.weight_ee), self._product(x, self.weight_ie)
        s_i = self.options.inhibitory_output(i_ie, self._reach(x))
        i_sub = circuit.subtractive_inhibition(s_i, weight_ei)
        if isinstance(self, EIOutput):
            return Currents(i_ee, i_ie, i_sub, None, None, None)
        if not self.options.subtracts:
            i_sub = torch.zeros_like(i_ee)
        i_div, divisor = torch.zeros_like(i_ee), torch.ones_like(i_ee)
        if self.options.divides:
            i_div = circuit.divisive_inhibition(self._with_tonic(s_i), weight_ei, self.gain_i)
            divisor = self.options.divisor(i_div)
        i_int = circuit.integrate(i_ee - i_sub, divisor, *self._gain_and_bias(i_ee.dtype))
        return Currents(i_ee, i_ie, i_sub, i_div, divisor, i_int)

    def spikes(self, x_seq: Tensor, lif: LIF, pool: AvgPool2d | None = None) -> Tensor:
        """``pool(lif(self(x_seq)))`` in one operation, which keeps and moves far less memory.

        :class:`eisnn.nn.Spiking` calls it wherever neurons follow a circuit. A static input
        that :func:`eisnn.nn.present` shows at each step is computed once. Under autocast, spikes
        are of its low-precision type.

        Args:
            x_seq: what ``forward`` takes, with time: ``[T, B, ...]``.
            lif: the circuit's neurons.
            pool: what may follow the neurons of a convolution.

        Returns:
            spikes, or their means over the windows of the pool, ``[T, B, E, ...]``.

        Raises:
            ValueError, RuntimeError: as ``forward``.
        """
        item = self.weight_ee.dim() - 1  # axes of [D] or [C, H, W]
        neuron = Neuron.of(x_seq.shape[0], lif.tau, lif.v_threshold, lif.surrogate)
        fusable = self.options.fused and x_seq.dim() == item + 2 and self._shares_product()
        if neuron is None or not fusable or transforming():
            spikes: Tensor = lif(self(x_seq))
            return spikes if pool is None else pool(spikes)
        # a view that repeats one step, and no gradient to tell the steps apart
        static = neuron.T > 1 and x_seq.stride(0) == 0 and not x_seq.requires_grad
        seen = x_seq[:1] if static else x_seq
        x = self._merged(seen)
        wide = torch.promote_types(self.weight_ee.dtype, torch.float32)
        lead = (*seen.shape[:2], -1)
        reach = self._reach(x)
        currents = self._product(x, self._weight())
        balanced, i_ie = currents.split(list(self.weight_ei.shape), 1)
        if self._observes():
            self._observe(x, balanced, self.options.inhibitory_output(i_ie.to(wide), reach))
        if self.homeostasis is not None and self.homeostasis.tonic:
            currents = torch.cat([balanced, self._with_tonic(i_ie)], 1)
            reach = None  # a divisor is zero only where W_EI is, and then exactly
        window = Window() if pool is None else pool.window(*currents.shape[2:])
        with torch.autocast(x.device.type, enabled=False):
            spikes = spiking_circuit(
                _channels_last(currents).reshape(*lead, currents.shape[1]),
                self._scaled_weight_ei().to(wide) * self.gain_i.to(wide),
                *self._gain_and_bias(wide),
                neuron,
                None if reach is None else _channels_last(reach).reshape(*lead, reach.shape[1]),
                window,
            )
        size = [length // window.size for length in currents.shape[2:]]
        spikes = spikes.view(*x_seq.shape[:2], *size, -1)  # [T, B, H, W, E]
        return spikes.movedim(-1, 2)

    def _shares_product(self) -> bool:
        """Whether one product gives balanced and inhibitory currents."""
        return self.options.folds

    def _scaled_weight_ei(self) -> Tensor:
        """W_EI with its gradient divided by the fan-in (E-I Prop 3)."""
        if not self.options.scale_gradient:
            return self.weight_ei
        return circuit.scale_grad(self.weight_ei, 1 / self.fan_in)

    def _gain_and_bias(self, wide: torch.dtype) -> tuple[Tensor, Tensor]:
        """``g_E`` and ``b_E``, as homeostasis adapts them."""
        gain, bias = self.gain_e.to(wide), self.bias.to(wide)
        return (gain, bias) if self.homeostasis is None else self.homeostasis.adapted(gain, bias)

    def _with_tonic(self, s_i: Tensor) -> Tensor:
        """``s_I + alpha s0``, ``[N, I, ...]``: what the divisor sees of the inhibitory output."""
        if self.homeostasis is None or not self.homeostasis.tonic:
            return s_i
        tonic = self.homeostasis.tonic * self.homeostasis.inhibition
        return s_i + tonic.to(s_i.dtype).view(-1, *[1] * (s_i.dim() - 2))

    def _observes(self) -> bool:
        """Whether homeostasis is to see this forward pass: those of training only."""
        learning = self.training and torch.is_grad_enabled() and not transforming()
        return learning and self.homeostasis is not None

    @torch.no_grad()
    def calibrate_homeostasis_(self, x: Tensor) -> None:
        """Set the statistics of homeostasis to those of ``x``, which is what ``forward`` takes."""
        assert self.homeostasis is not None
        x = self._merged(x)
        balanced, s_i = self._balance(x)
        for _ in range(2):  # the quotient depends on the tonic inhibition
            self.homeostasis.calibrate_(x, s_i, balanced.to(s_i.dtype) / self._divisor(s_i))

    @torch.no_grad()
    def _observe(self, x: Tensor, balanced: Tensor, s_i: Tensor) -> None:
        assert self.homeostasis is not None
        with torch.autocast(x.device.type, enabled=False):
            self.homeostasis.observe(x, s_i, balanced.to(s_i.dtype) / self._divisor(s_i))

    def _balance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be divided, ``I_EE - I_sub``, and ``s_I``, both of merged input."""
        reach = self._reach(x)
        wide = torch.promote_types(self.weight_ee.dtype, torch.float32)
        if self._shares_product():
            both = self._product(x, self._weight())
            balanced, i_ie = both.split(list(self.weight_ei.shape), 1)
            return balanced, self.options.inhibitory_output(i_ie.to(wide), reach)
        # A difference of two large currents that is not folded needs their full precision.
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight_ee.dtype)
            i_ee, i_ie = self._product(x, self.weight_ee), self._product(x, self.weight_ie)
            s_i = self.options.inhibitory_output(i_ie.to(wide), reach)
            if not self._subtracts():
                return i_ee, s_i
            i_sub = circuit.subtractive_inhibition(s_i, self._scaled_weight_ei().to(wide))
            return i_ee - i_sub, s_i

    def _subtracts(self) -> bool:
        """Whether there is subtractive inhibition."""
        return self.options.subtracts

    def _integrate(self, x: Tensor, balanced: Tensor, s_i: Tensor) -> Tensor:
        """Integrated current, computed in float32 or better."""
        wide = torch.promote_types(self.weight_ee.dtype, torch.float32)
        if self._observes():
            self._observe(x, balanced, s_i)
        with torch.autocast(balanced.device.type, enabled=False):
            balanced = balanced.to(wide)
            i_int = circuit.integrate(balanced, self._divisor(s_i), *self._gain_and_bias(wide))
        return i_int.to(self.weight_ee.dtype)

    def _divisor(self, s_i: Tensor) -> Tensor:
        """``stab(I_div)``, or one where nothing is divided."""
        if not self.options.divides:
            return s_i.new_ones(())
        weight_ei, gain_i = self._scaled_weight_ei().to(s_i.dtype), self.gain_i.to(s_i.dtype)
        i_div = circuit.divisive_inhibition(self._with_tonic(s_i), weight_ei, gain_i)
        return self.options.divisor(i_div)

    def _weight(self) -> Tensor:
        """The circuit's one weight, ``[E + I, ...]``: folded rows, then the inhibitory ones.

        In evaluation mode without gradients it is kept until a parameter changes. (PyTorch
        counts changes of a tensor, but not those made behind its back through ``.data``.)
        """
        parameters = (self.weight_ee, self.weight_ie, self.weight_ei)
        if (
            self.training
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or any(type(p) is not nn.Parameter or p.is_inference() for p in parameters)
        ):
            self._kept = None
            return circuit_weight(self.weight_ee, self.weight_ie, self._scaled_weight_ei())
        state = [(p, p._version, p.data_ptr()) for p in parameters]
        if self._kept is None or any(
            old is not new or rest != now
            for (old, *rest), (new, *now) in zip(self._kept[0], state, strict=True)
        ):
            self._kept = (state, circuit_weight(*parameters))
        return self._kept[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # copies and pickles compute their own

    def _samples(self, x: Tensor, item: tuple[str, ...], sizes: tuple[int | None, ...]) -> Tensor:
        """Check the input and merge its leading axes: ``[N, *item]``."""
        name = type(self).__name__
        expected = " or ".join(f"[{', '.join((*lead, *item))}]" for lead in (("N",), ("T", "B")))
        rank = len(item)
        if x.dim() not in (rank + 1, rank + 2) or any(
            size is not None and size != got
            for size, got in zip(sizes, x.shape[-rank:], strict=True)
        ):
            wanted = ", ".join(
                f"{axis} = {size}" for axis, size in zip(item, sizes, strict=True) if size
            )
            raise ValueError(f"{name} takes {expected} with {wanted}, got shape {tuple(x.shape)}")
        weight = self.weight_ee
        if x.device != weight.device:
            raise ValueError(
                f"{name} is on {weight.device}, its input on {x.device}. Move one with .to()"
            )
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(
                f"{name} has {weight.dtype} parameters, its input is {x.dtype}. Convert the input "
                f"with .to({weight.dtype}) (bytes as images: also divide by 255), or run under "
                "torch.autocast for mixed precision"
            )
        if not self.initialised:
            raise RuntimeError(
                f"this {name} has no weights yet. Call eisnn.ei_init_(model, batch) with a batch "
                "of training data, or load a state_dict. (Weights written by hand: call "
                "mark_initialised(); a loaded layer that says this holds NaN: its training "
                "diverged)"
            )
        return x.flatten(0, 1) if x.dim() == rank + 2 else x


def set_options(model: nn.Module, options: CircuitOptions) -> nn.Module:
    """Give every E-I layer of ``model`` these options.

    Call it before making the optimiser, as the options say which parameters learn. A change
    back to ``dale=True`` does not change values: call :func:`eisnn.project_`.

    Args:
        model: any module.
        options: for each of its E-I layers.

    Returns:
        ``model``.
    """
    for module in model.modules():
        if isinstance(module, EIModule):
            module.options = options
    return model


def _inhibitory_count(n_e: int, ei_ratio: int, what: str) -> int:
    """``n_I = n_E // r``, but at least one: a circuit without inhibition is none."""
    if n_e < 1:
        raise ValueError(f"{what} must be a positive number of excitatory units, got {n_e}")
    if not isinstance(ei_ratio, int) or ei_ratio < 1:
        raise ValueError(
            f"ei_ratio is the whole number of excitatory units per inhibitory one, >= 1, "
            f"got {ei_ratio!r}"
        )
    return max(1, n_e // ei_ratio)


class _EIDense(EIModule):
    """Shape and check of the fully connected layers."""

    def __init__(self, in_features: int, out_features: int, *, ei_ratio: int = 4) -> None:
        if in_features < 1:
            raise ValueError(f"in_features must be positive, got {in_features}")
        n_i = _inhibitory_count(out_features, ei_ratio, "out_features")
        super().__init__((out_features, in_features), (n_i, in_features))
        self.in_features = in_features
        self.out_features = out_features

    def _merged(self, x: Tensor) -> Tensor:
        return self._samples(x, ("D",), (self.in_features,))

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        return linear(x, weight)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, inhibitory={self.weight_ie.shape[0]}"


class EILinear(_EIDense):
    r"""Fully connected E-I circuit: ``I_int = g_E (I_EE - I_sub) / stab(I_div) + b_E``.

    Args:
        in_features: size ``D`` of the input, the fan-in.
        out_features: number ``E`` of excitatory units.
        ei_ratio: excitatory units per inhibitory one; ``I = max(1, E // ei_ratio)``.

    Attributes:
        weight_ee: ``[E, D]``, ``>= 0``.
        weight_ie: ``[I, D]``, ``>= 0``.
        weight_ei: ``[E, I]``, ``>= 0``; its gradient is divided by ``D``.
        gain_i: ``[I]``, ``>= 0``.
        gain_e: ``[E]``, ``>= 0``.
        bias: ``[E]``, free.

    Raises:
        ValueError: a size or ratio below one.

    Example:
        >>> layer = EILinear(784, 500)
        >>> x = torch.rand(32, 784).bernoulli()
        >>> _ = eisnn.ei_init_(layer, x)
        >>> layer(x).shape
        torch.Size([32, 500])
    """

    def __init__(self, in_features: int, out_features: int, *, ei_ratio: int = 4) -> None:
        super().__init__(in_features, out_features, ei_ratio=ei_ratio)
        self._add_integration()

    def forward(self, x: Tensor) -> Tensor:
        """The integrated current.

        Args:
            x: ``[N, D]`` or ``[T, B, D]``, non-negative. (Negative values are not looked for
                here, and make no sense: currents get their sign from the weights.) NaN or
                infinite values make that sample's result NaN.

        Returns:
            ``[N, E]`` or ``[T, B, E]``, in the dtype of the parameters.

        Raises:
            ValueError: wrong shape, dtype or device.
            RuntimeError: the layer is not initialised.
        """
        x_nd = self._merged(x)
        i_int = self._integrate(x_nd, *self._balance(x_nd))
        return torch.unflatten(i_int, 0, x.shape[:-1])


class EIOutput(_EIDense):
    r"""Fully connected output layer: the balanced current ``I_EE - I_sub``.

    No division, gain, bias or spikes; logits are its mean over time.

    Args:
        in_features: size ``D`` of the input.
        out_features: number ``E`` of outputs.
        ei_ratio: excitatory units per inhibitory one; ``I = max(1, E // ei_ratio)``.

    Attributes:
        weight_ee: ``[E, D]``, ``>= 0``.
        weight_ie: ``[I, D]``, ``>= 0``.
        weight_ei: ``[E, I]``, ``>= 0``; its gradient is divided by ``D``.

    Raises:
        ValueError: a size or ratio below one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The balanced current.

        Args:
            x: ``[N, D]`` or ``[T, B, D]``, non-negative.

        Returns:
            ``[N, E]`` or ``[T, B, E]``, in the dtype of the parameters.

        Raises:
            ValueError: wrong shape, dtype or device.
            RuntimeError: the layer is not initialised.
        """
        x_nd = self._merged(x)
        if self._shares_product():
            balanced = self._product(x_nd, self._weight()[: self.out_features])
        else:
            balanced, _ = self._balance(x_nd)
        return torch.unflatten(balanced.to(self.weight_ee.dtype), 0, x.shape[:-1])

    def _subtracts(self) -> bool:
        return True

    def _shares_product(self) -> bool:
        return self.options.dale


class EIConv2d(EIModule):
    r"""Convolutional E-I circuit; a unit is a channel and ``W_EI`` acts at each position.

    Args:
        in_channels: input channels ``C``.
        out_channels: excitatory channels ``E``.
        kernel_size: int or (height, width), as are ``stride``, ``padding`` and ``dilation``.
        stride: of the convolution.
        padding: zeros added on each side.
        dilation: spacing of the kernel.
        groups: of input channels; must divide ``C``, ``E`` and ``I``.
        ei_ratio: excitatory channels per inhibitory one; ``I = max(1, E // ei_ratio)``.

    Attributes:
        weight_ee: ``[E, C / groups, kH, kW]``, ``>= 0``.
        weight_ie: ``[I, C / groups, kH, kW]``, ``>= 0``.
        weight_ei: ``[E, I]``, ``>= 0``; its gradient is divided by the fan-in.
        gain_i: ``[I]``, ``>= 0``.
        gain_e: ``[E]``, ``>= 0``.
        bias: ``[E]``, free.

    Raises:
        ValueError: sizes or groups that do not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        *,
        ei_ratio: int = 4,
    ) -> None:
        if in_channels < 1:
            raise ValueError(f"in_channels must be positive, got {in_channels}")
        n_i = _inhibitory_count(out_channels, ei_ratio, "out_channels")
        if groups < 1 or any(n % groups for n in (in_channels, out_channels, n_i)):
            raise ValueError(
                f"groups must divide the input channels ({in_channels}), the excitatory "
                f"({out_channels}) and the inhibitory channels ({n_i} = {out_channels} // "
                f"{ei_ratio}), got groups={groups}"
            )
        kernel = _pair(kernel_size, "kernel_size", 1)
        fan_in = (in_channels // groups, *kernel)
        super().__init__((out_channels, *fan_in), (n_i, *fan_in))
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel
        self.stride = _pair(stride, "stride", 1)
        self.padding = _pair(padding, "padding", 0)
        self.dilation = _pair(dilation, "dilation", 1)
        self.groups = groups
        self._add_integration()

    def forward(self, x: Tensor) -> Tensor:
        """The integrated current.

        Args:
            x: ``[N, C, H, W]`` or ``[T, B, C, H, W]``, non-negative. (Negative values are not
                looked for here, and make no sense: currents get their sign from the weights.)
                NaN or infinite values make what they reach NaN.

        Returns:
            ``[N, E, H', W']`` or ``[T, B, E, H', W']``, in the dtype of the parameters.

        Raises:
            ValueError: wrong shape, dtype or device.
            RuntimeError: the layer is not initialised.
        """
        x_nchw = self._merged(x)
        i_int = self._integrate(x_nchw, *self._balance(x_nchw))
        return torch.unflatten(i_int, 0, x.shape[:-3])

    def _merged(self, x: Tensor) -> Tensor:
        return self._samples(x, ("C", "H", "W"), (self.in_channels, None, None))

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        return convolve(x, weight, self.stride, self.padding, self.dilation, self.groups)

    def _shares_product(self) -> bool:
        return self.groups == 1 and super()._shares_product()  # none reaches across groups

    def _reach(self, x: Tensor) -> Tensor | None:
        if zeros_are_exact(x, self.kernel_size):
            return None
        return circuit.convolution_reach(
            x, self.weight_ie, self.stride, self.padding, self.dilation, self.groups
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"groups={self.groups}, inhibitory={self.weight_ie.shape[0]}"
        )


def zeros_are_exact(x: Tensor, kernel_size: tuple[int, int]) -> bool:
    """Whether a convolution of ``x`` returns exactly zero where every product is zero.

    Sums of products do, in any precision. PyTorch computes convolutions so on the CPU, and
    1x1 convolutions everywhere; on other devices the algorithm may transform its input.
    """
    return x.device.type == "cpu" or kernel_size == (1, 1)


def _channels_last(x: Tensor) -> Tensor:
    """``[N, C, H, W]`` (channels last in memory: a view) or ``[N, C]`` to ``[N, ..., C]``."""
    return x.movedim(1, -1)


def _pair(value: int | tuple[int, int], name: str, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(not isinstance(n, int) or n < least for n in pair):
        raise ValueError(f"{name} must be a whole number or two of them >= {least}, got {value!r}")
    return pair
