"""Classes that prompts were learnt for, and new ones (Zhou et al. 2022, arXiv 2203.05557)."""

from __future__ import annotations

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["base_to_new"]


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
