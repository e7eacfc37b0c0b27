"""Heads: the small fully connected networks that the objectives look at, never the downstream user."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from selftaught.errors import UserError

__all__ = ["DINOHead", "Prototypes", "dino_head", "mlp"]

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


class Prototypes(nn.Module):
    """Scores of embeddings against prototypes of length 1: a linear layer without bias (SwAV, arXiv 2006.09882).

    Args:
        dim: width D of an embedding.
        count: prototypes K.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        if dim < 1 or count < 1:
            raise UserError(f"{count} prototypes of width {dim}: both must be 1 or more")
        self.weight = nn.Parameter(normalize(torch.randn(count, dim)))

    def forward(self, z: Tensor) -> Tensor:
        """(N, D) embeddings -> (N, K) scores; cosines where both sides have length 1."""
        return linear(z, self.weight)

    @torch.no_grad()
    def normalise(self) -> None:
        """Scale every prototype to length 1, in place: after each optimiser step."""
        self.weight.copy_(normalize(self.weight))


class DINOHead(nn.Module):
    """DINO's head: MLP, bottleneck on the unit sphere, prototypes of fixed length 1 (arXiv 2104.14294, appendix C).

    Made by :func:`dino_head`.
    """

    def __init__(self, body: nn.Module, prototypes: nn.Module) -> None:
        super().__init__()
        self.body, self.prototypes = body, prototypes

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) features -> (N, K) logits, not divided by a temperature."""
        z = self.body(x)
        return self.prototypes(normalize(z.to(torch.promote_types(z.dtype, torch.float32)), eps=1e-6))


def dino_head(
    dim: int, out: int = 65536, *, hidden: int = 2048, bottleneck: int = 256, layers: int = 3, norm: Norm = "none"
) -> DINOHead:
    """The projection head of DINO: GELU MLP, a bottleneck scaled to length 1, weight-normalised prototypes.

    Args:
        dim: width of the encoder's features.
        out: prototypes K (65536 in the paper).
        hidden: width of the hidden layers.
        bottleneck: width before the prototypes.
        layers: linear layers of the MLP, at least 1.
        norm: after the hidden layers; the paper takes none with transformers.

    Raises:
        UserError: less than one layer, or a width below one.
    """
    if layers < 1 or out < 1:
        raise UserError(f"dino_head: layers={layers}, out={out}; give 1 or more of each")
    body = mlp([dim, *[hidden] * (layers - 1), bottleneck], norm=norm, activation="gelu")
    for module in body:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    last = nn.utils.parametrizations.weight_norm(nn.Linear(bottleneck, out, bias=False))
    magnitude = last.parametrizations.weight.original0
    nn.init.ones_(magnitude)
    magnitude.requires_grad_(False)
    return DINOHead(body, last)
