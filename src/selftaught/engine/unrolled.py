"""Optimiser steps that one can differentiate through: the parameters after the step as a function of the gradient.

    SGD    b' = mu b + g                                    p' = p - lr (g + mu b' with Nesterov, else b')
    Adam   m' = b1 m + (1 - b1) g, v' = b2 v + (1 - b2) g^2   p' = p - lr m'/(1 - b1^t) / ( sqrt(v'/(1 - b2^t)) + eps )

The state is that of the torch optimiser, which takes the same step afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from selftaught.errors import UserError

__all__ = ["adam_step", "clipped", "known_gradients", "linear_in_the_loss", "lookahead", "sgd_step"]

_KEPT = ("momentum_buffer", "exp_avg", "exp_avg_sq")
"""What SGD and Adam keep of every parameter."""


def sgd_step(
    parameter: Tensor,
    gradient: Tensor,
    *,
    lr: float,
    momentum: float = 0.0,
    buffer: Tensor | None = None,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Tensor:
    """The parameter after a step of SGD, as torch takes it.

    Args:
        parameter: p.
        gradient: g, with its graph.
        lr: learning rate.
        momentum: mu.
        buffer: b; None before the first step.
        weight_decay: L2 decay, added to the gradient.
        nesterov: Nesterov's form.
    """
    if weight_decay:
        gradient = gradient + weight_decay * parameter
    if momentum:
        velocity = gradient if buffer is None else momentum * buffer + gradient
        gradient = gradient + momentum * velocity if nesterov else velocity
    return parameter - lr * gradient


def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    first: Tensor | None = None,
    second: Tensor | None = None,
    step: int = 0,
) -> Tensor:
    """The parameter after a step of Adam or AdamW, as torch takes it, differentiated through both moments.

    Where the second moment is exactly 0 its root has no derivative: 0 is taken.

    Args:
        parameter: p.
        gradient: g, with its graph.
        lr: learning rate.
        betas: of the moments.
        eps: added to the root.
        weight_decay: L2 decay in the gradient; with ``decoupled`` of the parameter (AdamW).
        decoupled: AdamW.
        first: m so far; None is 0.
        second: v so far; None is 0.
        step: steps taken so far.
    """
    if weight_decay and decoupled:
        parameter = parameter * (1 - lr * weight_decay)
    elif weight_decay:
        gradient = gradient + weight_decay * parameter
    m = (1 - betas[0]) * gradient if first is None else betas[0] * first + (1 - betas[0]) * gradient
    square = (1 - betas[1]) * gradient.square()
    v = square if second is None else betas[1] * second + square
    zero = v == 0
    root = torch.where(zero, 1.0, v).sqrt().masked_fill(zero, 0.0) / (1 - betas[1] ** (step + 1)) ** 0.5
    return parameter - lr / (1 - betas[0] ** (step + 1)) * m / (root + eps)


def clipped(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    """Gradients scaled to a common norm of at most ``limit``, as torch clips them; 0 leaves them."""
    if limit <= 0:
        return list(gradients)
    norm = torch.stack([g.square().sum() for g in gradients]).sum()
    norm = torch.where(norm > 0, norm, 1.0).sqrt() * (norm > 0)
    factor = (limit / (norm + 1e-6)).clamp_max(1.0)
    return [g * factor for g in gradients]


def lookahead(optimizer: torch.optim.Optimizer, gradients: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
    """The parameters that ``optimizer.step()`` would give, as functions of the gradients; nothing is changed.

    Both rules go number by number, so that all parameters of a group take their step as one long vector.

    Args:
        optimizer: torch's SGD, Adam or AdamW, with its state and learning rates.
        gradients: parameter -> gradient with its graph.

    Returns:
        parameter -> what it would become.

    Raises:
        UserError: another optimiser.
    """
    if not isinstance(optimizer, torch.optim.SGD | torch.optim.Adam):
        raise UserError(f"a step of {type(optimizer).__name__} can't be differentiated: use sgd, adam or adamw")
    found: dict[Tensor, Tensor] = {}
    for group in optimizer.param_groups:
        alike: dict[tuple[Any, ...], list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter in gradients:
                state = optimizer.state.get(parameter, {})
                known = tuple(name for name in _KEPT if state.get(name) is not None)
                kind = (parameter.device, parameter.dtype, known, int(state.get("step", 0)))
                alike.setdefault(kind, []).append(parameter)
        for (_, _, known, steps), parameters in alike.items():
            kept = {name: _joined([optimizer.state[p][name] for p in parameters]) for name in known}
            long = _joined([gradients[p] for p in parameters])
            after = _step(optimizer, _joined([p.detach() for p in parameters]), long, group, kept | {"step": steps})
            parts = after.split([p.numel() for p in parameters])
            found |= {p: part.view_as(p) for p, part in zip(parameters, parts, strict=True)}
    return found


class _Known(torch.autograd.Function):
    """0, with gradients that are known already."""

    @staticmethod
    def forward(ctx: Any, count: int, *both: Tensor) -> Tensor:
        ctx.save_for_backward(*both[count:])
        return both[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        gradients = ctx.saved_tensors
        return None, *[upstream[0] * g for g in gradients], *[None] * len(gradients)


def known_gradients(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A scalar 0 whose backward pass gives the parameters these gradients: for those that were computed before.

    Args:
        parameters: one or more.
        gradients: one of the same shape for each.

    Raises:
        UserError: none, or shapes that differ.
    """
    if not parameters or [p.shape for p in parameters] != [g.shape for g in gradients]:
        raise UserError("a gradient of its own shape is needed for each of one or more parameters")
    found: Tensor = _Known.apply(len(parameters), *parameters, *(g.detach() for g in gradients))
    return found


class linear_in_the_loss(TorchFunctionMode):
    """Within it convolutions are built so that a second backward pass, to weights on the losses, costs two of them.

    A gradient is linear in what comes from above, g: that is all that weights on the losses change, and its slope is
    conv(x', W) + conv(x, W') for directions x', W' of the gradients of input and kernel. torch's own second backward
    pass also makes the derivatives by input and kernel, which nobody asks for here, by two more convolutions of
    unusual shapes. Whoever asks for them after this gets none.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Convolutions of batches by the rule above; all else, and paddings by name, as torch does it."""
        found = _convolved(*args, **(kwargs or {})) if function in _CONVOLUTIONS else None
        return function(*args, **(kwargs or {})) if found is None else found


_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


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
        parts = [] if dx is None else [torch.convolution(dx, weight, None, *ctx.how)]
        parts += [] if dweight is None else [torch.convolution(x, dweight, None, *ctx.how)]
        slope: Tensor | None = parts[0] + parts[1] if len(parts) == 2 else parts[0] if parts else None
        if dbias is not None:
            tall = dbias.view(1, -1, *[1] * (x.dim() - 2))
            slope = tall if slope is None else slope + tall
        return slope, None, None, None, None


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def _step(optimizer: Any, parameter: Tensor, gradient: Tensor, group: dict[str, Any], state: Any) -> Tensor:
    common = {"lr": float(group["lr"]), "weight_decay": group["weight_decay"]}
    if isinstance(optimizer, torch.optim.SGD):
        own = {"momentum": group["momentum"], "nesterov": group["nesterov"], "buffer": state.get("momentum_buffer")}
        return sgd_step(parameter, gradient, **common, **own)
    decoupled = isinstance(optimizer, torch.optim.AdamW) or bool(group.get("decoupled_weight_decay"))
    moments = {"first": state.get("exp_avg"), "second": state.get("exp_avg_sq"), "step": state["step"]}
    return adam_step(
        parameter, gradient, **common, betas=group["betas"], eps=group["eps"], decoupled=decoupled, **moments
    )
