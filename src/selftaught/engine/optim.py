"""Optimisers and step-based schedules: AdamW, Adam, SGD, LARS; warm-up with cosine, steps or a constant."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from selftaught.errors import UserError

OPTIMISERS = ("adamw", "adam", "sgd", "lars")
SCHEDULES = ("cosine", "constant", "step", "linear")


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al., arXiv 1708.03888) in the order of Barlow Twins (arXiv 2103.03230).

    For every parameter p with gradient g:

        g <- g + weight_decay * p
        g <- g * eta * ||p|| / ||g||            (factor 1 where either norm is 0)
        mu <- momentum * mu + g
        p <- p - lr * mu

    Parameters with at most one dimension (biases, normalisation) get neither decay nor adaptation.

    Args:
        params: parameters or groups; a group may set its own ``lr`` and any other option.
        lr: learning rate.
        weight_decay: L2 decay, before the adaptation.
        momentum: of the adapted gradient; the first step starts from mu = g.
        eta: trust coefficient.
        clip: bound the adapted step by that of plain SGD: the factor becomes min(eta ||p||/||g|| / lr, 1), as
            solo-learn's option does (its denominator is ||g|| + weight_decay ||p|| with g before the decay).
        exclude_1d: leave biases and normalisation out, as above.

    Raises:
        UserError: a negative learning rate, decay, momentum or eta.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        eta: float = 0.001,
        clip: bool = False,
        exclude_1d: bool = True,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("momentum", momentum), ("eta", eta)):
            if not value >= 0:
                raise UserError(f"{name} of LARS must be at least 0, got {value}")
        defaults = {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "eta": eta, "clip": clip,
            "exclude_1d": exclude_1d,
        }  # fmt: skip
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; a ``closure`` that computes the loss again is called first and its result returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group)
        return loss

    def _step_one(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if parameter.ndim > 1 or not group["exclude_1d"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
            gradient = gradient * _trust_ratio(parameter, gradient, group)
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        parameter.add_(velocity, alpha=-group["lr"])


def _trust_ratio(parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """Eta ||p|| / ||g|| as a tensor: nothing is read back to the host."""
    weight, slope = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(gradient)
    ratio = group["eta"] * weight / slope
    if group["clip"]:
        ratio = (ratio / max(group["lr"], torch.finfo(ratio.dtype).tiny)).clamp_max(1.0)
    return torch.where((weight > 0) & (slope > 0), ratio, torch.ones_like(ratio))


def parameter_groups(
    module: nn.Module, weight_decay: float, *, exclude_bias_and_norm: bool = True, lr: float | None = None,
    lr_excluded: float | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The trainable parameters of a module in two groups: weights with decay, and biases and normalisation without.

    Without decay go all parameters of at most one dimension, and those that a submodule names in ``no_weight_decay()``
    as timm's networks do (position embeddings, class tokens).

    Args:
        module: the module; parameters that need no gradient are left out, shared ones come once.
        weight_decay: of the first group.
        exclude_bias_and_norm: off gives everything the decay, in one group.
        lr: learning rate of the first group; None leaves it to the optimiser.
        lr_excluded: learning rate of the second group (Barlow Twins: 0.0048 against 0.2); None leaves it, too.

    Returns:
        Groups for an optimiser, the order of the parameters that of the module; an empty group is left out.

    Raises:
        UserError: nothing in the module needs a gradient.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise UserError("no parameter of the model needs a gradient; unfreeze some of it")
    exempt = _names_without_decay(module)
    weights: list[nn.Parameter] = []
    excluded: list[nn.Parameter] = []
    for name, parameter in named:
        is_excluded = exclude_bias_and_norm and (parameter.ndim <= 1 or name in exempt)
        (excluded if is_excluded else weights).append(parameter)
    groups: list[dict[str, Any]] = []
    for parameters, decay, rate in ((weights, weight_decay, lr), (excluded, 0.0, lr_excluded)):
        if parameters:
            groups.append({"params": parameters, "weight_decay": decay} | ({} if rate is None else {"lr": rate}))
    return groups


def _names_without_decay(module: nn.Module) -> set[str]:
    names = set()
    for prefix, child in module.named_modules():
        listed = getattr(child, "no_weight_decay", None)
        if callable(listed):
            names |= {f"{prefix}.{name}" if prefix else name for name in listed()}
    return names


def build_optimizer(
    name: str,
    params: Iterable[Any],
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    nesterov: bool = False,
    eta: float = 0.001,
    clip: bool = False,
    fused: bool | None = None,
) -> Optimizer:
    """An optimiser by name, fused into one kernel where torch offers that for the parameters' device.

    Args:
        name: ``"adamw"``, ``"adam"`` (L2 decay in the gradient), ``"sgd"`` or ``"lars"``.
        params: parameters, or groups as :func:`parameter_groups` makes them.
        lr: learning rate of the groups that bring none.
        weight_decay: decay of the groups that bring none.
        momentum: of SGD and LARS.
        betas: of Adam and AdamW.
        eps: of Adam and AdamW.
        nesterov: of SGD.
        eta: trust coefficient of LARS.
        clip: LARS: never beyond the step of plain SGD.
        fused: None chooses by device; False is for gradient clipping under float16 loss scaling, which Lightning
            refuses with fused optimisers.

    Raises:
        UserError: an unknown name.
    """
    if name not in OPTIMISERS:
        raise UserError(f"no optimiser is called {name!r}; choose from {', '.join(OPTIMISERS)}")
    groups = list(params)
    if name == "lars":
        return LARS(groups, lr, weight_decay=weight_decay, momentum=momentum, eta=eta, clip=clip)
    use_fused = _can_fuse(groups) if fused is None else fused
    if name == "sgd":
        return torch.optim.SGD(
            groups, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, fused=use_fused
        )
    kind: type[Adam] = AdamW if name == "adamw" else Adam
    return kind(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=use_fused)


def _can_fuse(groups: list[Any]) -> bool:
    """Whether all parameters are real and floating and lie on devices for which torch has fused optimisers."""
    parameters = [p for g in groups for p in (g["params"] if isinstance(g, dict) else [g])]
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)


def learning_rate_factor(
    step: int,
    *,
    total: int,
    warmup: int = 0,
    schedule: str = "cosine",
    minimum: float = 0.0,
    milestones: int | Sequence[int] = (),
    gamma: float = 0.1,
) -> float:
    """The factor on the base learning rate at a step (counted from 0): a pure function, so resuming needs no state.

    Linear warm-up from 0: step / warmup for step < warmup, so that the very first step has rate 0. Then

        cosine:    minimum + (1 - minimum) (1 + cos(pi (step - warmup) / (total - warmup))) / 2
        constant:  1
        step:      gamma^(number of milestones passed), but at least ``minimum``
        linear:    1 up to the first milestone, or the warm-up's end, then in a line to ``minimum`` at ``total``

    Args:
        step: number of optimiser steps taken so far. From ``total`` on the cosine stays at ``minimum``.
        total: number of steps of the run.
        warmup: steps of the warm-up; 0 for none.
        schedule: ``"cosine"``, ``"constant"``, ``"step"`` or ``"linear"``.
        minimum: the lowest factor (Barlow Twins: 0.001).
        milestones: steps at which the rate falls, or one number: every so many steps (C-BSN: 100,000).
        gamma: factor of each fall.

    Raises:
        UserError: an unknown schedule, or a negative step, total or warm-up.
    """
    if schedule not in SCHEDULES:
        raise UserError(f"no schedule is called {schedule!r}; choose from {', '.join(SCHEDULES)}")
    if min(step, total, warmup) < 0:
        raise UserError(f"step, total and warmup can't be negative, got {step}, {total} and {warmup}")
    if step < warmup:
        return step / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return max(gamma ** _milestones_passed(step, milestones), minimum)
    if schedule == "linear":
        held = max(warmup, milestones if isinstance(milestones, int) else min(milestones, default=0))
        return 1 - (1 - minimum) * min(max(step - held, 0) / max(total - held, 1), 1.0)
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return minimum + (1 - minimum) * (1 + math.cos(math.pi * progress)) / 2


def _milestones_passed(step: int, milestones: int | Sequence[int]) -> int:
    if isinstance(milestones, int):
        if milestones < 1:
            raise UserError(f"milestones must be a list of steps or a number of at least 1, got {milestones}")
        return step // milestones
    return sum(step >= m for m in milestones)


def scaled_lr(base: float, batch: int, reference: int = 256) -> float:
    """Linear scaling: base * batch / reference, with the batch over all processes and accumulation steps."""
    return base * batch / reference


def clip_each(parameters: Iterable[Tensor], largest: float) -> None:
    """Shorten every parameter's own gradient to a norm of ``largest`` (SiT, DINO, iBOT); not the norm of all together.

    Args:
        parameters: those without a gradient are left alone.
        largest: 0 does not clip.
    """
    if largest <= 0:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            norm = torch.linalg.vector_norm(parameter.grad)
            parameter.grad.mul_((largest / (norm + 1e-6)).clamp_max(1.0))
