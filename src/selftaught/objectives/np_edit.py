"""NP-Edit: an image editor trained without edited images (Kumari et al., ICLR 2026, arXiv 2510.14978).

A flow between a clean x_0 (t = 0) and noise eps (t = 1): x_t = (1 - t) x_0 + t eps, v = eps - x_0, x_0 = x_t - t v.
The editor G is unrolled for two steps; what comes out is judged by questions, and matched to the distribution of a
frozen text-to-image model with the help of a fake model that follows the editor:

    L = lambda_vlm L_vlm + lambda_dmd L_dmd
    L_vlm = - mean_j log sigmoid(l_{a_j} - l_{other})                    logits of yes and no, wanted answer a_j
    L_dmd = 1/2 mean | x_0 - sg(x_0 - n t (v_real - v_fake)) |^2         n = 1 / mean |x_0 - (x_t - t v_real)|
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, in_float32

__all__ = [
    "T_SET",
    "clean_from_velocity",
    "flow_matching",
    "gaussian_log_density",
    "group_advantage",
    "guided_velocity",
    "judge_loss",
    "judge_vocabulary_loss",
    "match_distributions",
    "noised",
    "np_edit_terms",
    "policy_gradient",
    "sample_flow",
    "unroll_flow",
]

T_SET = (0.25, 0.5, 0.75)
"""Times of the second step while the editor is unrolled."""

STEPS = (1.0, 0.75, 0.5, 0.25)
"""Times of the four steps by which it edits."""

_SMALLEST = 1e-6

Velocity = Callable[[Tensor, Tensor], Tensor]
"""v(x_t, t) of x_t (N, ...) and t (N,)."""


def _same(**tensors: Tensor) -> None:
    """Refuse tensors that aren't floating-point values of one shape (N, ...)."""
    check_floats(**tensors)
    shapes = {name: tuple(x.shape) for name, x in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(s) < 2 or not math.prod(s) for s in shapes.values()):
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UserError(f"these need one shape (N, ...), none of it 0: {told}")


def _times(t: Tensor | float, x: Tensor) -> Tensor:
    """t as a tensor that multiplies x: (N, 1, ...)."""
    if not isinstance(t, Tensor):
        t = x.new_full((len(x),), float(t))
    check_floats(t=t)
    if t.shape != (len(x),):
        raise UserError(f"t needs one number per sample, ({len(x)},), got {tuple(t.shape)}")
    return t.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


@in_float32
def noised(clean: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
    """x_t = (1 - t) x_0 + t eps.

    Args:
        clean: x_0 (N, ...).
        noise: eps, of the same shape.
        t: (N,) in [0, 1], or one number for all; 1 is noise.

    Raises:
        UserError: shapes that differ.
    """
    _same(clean=clean, noise=noise)
    at = _times(t, clean)
    return (1 - at) * clean + at * noise


@in_float32
def clean_from_velocity(x_t: Tensor, velocity: Tensor, t: Tensor | float) -> Tensor:
    """x_0 = x_t - t v, in float32 also under autocast.

    Args:
        x_t: (N, ...).
        velocity: v, of the same shape.
        t: (N,) in [0, 1], or one number for all.

    Raises:
        UserError: shapes that differ.
    """
    _same(x_t=x_t, velocity=velocity)
    return x_t - _times(t, x_t) * velocity


@in_float32
def guided_velocity(conditional: Tensor, unconditional: Tensor, guidance: float = 1.0) -> Tensor:
    """Classifier-free guidance: v_uncond + w (v_cond - v_uncond); w = 1 is the conditional velocity.

    Args:
        conditional: (N, ...) with the text.
        unconditional: with the empty text.
        guidance: w.

    Raises:
        UserError: shapes that differ.
    """
    _same(conditional=conditional, unconditional=unconditional)
    return unconditional + guidance * (conditional - unconditional)


@in_float32
def flow_matching(velocity: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """mean | v - (eps - x_0) |^2; the target has no gradient.

    The identity warm-up takes it with x_0 = the picture to be edited, the fake model with what the editor made,
    supervised training with the edited picture of a pair.

    Args:
        velocity: v(x_t, t) (N, ...).
        clean: x_0.
        noise: eps.

    Raises:
        UserError: shapes that differ.
    """
    _same(velocity=velocity, clean=clean, noise=noise)
    return F.mse_loss(velocity, (noise - clean).detach())


def unroll_flow(
    velocity: Velocity, noise: Tensor, t: Tensor, *, backprop_first_step: bool = False
) -> tuple[Tensor, Tensor]:
    """Two steps of the editor: from noise to a first estimate, to time t with the same noise, and to x_0.

        xh_0 = eps - G(eps, 1);    xh_t = (1 - t) xh_0 + t eps;    x_0 = xh_t - t G(xh_t, t)

    Args:
        velocity: G as a function of x_t (N, ...) and t (N,), its instruction and reference fixed.
        noise: eps (N, ...).
        t: (N,), drawn from `T_SET`.
        backprop_first_step: gradient through the first step, too; False (default) lets only the second one learn.

    Returns:
        x_0 and the one-step estimate xh_0 (which has its gradient, unless that is switched off outside).

    Raises:
        UserError: a t that isn't (N,); a velocity of another shape.
    """
    check_floats(noise=noise)
    if noise.dim() < 2 or not noise.numel():
        raise UserError(f"noise needs the shape (N, ...), got {tuple(noise.shape)}")
    _times(t, noise)
    first = clean_from_velocity(noise, velocity(noise, torch.ones_like(t)), torch.ones_like(t))
    x_t = noised(first if backprop_first_step else first.detach(), noise, t)
    return clean_from_velocity(x_t, velocity(x_t, t), t), first


def sample_flow(
    velocity: Velocity,
    noise: Tensor,
    steps: Sequence[float] = STEPS,
    *,
    fresh: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Few-step sampling: x_0 = x_t - t v, then x_t' = (1 - t') x_0 + t' eps for the next t'.

    Args:
        velocity: as in :func:`unroll_flow`.
        noise: eps (N, ...), where it begins.
        steps: falling times, the first of them 1.
        fresh: new noise for every step; False keeps that of the beginning, as the unrolling does.
        generator: of the fresh noise.

    Returns:
        x_0 (N, ...).

    Raises:
        UserError: times that don't fall from 1.
    """
    if not steps or steps[0] != 1 or any(not 0 < b < a for a, b in itertools.pairwise(steps)):
        raise UserError(f"steps {tuple(steps)}: times fall from 1 and stay above 0, such as 1, 0.75, 0.5, 0.25")
    check_floats(noise=noise)
    if noise.dim() < 2 or not noise.numel():
        raise UserError(f"noise needs the shape (N, ...), got {tuple(noise.shape)}")
    x_t, clean = noise, noise
    for number, t in enumerate(steps):
        if number:
            eps = torch.randn(noise.shape, generator=generator, device=noise.device) if fresh else noise
            x_t = noised(clean, eps.to(noise.dtype), t)
        clean = clean_from_velocity(x_t, velocity(x_t, noise.new_full((len(noise),), t)), t)
    return clean


@in_float32
def judge_loss(yes: Tensor, no: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of a judge's answers: - mean log sigmoid(l_wanted - l_other).

    Only the difference of the two logits counts: a constant added to both, or any other word of the vocabulary, changes
    nothing.

    Args:
        yes: (N, Q) logits of "yes" at the place of the answer.
        no: (N, Q) those of "no".
        wanted: (N, Q) bool, True where yes is wanted; None: everywhere.

    Raises:
        UserError: shapes that differ.
    """
    _same(yes=yes, no=no)
    if yes.dim() != 2:
        raise UserError(f"logits of answers are (N, questions), got {tuple(yes.shape)}")
    difference = yes - no
    if wanted is not None:
        if wanted.shape != yes.shape or wanted.dtype != torch.bool:
            raise UserError(f"wanted is bool {tuple(yes.shape)}, got {wanted.dtype} {tuple(wanted.shape)}")
        difference = torch.where(wanted, difference, -difference)
    return -F.logsigmoid(difference).mean()


@in_float32
def judge_vocabulary_loss(logits: Tensor, answer: Tensor) -> Tensor:
    """The ablation that does worse: cross-entropy of the wanted answer over the whole vocabulary.

    Args:
        logits: (N, Q, V) at the place of the answer.
        answer: (N, Q) int64, the number of the wanted word.

    Raises:
        UserError: shapes that don't fit, a number outside the vocabulary.
    """
    check_floats(logits=logits)
    if logits.dim() != 3 or answer.shape != logits.shape[:2] or answer.dtype != torch.int64 or not logits.numel():
        raise UserError(f"logits (N, Q, V) and answers (N, Q) int64, got {tuple(logits.shape)}, {tuple(answer.shape)}")
    if answer.device.type == "cpu" and not bool(((answer >= 0) & (answer < logits.shape[2])).all()):
        raise UserError(f"answers must lie in 0 .. {logits.shape[2] - 1}")
    return F.cross_entropy(logits.flatten(0, 1), answer.flatten())


@in_float32
def match_distributions(
    clean: Tensor, x_t: Tensor, real: Tensor, fake: Tensor, t: Tensor | float, *, normalise: bool = True
) -> Tensor:
    """Distribution matching distillation: the gradient with respect to x_0 is n t (v_real - v_fake) / numel.

    A step down it moves x_0 towards where the teacher thinks the clean picture is, and away from where the fake model
    does.

    Args:
        clean: x_0 (N, ...), what the editor made.
        x_t: it with new noise e, (1 - t) x_0 + t e.
        real: velocity of the frozen teacher there, guided; without gradient.
        fake: velocity of the fake model there; without gradient.
        t: (N,) from 0.02 to 0.98.
        normalise: n = 1 / mean |x_0 - (x_t - t v_real)| per sample; False: n = 1.

    Raises:
        UserError: shapes that differ.
    """
    _same(clean=clean, x_t=x_t, real=real, fake=fake)
    with torch.no_grad():
        at = _times(t, clean)
        gradient = at * (real - fake)
        if normalise:
            off = (clean - (x_t - at * real)).abs().flatten(1).mean(1)
            gradient = gradient / (off.view_as(at) + _SMALLEST)
        aim = clean - gradient
    return 0.5 * F.mse_loss(clean, aim)


def np_edit_terms(
    judged: Tensor | None, matched: Tensor | None, *, vlm_weight: float = 0.01, dmd_weight: float = 0.5
) -> dict[str, Tensor]:
    """The editor's loss: lambda_vlm L_vlm + lambda_dmd L_dmd, beside its terms; None leaves one out.

    Raises:
        UserError: neither.
    """
    if judged is None and matched is None:
        raise UserError("NP-Edit without its judge and without matching has no loss; keep one of the two")
    terms = {} if judged is None else {"judge": judged}
    terms |= {} if matched is None else {"matching": matched}
    weights = {"judge": vlm_weight, "matching": dmd_weight}
    return terms | {"loss": torch.stack([weights[name] * term for name, term in terms.items()]).sum()}


# ---- the baseline that learns from the judge's verdict alone ---------------------------------------------------------
@in_float32
def group_advantage(rewards: Tensor) -> Tensor:
    """(r - mean) / (sd + 1e-6) within each group of edits of one picture, as GRPO has it.

    Args:
        rewards: (N, K), K edits of each picture.

    Raises:
        UserError: fewer than two edits of a picture.
    """
    _same(rewards=rewards)
    if rewards.dim() != 2 or rewards.shape[1] < 2:
        raise UserError(f"rewards are (N, K) with 2 or more edits K of a picture, got {tuple(rewards.shape)}")
    middle = rewards.mean(1, keepdim=True)
    return (rewards - middle) / (rewards.std(1, keepdim=True, correction=0) + _SMALLEST)


@in_float32
def gaussian_log_density(x: Tensor, mean: Tensor, deviation: Tensor | float) -> Tensor:
    """(N,) mean over the elements of log N(x; mean, deviation^2), of one step of a sampler with fresh noise.

    Args:
        x: (N, ...) what was drawn; without gradient.
        mean: (1 - t') x_0, with gradient.
        deviation: t', (N,) or one number, above 0.

    Raises:
        UserError: shapes that differ.
    """
    _same(x=x, mean=mean)
    at = _times(deviation, x)
    log = -0.5 * ((x.detach() - mean) / at) ** 2 - at.log() - 0.5 * math.log(2 * math.pi)
    return log.flatten(1).mean(1)


@in_float32
def policy_gradient(log_probability: Tensor, rewards: Tensor) -> Tensor:
    """REINFORCE with advantages within groups: - mean A log p. The judge is asked and not differentiated.

    Args:
        log_probability: (N, K) of the steps that made K edits of each picture, with gradient.
        rewards: (N, K) the judge's verdicts.

    Raises:
        UserError: shapes that differ, fewer than two edits of a picture.
    """
    _same(log_probability=log_probability, rewards=rewards)
    return -(group_advantage(rewards).detach() * log_probability).mean()
