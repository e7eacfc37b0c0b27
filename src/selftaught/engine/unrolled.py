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
from torch.optim.adam import adam

from selftaught.errors import UserError

__all__ = ["adam_step", "known_gradients", "lookahead", "sgd_step"]

_KEPT = ("momentum_buffer", "exp_avg", "exp_avg_sq")
"""What SGD and Adam keep of every parameter."""

_PIECE, _SMALLEST = 1 << 17, 1e-20


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
    if any(group.get(name) for group in optimizer.param_groups for name in ("amsgrad", "maximize")):
        raise UserError("a step with amsgrad or maximize can't be differentiated here")
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


def _pieces(*rows: Sequence[Tensor]) -> Iterator[list[Any]]:
    """Lists of tensors of the same layouts, cut alike into pieces of which a few at a time stay in the cache."""
    cut = [[part for x in row for part in _flat(x).split(_PIECE)] for row in rows]
    start, held = 0, 0
    for stop in range(1, len(cut[0]) + 1):
        held += len(cut[0][stop - 1])
        if held >= _PIECE or stop == len(cut[0]):
            yield [row[start:stop] for row in cut]
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
    """`adam_step` of parameters that are alike, by torch's own kernel on copies, and its derivative

    - lr / (1 - b1^t) ( (1 - b1) - (1 - b2) m' g / ((1 - b2^t) r d) ) / d,    r = sqrt(v'/(1 - b2^t)),  d = r + eps
    """
    (b1, b2), eps, decay, lr = group["betas"], group["eps"], group["weight_decay"], float(group["lr"])
    decoupled = isinstance(optimizer, torch.optim.AdamW) or bool(group.get("decoupled_weight_decay"))
    states = [optimizer.state.get(p, {}) for p in parameters]
    done = int(states[0].get("step", 0))
    made = [p.detach().clone() for p in parameters]
    gradients = [_laid_out_as(x, given[p]) for x, p in zip(made, parameters, strict=True)]
    if scale != 1:
        gradients = [g * scale for g in gradients]
    if decay and not decoupled:
        gradients = [g.add(x, alpha=decay) for g, x in zip(gradients, made, strict=True)]
    means, squares = (
        [
            torch.zeros_like(x) if s.get(name) is None else _laid_out_as(x, s[name]).clone()
            for x, s in zip(made, states, strict=True)
        ]
        for name in _KEPT[1:]
    )
    adam(
        made, gradients, means, squares, [], [torch.tensor(float(done), device=x.device) for x in made],
        fused=bool(group.get("fused")), decoupled_weight_decay=decoupled, amsgrad=False, beta1=b1, beta2=b2, lr=lr,
        weight_decay=decay if decoupled else 0.0, eps=eps, maximize=False,
    )  # fmt: skip
    rate, root_of = lr / (1 - b1 ** (done + 1)), (1 - b2 ** (done + 1)) ** 0.5
    for gradient, first, second in _pieces(gradients, means, squares):  # the mean becomes the derivative
        torch._foreach_sqrt_(second)
        divisor = torch._foreach_div(second, root_of)
        torch._foreach_add_(divisor, eps)
        torch._foreach_clamp_min_(second, _SMALLEST)  # where g and v are 0: there the moment's part is 0
        torch._foreach_mul_(second, divisor)
        torch._foreach_mul_(first, gradient)
        torch._foreach_div_(first, second)
        torch._foreach_mul_(first, rate * (1 - b2) / root_of)
        torch._foreach_sub_(first, rate * (1 - b1))
        torch._foreach_div_(first, divisor)
    after |= dict(zip(parameters, made, strict=True))
    slope |= dict(zip(parameters, means, strict=True))


def _laid_out_as(like: Tensor, x: Tensor) -> Tensor:
    """``x`` in the memory layout of ``like``, which the kernels go through number by number."""
    return x if x.stride() == like.stride() else torch.empty_like(like).copy_(x)


def _flat(x: Tensor) -> Tensor:
    """All numbers in the order in which they lie; of a copy, which lies without gaps."""
    return x.view(-1) if x.is_contiguous() else x.as_strided((x.numel(),), (1,))


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
