"""Optimiser steps that one can differentiate through: the parameters after the step as a function of the gradient.

    SGD    b' = mu b + g                                    p' = p - lr (g + mu b' with Nesterov, else b')
    Adam   m' = b1 m + (1 - b1) g, v' = b2 v + (1 - b2) g^2   p' = p - lr m'/(1 - b1^t) / ( sqrt(v'/(1 - b2^t)) + eps )

The state is that of the torch optimiser, which takes the same step afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from selftaught.errors import UserError

__all__ = ["adam_step", "known_gradients", "lookahead", "sgd_step"]

_KEPT = ("momentum_buffer", "exp_avg", "exp_avg_sq")
"""What SGD and Adam keep of every parameter."""

_PIECE, _SMALLEST = 1 << 16, 1e-20


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


def lookahead(
    optimizer: torch.optim.Optimizer, gradients: Mapping[Tensor, Tensor], *, clip: float = 0.0
) -> tuple[dict[Tensor, Tensor], Callable[[Mapping[Tensor, Tensor]], dict[Tensor, Tensor]]]:
    """What ``optimizer.step()`` would make of the parameters, and how that depends on the gradients.

    Nothing is changed, and nothing of autograd is built: `sgd_step` and `adam_step` go number by number, so that their
    derivative is a number for each, taken in closed form beside the step itself.

    Args:
        optimizer: torch's SGD, Adam or AdamW, with its state and learning rates.
        gradients: parameter -> gradient.
        clip: gradients are scaled to a common norm of at most this first, as torch clips them; 0 leaves them.

    Returns:
        parameter -> what it would become; and a function that turns derivatives by these (parameter -> tensor) into
        those by the gradients.

    Raises:
        UserError: another optimiser.
    """
    if not isinstance(optimizer, torch.optim.SGD | torch.optim.Adam):
        raise UserError(f"a step of {type(optimizer).__name__} can't be differentiated: use sgd, adam or adamw")
    given = {p: g.detach() for p, g in gradients.items()}
    scale, norm = 1.0, 0.0
    if clip > 0:
        norm = float(torch.stack(torch._foreach_norm(list(given.values()))).norm())
        scale = min(1.0, clip / (norm + 1e-6))
    after: dict[Tensor, Tensor] = {}
    slope: dict[Tensor, Tensor | float] = {}
    rule = _sgd_ahead if isinstance(optimizer, torch.optim.SGD) else _adam_ahead
    with torch.no_grad():
        for group in optimizer.param_groups:
            for alike in _alike([p for p in group["params"] if p in given], optimizer):
                rule(optimizer, group, alike, given, scale, after, slope)

    def back(derivatives: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        found = {p: d * slope[p] for p, d in derivatives.items()}
        if scale == 1.0:
            return found
        along = sum(float((given[p] * f).sum()) for p, f in found.items()) / (norm * (norm + 1e-6))
        return {p: scale * (f - along * given[p]) for p, f in found.items()}

    return after, back


def _alike(parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> list[list[Tensor]]:
    """Parameters whose step is the same rule: of one device, one type, one count of steps."""
    found: dict[tuple[Any, ...], list[Tensor]] = {}
    for p in parameters:
        state = optimizer.state.get(p, {})
        known = tuple(state.get(name) is not None for name in _KEPT)
        found.setdefault((p.device, p.dtype, known, int(state.get("step", 0))), []).append(p)
    return list(found.values())


def _pieces(*rows: Sequence[Tensor] | None) -> Iterator[list[Any]]:
    """Lists of tensors of the same shapes, cut alike into pieces of which a few at a time stay in the cache."""
    cut = [None if row is None else [part for x in row for part in x.reshape(-1).split(_PIECE)] for row in rows]
    count, start, held = len(cut[0] or ()), 0, 0
    for stop in range(1, count + 1):
        held += len((cut[0] or ())[stop - 1])
        if held >= _PIECE or stop == count:
            yield [None if row is None else row[start:stop] for row in cut]
            start, held = stop, 0


def _sgd_ahead(
    optimizer: Any, group: dict[str, Any], parameters: list[Tensor], given: Any, scale: float, after: Any, slope: Any
) -> None:
    """`sgd_step` of parameters that are alike."""
    lr, momentum = float(group["lr"]), group["momentum"]
    for p in parameters:
        buffer = optimizer.state.get(p, {}).get("momentum_buffer")
        options = {"momentum": momentum, "weight_decay": group["weight_decay"], "nesterov": group["nesterov"]}
        after[p] = sgd_step(p.detach(), scale * given[p] if scale != 1 else given[p], lr=lr, buffer=buffer, **options)
        slope[p] = -lr * (1 + momentum if group["nesterov"] else 1)


def _adam_ahead(
    optimizer: Any, group: dict[str, Any], parameters: list[Tensor], given: Any, scale: float, after: Any, slope: Any
) -> None:
    """`adam_step` of parameters that are alike, and its derivative

    - lr / (1 - b1^t) ( (1 - b1) - (1 - b2) m' g / ((1 - b2^t) r d) ) / d,    r = sqrt(v'/(1 - b2^t)),  d = r + eps
    """
    state = [optimizer.state.get(p, {}) for p in parameters]
    (b1, b2), eps, decay = group["betas"], group["eps"], group["weight_decay"]
    decoupled = isinstance(optimizer, torch.optim.AdamW) or bool(group.get("decoupled_weight_decay"))
    step = int(state[0].get("step", 0)) + 1
    rate, root_of = float(group["lr"]) / (1 - b1**step), (1 - b2**step) ** 0.5
    made = [torch.empty_like(p, memory_format=torch.contiguous_format) for p in parameters]
    slopes = [torch.empty_like(x) for x in made]
    moments = [[s[name] for s in state] if state[0].get(name) is not None else None for name in _KEPT[1:]]
    parts = _pieces([p.detach() for p in parameters], [given[p] for p in parameters], *moments, made, slopes)
    for old, gradient, first, second, new, derivative in parts:
        p, g = _joined(old), scale * _joined(gradient)
        if decay and not decoupled:
            g.add_(p, alpha=decay)
        m = g * (1 - b1) if first is None else torch.lerp(_joined(first), g, 1 - b1)
        v = torch.zeros_like(g) if second is None else _joined(second) * b2
        root = v.addcmul_(g, g, value=1 - b2).sqrt_()
        divisor = torch.add(root.new_tensor(eps), root, alpha=1 / root_of)
        base = p * (1 - float(group["lr"]) * decay) if decay and decoupled else p
        torch._foreach_copy_(new, _split(torch.addcdiv(base, m, divisor, value=-rate), new))
        root.clamp_min_(_SMALLEST).mul_(divisor)  # where g and v are 0: there the moment's part is 0
        whole = root.new_tensor(-rate * (1 - b1))
        found = torch.addcdiv(whole, m.mul_(g), root, value=rate * (1 - b2) / root_of, out=m).div_(divisor)
        torch._foreach_copy_(derivative, _split(found, derivative))
    after |= dict(zip(parameters, made, strict=True))
    slope |= dict(zip(parameters, slopes, strict=True))


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
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _split(joined: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    return list(joined.split([len(x) for x in like]))
