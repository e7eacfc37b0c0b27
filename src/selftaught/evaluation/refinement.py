"""Whether an encoder got better: RetFiner's linear probe, and the signed-rank test over data sets and seeds.

The probe is the one of arXiv 2506.22149: one layer on frozen features, chosen by balanced accuracy on held-out samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, code_labels, feature_pair, validation_folds
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.classification import confusion_matrix, confusion_statistics
from selftaught.evaluation.result import Number, Result

__all__ = ["linear_early_stop", "refinement", "signed_rank"]

_LR, _DECAY, _SMOOTHING, _DELTA = 1e-3, 1e-2, 0.1, 1e-3


@protocol("linear-early-stop", "RetFiner's linear probe: AdamW, stopped early, 5 seeds", inputs="split")
def linear_early_stop(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    seeds: int = 5,
    epochs: int = 1000,
    patience: int = 20,
    hold_out: float = 0.2,
) -> Result:
    """A linear layer by AdamW (lr 1e-3, weight decay 1e-2, label smoothing 0.1), stopped early.

    Batches hold 64 samples, or the largest power of two up to a quarter of the training samples if that is less. Kept
    are the weights of the best balanced accuracy on a stratified held-out part (at equal accuracy of the lower loss);
    from epoch ``patience`` on training ends after as many epochs that were not better by 0.001.

    Args:
        train_x: ``(n, d)`` features.
        train_y: ``(n,)`` class indices.
        test_x: ``(m, d)``.
        test_y: ``(m,)``.
        seeds: draws of the held-out part, of the start and of the order.
        epochs: at most.
        patience: epochs without a better one.
        hold_out: share of the training samples that is held out.

    Returns:
        ``Result`` "linear-early-stop": balanced accuracy, AUC, accuracy, average precision (macro, one-vs-rest), each
        over seeds.

    Raises:
        UserError: NaN features, shapes that do not match, a single class, fewer than two samples of a class to learn
            from, no seed.
    """
    train, test = feature_pair(train_x, test_x)
    coded = code_labels(train_y, test_y, len(train), len(test))
    if seeds < 1:
        raise UserError("seeds: one or more")
    if np.bincount(coded.train).max() < 2:
        raise UserError("linear-early-stop holds out training samples: every class has a single one")
    values: dict[str, list[float]] = {}
    for seed in range(seeds):
        held = validation_folds(coded.train, max(2, round(1 / hold_out)), np.random.default_rng(seed))[:, 0]
        scores = _probe(train, coded.train, held, test, len(coded.classes), seed, epochs, patience)
        for name, value in _measures(scores, coded.test).items():
            values.setdefault(name, []).append(value)
    return Result(
        "linear-early-stop", {name: Number.of(v, within=(0, 1)) for name, v in values.items()}, note=coded.note
    )


def _probe(
    x: Tensor, y: np.ndarray, held: np.ndarray, test: Tensor, k: int, seed: int, epochs: int, patience: int
) -> np.ndarray:
    """Log-probabilities (m, k) of the test samples."""
    chance = torch.Generator().manual_seed(seed)
    labels, out = torch.from_numpy(y), torch.from_numpy(held)
    tx, ty, vx, vy = x[~out].float(), labels[~out], x[out].float(), labels[out]
    layer = nn.Linear(x.shape[1], k)
    bound = x.shape[1] ** -0.5
    with torch.no_grad():
        for p in layer.parameters():
            p.uniform_(-bound, bound, generator=chance)
    batch = min(64, 1 << max(0, (len(tx) // 4).bit_length() - 1))
    optimiser = torch.optim.AdamW(layer.parameters(), lr=_LR, weight_decay=_DECAY)
    best, kept, mark, since = (-1.0, -np.inf), [p.detach().clone() for p in layer.parameters()], -1.0, 0
    for epoch in range(epochs):
        for rows in torch.randperm(len(tx), generator=chance).split(batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(layer(tx[rows]), ty[rows], label_smoothing=_SMOOTHING).backward()
            optimiser.step()
        with torch.no_grad():
            scores = layer(vx)
            loss = float(nn.functional.cross_entropy(scores, vy, label_smoothing=_SMOOTHING))
        accuracy = _balanced(vy.numpy(), scores.argmax(1).numpy(), k)
        mark, since = (accuracy, 0) if accuracy > mark + _DELTA else (mark, since + 1)
        if (accuracy, -loss) > best:
            best, kept = (accuracy, -loss), [p.detach().clone() for p in layer.parameters()]
        if epoch >= patience and since >= patience:
            break
    return nn.functional.linear(test.float(), *kept).log_softmax(1).numpy()


def _balanced(truth: np.ndarray, predicted: np.ndarray, k: int) -> float:
    counts = confusion_matrix(truth, predicted, k)
    return confusion_statistics(counts.sum(1), counts.sum(0), counts.diagonal())["balanced_accuracy"]


def _measures(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Of log-probabilities (m, k); areas are means over the classes that some test samples have and others have not."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    best, shares = scores.argmax(1), np.exp(scores)
    both = [k for k in range(scores.shape[1]) if 0 < (truth == k).sum() < len(truth)]
    return {
        "balanced_accuracy": _balanced(truth, best, scores.shape[1]),
        "auc": float(np.mean([roc_auc_score(truth == k, shares[:, k]) for k in both])) if both else np.nan,
        "accuracy": float((best == truth).mean()),
        "average_precision": float(np.mean([average_precision_score(truth == k, shares[:, k]) for k in both]))
        if both
        else np.nan,
    }


def signed_rank(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of paired values; 1 where none differ.

    Args:
        a: values of one side, over data sets and seeds.
        b: those of the other in the same order.

    Raises:
        UserError: none, or as many on each side.
    """
    x, y = np.asarray(a, dtype=np.float64).ravel(), np.asarray(b, dtype=np.float64).ravel()
    if x.shape != y.shape or not len(x):
        raise UserError(f"signed ranks: {len(x)} values against {len(y)}; pair them")
    if not (x != y).any():
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(x, y).pvalue)


@protocol("refinement", "an encoder beside the one it began as, over data sets: Wilcoxon", inputs="results")
def refinement(this: Sequence[Result], start: Sequence[Result], *, note: str = "") -> Result:
    """A refined encoder against its start, over data sets and seeds.

    Args:
        this: `linear_early_stop` of the refined encoder, one for each data set.
        start: of its start, same data sets and seeds.
        note: what a reader must know.

    Returns:
        ``gain`` in balanced accuracy (mean over data sets and seeds), ``wilcoxon_p`` of it, and both sides' means of
        all measures.

    Raises:
        UserError: other data sets or seeds on one side.
    """
    if len(this) != len(start) or not this:
        raise UserError(f"refinement: {len(this)} results against {len(start)}; judge both on the same data sets")
    numbers: dict[str, Number] = {}
    for name in this[0].numbers:
        mine, theirs = ([v for one in side for v in one[name].values] for side in (this, start))
        if name == "balanced_accuracy":
            p = signed_rank(mine, theirs)
            numbers["gain"] = Number.of(np.array(mine) - np.array(theirs))
            numbers["wilcoxon_p"] = Number.of(p)
        numbers[name], numbers[f"{name}_start"] = Number.of(mine), Number.of(theirs)
    least = 2.0 ** (1 - sum(len(one["balanced_accuracy"].values) for one in this))
    told = f"{note}; " if note else ""
    better = {"wilcoxon_p": "low"} | {f"{name}_start": "none" for name in this[0].numbers}
    return Result(
        "refinement", numbers, figures={"better": better}, note=f"{told}so many pairs can give p = {least:.2g} at best"
    )
