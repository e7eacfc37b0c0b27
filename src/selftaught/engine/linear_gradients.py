"""Networks whose gradient is differentiated once more, by weights on the losses: what that costs, and no more.

A gradient is linear in what comes from above, g, and g alone depends on weights on the losses. For directions x', W'
and b' of the gradients of input, weights and bias, the slope by g is

    convolution     conv(x', W) + conv(x, W') + b'
    normalisation   w N(x') + (x - m) r W' + b',    N(h) = r (h - mean(h) - (x - m) r mean(h (x - m) r))

with the mean m and the inverse deviation r over what is normalised together: a batch's channel, or a sample's features.
"""

from __future__ import annotations

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


def _sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Of those that are there; None of none."""
    there = [part for part in parts if part is not None]
    return sum(there[1:], there[0]) if there else None


# ---- convolutions ----------------------------------------------------------------------------------------------------
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
    how = [[x] * axes if isinstance(x, int) else list(x) for x in (stride, padding, dilation)]
    found: Tensor = _Convolution.apply(input, weight, bias, (*how, False, [0] * axes, groups))
    return found


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.biased = how, bias is not None
        return torch.convolution(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        asked = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.biased and ctx.needs_input_grad[2]]
        made = iter(_ConvolutionGradients.apply(above[0], x, weight, ctx.how, asked))
        return *[next(made) if one else None for one in asked], None


class _ConvolutionGradients(torch.autograd.Function):
    """The gradients that are asked for, of input, kernel and bias."""

    @staticmethod
    def forward(ctx: Any, above: Tensor, x: Tensor, weight: Tensor, how: Any, asked: list[bool]) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.how, ctx.asked = how, asked
        ctx.set_materialize_grads(False)
        made = torch.ops.aten.convolution_backward(above, x, weight, [weight.shape[0]], *how, asked)
        return tuple(gradient for gradient, one in zip(made, asked, strict=True) if one)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> Any:
        x, weight = ctx.saved_tensors
        directions = iter(given)
        dx, dweight, dbias = (next(directions) if one else None for one in ctx.asked)
        parts = [
            None if dx is None else torch.convolution(dx, weight, None, *ctx.how),
            None if dweight is None else torch.convolution(x, dweight, dbias, *ctx.how),
        ]
        if dbias is not None and dweight is None:
            parts.append(dbias.view(1, -1, *[1] * (x.dim() - 2)))
        return _sum(parts), None, None, None, None


# ---- normalisations --------------------------------------------------------------------------------------------------
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
    how = (running_mean, running_var, True, momentum, eps)
    found: Tensor = _Normalisation.apply(input, weight, bias, _OfBatches(how))
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
    found: Tensor = _Normalisation.apply(input, weight, bias, _OfLayers((list(normalized_shape), eps)))
    return found


class _OfBatches:
    """torch's batch normalisation: its pass, its gradients, and x as it is normalised, times other weights."""

    def __init__(self, how: Any) -> None:
        self.how = how

    def normalised(self, x: Tensor, weight: Tensor, bias: Tensor) -> Any:
        return torch.native_batch_norm(x, weight, bias, *self.how)

    def gradients(self, above: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, asked: list[bool]) -> Any:
        eps = self.how[-1]
        return torch.ops.aten.native_batch_norm_backward(above, x, weight, None, None, mean, rstd, True, eps, asked)

    def scaled(self, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        return torch.native_batch_norm(x, weight, bias, mean, rstd.pow(-2), False, 0.0, 0.0)[0]

    def tall(self, weight: Tensor, x: Tensor) -> Tensor:
        return weight.view(1, -1, *[1] * (x.dim() - 2))


class _OfLayers(_OfBatches):
    """torch's layer normalisation."""

    def normalised(self, x: Tensor, weight: Tensor, bias: Tensor) -> Any:
        return torch.native_layer_norm(x, self.how[0], weight, bias, self.how[1])

    def gradients(self, above: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, asked: list[bool]) -> Any:
        bias = torch.empty_like(weight)  # whether there is one decides what is made; its values do not matter
        return torch.ops.aten.native_layer_norm_backward(above, x, self.how[0], mean, rstd, weight, bias, asked)

    def scaled(self, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        return torch.native_layer_norm(x, self.how[0], weight, bias, self.how[1])[0]

    def tall(self, weight: Tensor, x: Tensor) -> Tensor:
        return weight


class _Normalisation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, kind: _OfBatches) -> Tensor:
        made, mean, rstd = kind.normalised(x, weight, bias)
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.kind = kind
        found: Tensor = made
        return found

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> Any:
        asked = list(ctx.needs_input_grad[:3])
        made = iter(_NormalisationGradients.apply(above[0], *ctx.saved_tensors, ctx.kind, asked))
        return *[next(made) if one else None for one in asked], None


class _NormalisationGradients(torch.autograd.Function):
    """The gradients that are asked for, of input, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any, above: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, kind: _OfBatches, asked: Any
    ) -> Any:
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.kind, ctx.asked = kind, asked
        ctx.set_materialize_grads(False)
        made = kind.gradients(above, x, weight, mean, rstd, asked)
        return tuple(gradient for gradient, one in zip(made, asked, strict=True) if one)

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> Any:
        x, weight, mean, rstd = ctx.saved_tensors
        kind, directions = ctx.kind, iter(given)
        dx, dweight, dbias = (next(directions) if one else None for one in ctx.asked)
        one = torch.ones_like(weight)
        parts: list[Tensor | None] = []
        if dx is not None:
            (through, *_) = kind.gradients(dx, x, one, mean, rstd, [True, False, False])
            parts.append(through * kind.tall(weight, x))
        if dweight is not None or dbias is not None:
            slopes = [torch.zeros_like(weight) if d is None else d for d in (dweight, dbias)]
            parts.append(kind.scaled(x, *slopes, mean, rstd))
        return _sum(parts), *[None] * 6


_RULES: dict[Any, Callable[..., Tensor | None]] = {
    F.conv1d: _convolved, F.conv2d: _convolved, F.conv3d: _convolved,
    F.batch_norm: _batch_normed, F.layer_norm: _layer_normed,
}  # fmt: skip
