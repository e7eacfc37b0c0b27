"""The regularised logistic regression behind the linear and the few-label protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._inputs import validation_folds
from selftaught.evaluation._threads import threads_for
from selftaught.evaluation.logistic import fit, make_space, moments

__all__ = []

STRENGTHS = tuple(10.0**e for e in range(-5, 3))
DEFAULT_STRENGTH = 1e-2
CHOICE_ITERATIONS = 80
"""Steps of the fits that only choose the regularisation: their ranking settles long before their weights do."""
LOGITS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Probe:
    """A fitted logistic regression.

    Args:
        scores: ``(m, k)`` log-probabilities of the test samples; ``-inf`` for classes that training lacked.
        strength: the inverse regularisation C that was used.
        strengths: the grid, ``()`` if nothing was chosen.
        accuracy: held-out accuracy for each of the grid.
        converged: whether the final fit met its tolerance.
    """

    scores: np.ndarray
    strength: float
    strengths: tuple[float, ...]
    accuracy: tuple[float, ...]
    converged: bool


def fit_probe(
    x: Tensor,
    y: np.ndarray,
    test_x: Tensor,
    k: int,
    *,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    use_folds: int | None = None,
    rng: np.random.Generator,
    statistics: tuple[Tensor, Tensor] | None = None,
    groups: np.ndarray | None = None,
) -> Probe:
    """Standardise, choose the regularisation on held-out training samples, refit on all, score the test samples.

    Args:
        x: ``(n, d)`` features.
        y: ``(n,)`` indices in 0..k-1; not all need occur.
        test_x: ``(m, d)``.
        k: number of classes.
        strengths: the grid of c (see `logistic.fit`); a single one is used as it is.
        folds: training samples are dealt into so many folds; below 2 nothing is chosen and ``DEFAULT_STRENGTH`` serves.
        use_folds: hold out only the first so many (1: a plain hold-out); all if not given.
        rng: deals the folds.
        statistics: mean and deviation to standardise by, those of ``x`` if not given.
        groups: ``(n,)`` hold out whole groups.

    Raises:
        UserError: an empty or not positive grid.
    """
    if not strengths or min(strengths) <= 0:
        raise UserError("strengths: pass positive inverse regularisation strengths, such as 0.01 1 100")
    known, target = np.unique(y, return_inverse=True)
    with threads_for(len(x) * min(x.shape) * k * len(strengths) * max(1, use_folds or folds)):
        space, z = make_space(x, statistics or moments(x))
        labels = torch.as_tensor(target, device=x.device)
        tried: tuple[float, ...] = ()
        accuracy: tuple[float, ...] = ()
        strength = strengths[0] if len(strengths) == 1 else DEFAULT_STRENGTH
        if len(strengths) > 1 and folds > 1:
            held = validation_folds(y, folds, rng, groups)[:, :use_folds]
            tried = tuple(sorted(strengths))
            hits, loss = _held_out_scores(
                z, labels, len(known), tried, torch.as_tensor(held, device=x.device), space.energy
            )
            accuracy = tuple(hits.tolist())
            strength = tried[_best(hits, loss)]
        solution = fit(z, labels, len(known), [strength], energy=space.energy)
        scores = np.full((len(test_x), k), -np.inf)
        scores[:, known] = torch.log_softmax(solution.logits(space(test_x))[:, 0].double(), -1).cpu().numpy()
    return Probe(scores, strength, tried, accuracy, bool(solution.converged.all()))


def _held_out_scores(
    z: Tensor, y: Tensor, k: int, strengths: tuple[float, ...], held: Tensor, energy: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and mean log-loss over the held-out samples for each strength, ``(len(strengths),)`` each."""
    n, folds = held.shape
    at_once = max(1, LOGITS_AT_ONCE // (n * k * folds))
    hits, losses = [], []
    for start in range(0, len(strengths), at_once):
        part = strengths[start : start + at_once]
        kept = (~held).to(z).repeat(1, len(part))
        each = np.repeat(part, folds).tolist()
        solution = fit(
            z, y, k, each, energy=energy, sample_weight=kept, tolerance=1e-4, max_iterations=CHOICE_ITERATIONS
        )
        logits = solution.logits(z)
        right = (logits.argmax(-1) == y[:, None]).double() * (1 - kept)
        own = torch.log_softmax(logits, -1).gather(-1, y[:, None, None].expand(-1, logits.shape[1], 1))[..., 0]
        total = held.sum()
        hits.append(right.sum(0).reshape(-1, folds).sum(1) / total)
        losses.append((-own * (1 - kept)).sum(0).reshape(-1, folds).sum(1) / total)
    return torch.cat(hits).cpu().numpy(), torch.cat(losses).cpu().numpy()


def _best(accuracy: np.ndarray, loss: np.ndarray) -> int:
    """The highest held-out accuracy; among equals the lowest log-loss."""
    return int(np.lexsort((loss, -accuracy))[0])
