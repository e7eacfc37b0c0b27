"""Heads: the small fully connected networks that the objectives look at, never the downstream user."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from selftaught.errors import UserError

Norm = Literal["bn", "ln", "none"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
}


def mlp(
    dims: Sequence[int],
    *,
    norm: Norm = "bn",
    hidden_bias: bool = True,
    out_bias: bool = True,
    last_norm: bool = False,
    last_affine: bool = True,
    activation: str = "relu",
) -> nn.Sequential:
    """Projector or predictor: Linear - norm - activation for every hidden layer, a Linear at the end.

    | head | call |
    | --- | --- |
    | SimCLR (2002.05709, B.9) | ``mlp([d, d, 128], hidden_bias=False, out_bias=False, last_norm=True)`` |
    | DCL (2110.06848, reference code) | ``mlp([d, 512, 128], hidden_bias=False)`` |
    | Barlow Twins (2103.03230) | ``mlp([2048, 8192, 8192, 8192], hidden_bias=False, out_bias=False)`` |
    | VICReg expander (2105.04906) | ``mlp([2048, 8192, 8192, 8192], out_bias=False)`` |
    | BYOL projector and predictor (2006.07733) | ``mlp([d, 4096, 256])`` |
    | SimSiam projector (2011.10566) | ``mlp([d, d, d, d], hidden_bias=False, last_norm=True, last_affine=False)`` |
    | MoCo v2 (2003.04297) | ``mlp([d, 2048, 128], norm="none")`` |

    Args:
        dims: widths from input to output, at least two; two make a single Linear.
        norm: after every hidden Linear: BatchNorm1d, LayerNorm or nothing.
        hidden_bias: whether the hidden Linears have a bias (without use where a norm with a shift follows).
        out_bias: whether the last Linear has a bias.
        last_norm: put the norm after the last Linear too, without an activation.
        last_affine: whether that last norm has a scale and a shift.
        activation: relu, gelu, silu, leaky_relu or tanh.

    Returns:
        A module from (N, dims[0]) to (N, dims[-1]).

    Raises:
        UserError: fewer than two widths, a width below one, an unknown norm or activation.
    """
    if len(dims) < 2 or min(dims) < 1:
        raise UserError(f"head widths {list(dims)}: give at least an input and an output width, each 1 or more")
    if norm not in ("bn", "ln", "none"):
        raise UserError(f"norm={norm}: choose bn, ln or none")
    if activation not in ACTIVATIONS:
        raise UserError(f"activation={activation}: choose {', '.join(ACTIVATIONS)}")
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(dims[:-1]):
        layers += [nn.Linear(width_in, width_out, bias=hidden_bias), *_norm(norm, width_out, affine=True)]
        layers.append(ACTIVATIONS[activation]())
    layers.append(nn.Linear(dims[-2], dims[-1], bias=out_bias))
    if last_norm:
        layers += _norm(norm, dims[-1], affine=last_affine)
    return nn.Sequential(*layers)


def _norm(norm: Norm, width: int, *, affine: bool) -> list[nn.Module]:
    if norm == "bn":
        return [nn.BatchNorm1d(width, affine=affine)]
    return [nn.LayerNorm(width, elementwise_affine=affine)] if norm == "ln" else []
