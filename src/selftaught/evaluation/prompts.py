"""Classes that prompts were learnt for, and new ones (Zhou et al. 2022, arXiv 2203.05557)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from selftaught._words import plural
from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["base_to_new", "cross_set"]


@protocol("base-to-new", "learnt prompts on their classes and on new ones", inputs="worded")
def base_to_new(logits: np.ndarray, labels: np.ndarray, base: np.ndarray) -> Result:
    """Accuracy among base classes of base samples, among new classes of new samples, and their harmonic mean.

    Args:
        logits: (n, K) scores of all classes.
        labels: (n,) the true classes.
        base: (K,) whether each class was trained on.

    Returns:
        ``accuracy`` among all K; where both kinds of class occur ``base``, ``new`` and ``harmonic`` H = 2bn / (b + n).

    Raises:
        UserError: shapes that don't fit, no sample.
    """
    logits, labels, base = np.asarray(logits), np.asarray(labels), np.asarray(base, dtype=bool)
    if logits.ndim != 2 or labels.shape != (len(logits),) or base.shape != (logits.shape[1],) or not len(logits):
        raise UserError(f"base-to-new: scores (n, K), labels (n,), base (K,); got {logits.shape}, {labels.shape}")
    numbers = {"accuracy": Number.bootstrap(logits.argmax(1) == labels)}
    sides = {}
    for name, own in (("base", base), ("new", ~base)):
        rows = own[labels]
        if rows.any():
            among = np.where(own, logits[rows], -np.inf)
            sides[name] = Number.bootstrap(among.argmax(1) == labels[rows])
    if len(sides) == 2:
        b, n = sides["base"].mean, sides["new"].mean
        numbers |= sides | {"harmonic": Number.of(2 * b * n / (b + n) if b + n else 0.0)}
    note = f"{int(base.sum())} classes trained on, {int((~base).sum())} new"
    return Result("base-to-new", numbers, note=note)


@protocol("cross-set", "prompts on the set they were learnt from and on further ones", inputs="worded")
def cross_set(answers: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Result:
    """Accuracy on each of several sets, whose classes are told from each other alone.

    Args:
        answers: name of a set -> scores (n, K) of its own classes and labels (n,); the first one was learnt from.

    Returns:
        ``mean_of_others``, the mean accuracy of all sets but the first, and the accuracy of each under its name.

    Raises:
        UserError: fewer than two sets, shapes that don't fit, a set without samples.
    """
    if len(answers) < 2:
        raise UserError("cross-set: the set that was learnt from, and one other at least")
    numbers = {}
    for name, (scores, labels) in answers.items():
        if scores.ndim != 2 or labels.shape != (len(scores),) or not len(scores):
            raise UserError(f"cross-set, {name}: scores (n, K), labels (n,); got {scores.shape}, {labels.shape}")
        numbers[name] = Number.bootstrap(scores.argmax(1) == labels)
    first, *others = answers
    mean = Number.of(float(np.mean([numbers[name].mean for name in others])))
    note = f"learnt from {first}; mean over {plural(len(others), 'other set')}"
    return Result("cross-set", {"mean_of_others": mean} | numbers, note=note)
