"""The recorded reference numbers in ``tests/data``, and how to compare with them.

They come from the paper's published implementation. A file holds float32 values and, under
``f64.``, what the same model computes in float64 from the same float32 inputs and parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from eisnn.models.layers import Layers
from eisnn.models.mlp import mlp_body
from eisnn.models.network import SpikingNetwork
from eisnn.models.resnet import ResidualBlock
from eisnn.models.vgg import vgg_body

DATA = Path(__file__).parent / "data"

LAYERS = [
    "ei_linear_init",
    "ei_linear_sparse",
    "ei_conv2d_spikes_3x3",
    "ei_conv2d_spikes_3x3_sparse",
    "ei_conv2d_image_3x3",
    "ei_conv2d_counts_1x1_stride2",
]
NETWORKS = ["ei_mlp4", "ei_mlp4_narrow", "bn_mlp4_narrow", "ei_vgg8_narrow"]
DTYPES = [torch.float64, torch.float32]


class Golden:
    """One file: ``file[key]`` is a tensor, ``file.meta`` the settings of the case."""

    def __init__(self, name: str) -> None:
        self.name = name
        with safe_open(DATA / f"{name}.safetensors", "pt") as file:
            self.tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.meta: dict[str, Any] = {k: _parse(v) for k, v in file.metadata().items()}

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def expected(self, key: str, dtype: torch.dtype) -> Tensor:
        """The value that a computation in ``dtype`` must reproduce."""
        twin = f"f64.{key}"
        return self[twin if dtype == torch.float64 and twin in self else key]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The entries below a prefix, without it."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def _parse(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def assert_same(
    got: Tensor,
    expected: Tensor,
    what: str,
    rtol: float | None = None,
    scale: float | None = None,
) -> None:
    """``got`` equals ``expected`` to rounding.

    Args:
        rtol: relative to the entry, and also, for entries that are small by cancellation,
            to ``scale``. 1e-10 for float64 and 1e-4 for float32 if not given.
        scale: the largest expected entry if not given; an entry may be off by
            ``rtol * scale / 100`` in float64, ``rtol * scale`` in float32.
    """
    expected = expected.reshape(got.shape)
    wide = got.dtype == torch.float64
    rtol = (1e-10 if wide else 1e-4) if rtol is None else rtol
    finite = expected[expected.isfinite()].abs()
    scale = (finite.max().item() if finite.numel() else 0.0) if scale is None else scale
    torch.testing.assert_close(
        got.detach(),
        expected.to(got.dtype),
        rtol=rtol,
        atol=rtol * scale * (0.01 if wide else 1.0),
        msg=lambda text: f"{what}: {text}",
    )


# -- networks -------------------------------------------------------------------------------


def key_map(name: str) -> dict[str, str]:
    """Prefix of a module in the file to prefix of the module here that has its parameters."""
    if name == "ei_basicblock":
        pairs = [("conv1", "norm1", "main.conv1"), ("conv2", "norm2", "main.conv2")]
        pairs += [("downsample.0", "downsample.1", "shortcut.conv")]
    elif name == "ei_vgg8_narrow":
        pairs = [
            (f"layers.{2 + 7 * i}", f"layers.{3 + 7 * i}", f"body.conv{i + 1}") for i in range(5)
        ]
        pairs += [("layers.38", "layers.39", "body.output")]
    elif name == "bn_mlp4_narrow":
        return {
            **{f"layers.{2 + 5 * i}.linear": f"body.linear{i + 1}.0" for i in range(3)},
            **{f"layers.{3 + 5 * i}.bn": f"body.linear{i + 1}.1" for i in range(3)},
            "layers.17.linear": "body.output",
        }
    else:
        pairs = [
            (f"layers.{2 + 5 * i}", f"layers.{3 + 5 * i}", f"body.linear{i + 1}") for i in range(3)
        ]
        pairs += [("layers.17", "layers.18", "body.output")]
    return {official: ours for *officials, ours in pairs for official in officials}


def translate(
    name: str, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Tensors by official key to tensors by our key, in our shapes (``like``).

    Official keys of the output layer's unused gains and bias have no partner here and are
    dropped.
    """
    modules = key_map(name)
    out = {}
    for key, value in tensors.items():
        module, leaf = key.rsplit(".", 1)
        if leaf == "weight" and module.endswith((".conv_ee", ".conv_ie")):
            module, kind = module.rsplit(".", 1)
            leaf = f"weight_{kind[-2:]}"
        ours = f"{modules[module]}.{leaf}"
        if ours in like:
            out[ours] = value.reshape(like[ours].shape).to(
                torch.promote_types(value.dtype, torch.float32)
            )
            if not value.is_floating_point():
                out[ours] = value
        else:
            assert ours in {f"body.output.{n}" for n in ("gain_i", "gain_e", "bias")}, key
    return out


class Block(nn.Module):
    """The residual block on merged input ``[T*B, C, H, W]``, as it was recorded."""

    def __init__(self, block: ResidualBlock, T: int) -> None:
        super().__init__()
        self.block = block
        self.T = T

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.unflatten(0, (self.T, -1))).flatten(0, 1)


def build(golden: Golden, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The network of a file with the parameters it started from."""
    meta = golden.meta
    layers = Layers(
        "bn" if golden.name.startswith("bn") else "ei", ei_ratio=meta.get("ei_ratio", 4)
    )
    model: nn.Module
    if meta["kind"] in ("ei_mlp", "bn_mlp"):
        body = mlp_body(layers, meta["widths"], meta["n_inputs"], meta["n_outputs"])
        model = SpikingNetwork(body, T=meta["T"], in_channels=1)
    elif meta["kind"] == "ei_vgg_narrow":
        stages = [[c] for c in meta["cfg"] if c != "P"]
        body = vgg_body(layers, stages, meta["in_channels"], meta["n_outputs"])
        model = SpikingNetwork(body, T=meta["T"], in_channels=meta["in_channels"])
    else:
        model = ResidualBlock(
            layers, meta["in_channels"], meta["out_channels"], meta["stride"], bottleneck=False
        )
    state = translate(golden.name, golden.under("state_dict."), model.state_dict())
    model.load_state_dict(state, strict=True)
    return model.to(dtype)


def images(flat: Tensor) -> Tensor:
    """The MLPs' recorded ``[B, D]`` inputs as images ``[B, 1, 1, D]``."""
    return flat[:, None, None, :] if flat.dim() == 2 else flat
