"""Networks whose gradient is differentiated once more, by weights on the losses: what that costs, and no more.

A gradient is linear in what comes from above, g, and g alone depends on weights on the losses. For directions x', W'
and b' of the gradients of input, weights and bias, the slope by g is

    convolution     conv(x', W) + conv(x, W') + b'
    normalisation   w N(x') + (x - m) r W' + b',    N(h) = r (h - mean(h) - (x - m) r mean(h (x - m) r))

with the mean m and the inverse deviation r over what is normalised together: a batch's channel, or a sample's features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["linear_in_the_loss"]


class linear_in_the_loss(TorchFunctionMode):
    """Within it layers are built so that a second backward pass, to weights on the losses, costs what it must.

    torch's own second backward pass also makes the derivatives by a layer's input and weights, which nobody asks for
    here: two more convolutions of unusual shapes, or a dozen passes over memory for a normalisation. Whoever asks for
    them after this gets none. Convolutions of batches, batch normalisation by a batch's own statistics and layer
    normalisation follow the rules above; all else, and paddings by name, is as torch has it.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The layer by its rule, if it has one here."""
        rule = _RULES.get(function)
        found = rule(*args, **(kwargs or {})) if rule is not None else None
        return function(*args, **(kwargs or {})) if found is None else found


Parts = Sequence[Tensor | None]


class _Rule(ABC):
    """What a layer does, its gradients, and the slope by what comes from above; ``kept`` is what else `made` gives."""

    def __init__(self, *how: Any) -> None:
        self.how = how

    @abstractmethod
    def made(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Sequence[Tensor]:
        """The layer's output, and what its gradients need besides input and weight."""

    @abstractmethod
    def gradients(self, above: Tensor, asked: list[bool], x: Tensor, weight: Tensor, *kept: Tensor) -> Parts:
        """Of input, weight and bias, those that are asked for."""

    @abstractmethod
    def slope(self, directions: Parts, x: Tensor, weight: Tensor, *kept: Tensor) -> Parts:
        """The parts of it, for directions of the three gradients, None where one was not asked for."""


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rule: _Rule) -> Tensor:
        found, *kept = rule.made(x, weight, bias)
        ctx.save_for_backward(x, weight, *kept)
        ctx.rule = rule
        return found

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> Any:
        asked = list(ctx.needs_input_grad[:3])
        made = iter(_Gradients.apply(above[0], ctx.rule, asked, *ctx.saved_tensors))
        return *[next(made) if one else None for one in asked], None


class _Gradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, above: Tensor, rule: _Rule, asked: list[bool], *saved: Tensor) -> Any:
        ctx.save_for_backward(*saved)
        ctx.rule, ctx.asked = rule, asked
        ctx.set_materialize_grads(False)
        return tuple(g for g, one in zip(rule.gradients(above, asked, *saved), asked, strict=True) if one)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> Any:
        known = iter(given)
        directions = [next(known) if one else None for one in ctx.asked]
        parts = [part for part in ctx.rule.slope(directions, *ctx.saved_tensors) if part is not None]
        return sum(parts[1:], parts[0]) if parts else None, *[None] * (2 + len(ctx.saved_tensors))


def _tall(weight: Tensor, x: Tensor) -> Tensor:
    """One number for each channel of maps."""
    return weight.view(1, -1, *[1] * (x.dim() - 2))


# ---- convolutions ----------------------------------------------------------------------------------------------------
class _Convolution(_Rule):
    def made(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Sequence[Tensor]:
        return (torch.convolution(x, weight, bias, *self.how),)

    def gradients(self, above: Tensor, asked: list[bool], x: Tensor, weight: Tensor, *kept: Tensor) -> Parts:
        found: Parts = torch.ops.aten.convolution_backward(above, x, weight, [weight.shape[0]], *self.how, asked)
        return found

    def slope(self, directions: Parts, x: Tensor, weight: Tensor, *kept: Tensor) -> Parts:
        dx, dweight, dbias = directions
        return (
            None if dx is None else torch.convolution(dx, weight, None, *self.how),
            None if dweight is None else torch.convolution(x, dweight, dbias, *self.how),
            _tall(dbias, x) if dbias is not None and dweight is None else None,
        )


def _convolved(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    axes = weight.dim() - 2
    if isinstance(padding, str) or input.dim() != weight.dim():
        return None
    sides = [[x] * axes if isinstance(x, int) else list(x) for x in (stride, padding, dilation)]
    found: Tensor = _Layer.apply(input, weight, bias, _Convolution(*sides, False, [0] * axes, groups))
    return found


# ---- normalisations --------------------------------------------------------------------------------------------------
class _Normalisation(_Rule):
    """``kept`` are mean and inverse deviation."""

    @abstractmethod
    def through(self, dx: Tensor, x: Tensor, weight: Tensor, *kept: Tensor) -> Tensor:
        """w N(x')."""

    @abstractmethod
    def scaled(self, x: Tensor, weight: Tensor, bias: Tensor, *kept: Tensor) -> Tensor:
        """x as it is normalised, times a weight, and a bias."""

    def slope(self, directions: Parts, x: Tensor, weight: Tensor, *kept: Tensor) -> Parts:
        dx, *both = directions
        own = None if dx is None else self.through(dx, x, weight, *kept)
        if both == [None, None]:
            return (own,)
        dweight, dbias = (torch.zeros_like(weight) if d is None else d for d in both)
        return own, self.scaled(x, dweight, dbias, *kept)


class _OfBatches(_Normalisation):
    """How: running mean and variance, whether they move, momentum, eps."""

    def made(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Sequence[Tensor]:
        return torch.native_batch_norm(x, weight, bias, *self.how)

    def gradients(self, above: Tensor, asked: list[bool], x: Tensor, weight: Tensor, *kept: Tensor) -> Parts:
        how = (None, None, *kept, True, self.how[-1])
        found: Parts = torch.ops.aten.native_batch_norm_backward(above, x, weight, *how, asked)
        return found

    def through(self, dx: Tensor, x: Tensor, weight: Tensor, *kept: Tensor) -> Tensor:
        found = self.gradients(dx, [True, False, False], x, weight, *kept)[0]  # a channel's weight is a factor
        assert found is not None
        return found

    def scaled(self, x: Tensor, weight: Tensor, bias: Tensor, *kept: Tensor) -> Tensor:
        mean, rstd = kept
        return torch.native_batch_norm(x, weight, bias, mean, rstd.pow(-2), False, 0.0, 0.0)[0]


class _OfLayers(_Normalisation):
    """How: the shape that is normalised, eps."""

    def made(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Sequence[Tensor]:
        shape, eps = self.how
        return torch.native_layer_norm(x, shape, weight, bias, eps)

    def gradients(self, above: Tensor, asked: list[bool], x: Tensor, weight: Tensor, *kept: Tensor) -> Parts:
        bias = torch.empty_like(weight)  # whether there is one decides what is made; its values do not matter
        how = (self.how[0], *kept)
        found: Parts = torch.ops.aten.native_layer_norm_backward(above, x, *how, weight, bias, asked)
        return found

    def through(self, dx: Tensor, x: Tensor, weight: Tensor, *kept: Tensor) -> Tensor:
        plain = self.gradients(dx, [True, False, False], x, torch.ones_like(weight), *kept)[0]
        assert plain is not None
        return plain * weight

    def scaled(self, x: Tensor, weight: Tensor, bias: Tensor, *kept: Tensor) -> Tensor:
        return self.made(x, weight, bias)[0]


def _batch_normed(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if not training or weight is None or bias is None:
        return None
    found: Tensor = _Layer.apply(input, weight, bias, _OfBatches(running_mean, running_var, True, momentum, eps))
    return found


def _layer_normed(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    if weight is None or bias is None:
        return None
    found: Tensor = _Layer.apply(input, weight, bias, _OfLayers(list(normalized_shape), eps))
    return found


_RULES: dict[Any, Callable[..., Tensor | None]] = {
    F.conv1d: _convolved, F.conv2d: _convolved, F.conv3d: _convolved,
    F.batch_norm: _batch_normed, F.layer_norm: _layer_normed,
}  # fmt: skip
