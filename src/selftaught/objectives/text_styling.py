"""The rewards and the loss of the policy that styles the text to be erased (Jiang et al., arXiv 2204.12743).

M policies a ~ pi are tried: e is the error l1(y, g) of the generator on text in their styles, q how badly a detector of
real text sees it. R = lambda_1 R_d(e) + lambda_2 R_r(q).
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import in_float32
from selftaught.objectives.text_erasing import _check, _check_values, text_dice

__all__ = [
    "erasing_difficulty_reward",
    "erasing_policy",
    "erasing_realism",
    "erasing_realism_reward",
    "erasing_relevant",
    "erasing_running_mean",
]


def erasing_relevant(actions: Tensor, *, release: bool = False) -> Tensor:
    """Which of the 18 decisions have a say: (N, 18) bool.

    Decision 0 off (strokes are copied): none but itself. 8 off (no art): none from 9 on. 9 off (no outline): not 10 and
    11. 12 off (no shadow): none from 13 on.

    Args:
        actions: (N, 18).
        release: as in the released code, which leaves 10 in where 9 is off.

    Raises:
        UserError: another number of decisions.
    """
    if actions.ndim != 2 or actions.shape[1] != 18 or actions.dtype not in (torch.int64, torch.int32):
        raise UserError(f"actions {tuple(actions.shape)} {actions.dtype}: whole numbers (N, 18)")
    kept = torch.ones_like(actions, dtype=torch.bool)
    for switch, first, end in ((0, 1, 18), (8, 9, 18), (9, 11 if release else 10, 12), (12, 13, 18)):
        kept[:, first:end] &= (actions[:, switch] != 0)[:, None]
    return kept


def erasing_running_mean(mean: Tensor, values: Tensor, *, keep: float = 0.95) -> Tensor:
    """keep mean + (1 - keep) mean(values), of the difficulty or the realism of all policies; no gradient."""
    _check_values("erasing_running_mean", mean, dim=0)
    _check_values("erasing_running_mean", values, dim=1)
    return keep * mean + (1 - keep) * values.detach().mean()


@in_float32
def erasing_difficulty_reward(
    e: Tensor, mean: Tensor, *, scale: float = 5.0, factor: float = 2.0, slope: float = 20.0, limit: float | None = None
) -> Tensor:
    """R_d = scale (1 - |1 - exp(slope (e - factor mean))|): largest, ``scale``, where e = factor mean.

    Args:
        e: l1(y, g) of each policy, (M,).
        mean: its running mean.
        scale: largest reward.
        factor: of the mean, where it is largest.
        slope: how narrow.
        limit: e - factor mean is clamped to [-limit, limit]; None: not (the exponential then grows without end).
    """
    _check_values("erasing_difficulty_reward", e, dim=1)
    _check_values("erasing_difficulty_reward", mean, dim=0)
    off = e.detach() - factor * mean
    off = off if limit is None else off.clamp(-limit, limit)
    return scale * (1 - (1 - (slope * off).exp()).abs())


@in_float32
def erasing_realism(found: Tensor, m: Tensor, m_r: Tensor) -> Tensor:
    """q = :func:`text_dice` of D_M m_r against 1 - m, without sigmoid, of each sample: (N,).

    Small where a detector of real text finds the drawn text.
    """
    _check("erasing_realism", found, masks=[m, m_r])
    return text_dice(found * m_r, 1 - m, sigmoid=False)


@in_float32
def erasing_realism_reward(q: Tensor, mean: Tensor, *, scale: float = 10.0) -> Tensor:
    """R_r = -scale (q - mean) of the realism of each policy, (M,)."""
    _check_values("erasing_realism_reward", q, dim=1)
    _check_values("erasing_realism_reward", mean, dim=0)
    return -scale * (q.detach() - mean)


@in_float32
def erasing_policy(
    log_probs: Tensor, entropies: Tensor, rewards: Tensor, relevant: Tensor | None = None, *, entropy: float = 1e-5
) -> Tensor:
    """REINFORCE: L = -mean_M(log pi R) - entropy mean_M(H), sums over the decisions that have a say.

    Args:
        log_probs: (M, D).
        entropies: (M, D).
        rewards: (M,), taken without gradient.
        relevant: (M, D) bool, see :func:`erasing_relevant`; None: all.
        entropy: weight.

    Raises:
        UserError: shapes that don't fit.
    """
    _check_values("erasing_policy", log_probs, entropies, dim=2)
    _check_values("erasing_policy", rewards, dim=1)
    kept = torch.ones_like(log_probs, dtype=torch.bool) if relevant is None else relevant
    if not log_probs.shape == entropies.shape == kept.shape or rewards.shape != log_probs.shape[:1]:
        shapes = [tuple(t.shape) for t in (log_probs, entropies, kept, rewards)]
        raise UserError(f"erasing_policy: log-probabilities, entropies, relevance and rewards {shapes} don't fit")
    total = (log_probs * kept).sum(1)
    return -(total * rewards.detach()).mean() - entropy * (entropies * kept).sum(1).mean()
