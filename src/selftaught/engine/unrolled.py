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

from selftaught.errors import UserError

__all__ = ["adam_step", "clipped", "known_gradients", "lookahead", "sgd_step"]

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
