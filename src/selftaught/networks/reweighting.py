"""The heads of the projection-head study: none, linear, MLP, one that starts as the identity, and a fixed reweighting.

All map R^d to R^d. (Xue, Gan, Ni, Joshi, Mirzasoleiman, ICLR 2024, arXiv 2403.11391.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.heads import mlp

__all__ = ["HEADS", "Reweighting", "SymmetrisedReLU", "projection_head", "reweighting"]

HEADS = ("none", "linear", "mlp", "mlp2", "identity-mlp", "reweight")


def reweighting(dim: int, kappa: float = 1.05, *, normalise: bool = False) -> Tensor:
    """The fixed weights w_i = kappa^(-i), i = 0..d-1: (d,) float32.

    Computed as exp(-i log kappa) in float64 and cast, so that they underflow to 0 without a NaN; the coordinates of
    weight 0 get no gradient, which is as it should be.

    Args:
        dim: d.
        kappa: at least 1; 1 leaves everything as it is.
        normalise: scale the weights so that the mean of w^2 is 1.

    Raises:
        UserError: d below 1, or kappa below 1.
    """
    if dim < 1 or not 1 <= kappa < math.inf:
        raise UserError(f"reweighting of {dim} coordinates with kappa={kappa}: give 1 or more of each")
    logarithms = -torch.arange(dim, dtype=torch.float64) * math.log(kappa)
    if normalise:
        logarithms = logarithms - ((2 * logarithms).logsumexp(0) - math.log(dim)) / 2
    return logarithms.exp().float()


class Reweighting(nn.Module):
    """The fixed head z_i = kappa^(-i) h_i: nothing to train, one knob.

    Args:
        dim: d.
        kappa: see `reweighting`; 1.05 in pre-training, 1.01 on ImageNet in the authors' code.
        normalise: mean of w^2 is 1.

    Attributes:
        weight: (d,) buffer.
    """

    weight: Tensor

    def __init__(self, dim: int, kappa: float = 1.05, *, normalise: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", reweighting(dim, kappa, normalise=normalise))

    def forward(self, h: Tensor) -> Tensor:
        """(N, d) to (N, d)."""
        return h * self.weight


class SymmetrisedReLU(nn.Module):
    """s_b(x) = ReLU(x - b) - ReLU(-x - b) with one learnable threshold b, at first 0: then s_0(x) = x.

    For b >= 0 that is soft-thresholding, sign(x) max(|x| - b, 0).

    Attributes:
        threshold: b, a scalar parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.relu(x - self.threshold) - torch.relu(-x - self.threshold)


def identity_mlp(dim: int) -> nn.Sequential:
    """Linear(d, d) - symmetrised ReLU - Linear(d, d), both weights I and biases 0: at first exactly the identity.

    Args:
        dim: d.
    """
    layers = nn.Sequential(nn.Linear(dim, dim), SymmetrisedReLU(), nn.Linear(dim, dim))
    for linear in (layers[0], layers[2]):
        nn.init.eye_(linear.weight)  # type: ignore[arg-type]
        nn.init.zeros_(linear.bias)  # type: ignore[arg-type]
    return layers


def projection_head(
    kind: str = "mlp", dim: int = 2048, *, kappa: float = 1.05, normalise_weights: bool = False
) -> nn.Module:
    """Make a head of the study.

    | kind | g |
    | --- | --- |
    | none | the identity |
    | linear | one Linear(d, d) |
    | mlp, mlp2 | one or two hidden layers of width d with ReLU, then Linear(d, d) |
    | identity-mlp | `identity_mlp`: trained, but starts as the identity |
    | reweight | `Reweighting`: fixed |

    Args:
        kind: one of `HEADS`.
        dim: d.
        kappa: of the reweighting.
        normalise_weights: of the reweighting.

    Raises:
        UserError: an unknown kind, and what `reweighting` refuses.
    """
    if kind not in HEADS:
        raise UserError(f"head={kind}: choose {', '.join(HEADS)}")
    if kind == "reweight":
        return Reweighting(dim, kappa, normalise=normalise_weights)
    if kind == "identity-mlp":
        return identity_mlp(dim)
    if kind == "none":
        return nn.Identity()
    return mlp([dim] * {"linear": 2, "mlp": 3, "mlp2": 4}[kind], norm="none")
