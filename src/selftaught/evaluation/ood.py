"""Out-of-distribution detection: which of two sets a sample is from, told by scores fitted on one of them alone.

Every score is larger the less a sample looks like the in-distribution training set. Nothing is chosen on the other set:
means, covariances, neighbours and the linear head come from in-distribution training features, the scorers have no
hyper-parameter that is tuned on what they are to detect (medmnist-benchmark sheet; Lee et al. 2018, arXiv 1807.03888;
Sun et al. 2022, arXiv 2204.06507; Hendrycks and Gimpel 2017, arXiv 1610.02136; Liu et al. 2020, arXiv 2010.03759).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_features, as_labels
from selftaught.evaluation.classification import auc_ovr
from selftaught.evaluation.linear import HOLD_OUT_FROM
from selftaught.evaluation.logistic import fit, make_space, moments
from selftaught.evaluation.neighbours import chunks, normalise
from selftaught.evaluation.probe import STRENGTHS, fit_probe
from selftaught.evaluation.result import Number, Result

__all__ = ["detection", "energy", "knn_distance", "linear_head", "mahalanobis", "make_scorer", "msp", "ood"]

SCORERS = ("mahalanobis", "knn", "msp", "energy")
"""Names of the scores; msp and energy need the training labels."""
NEIGHBOURS = 50
RESAMPLES = 200

Scorer = Callable[[Array], np.ndarray]


def ood(
    train_x: Array,
    test_x: Array,
    other_x: Array,
    *,
    train_y: Array | None = None,
    scorer: str = "mahalanobis",
    neighbours: int = NEIGHBOURS,
    shrinkage: float | None = None,
    temperature: float = 1.0,
    resamples: int = RESAMPLES,
) -> Result:
    """How well a score tells in-distribution test samples from another set's.

    Args:
        train_x: ``(n, d)`` in-distribution training features; all that a score is fitted on.
        test_x: ``(m, d)`` in-distribution test features.
        other_x: ``(q, d)`` features of the other set.
        train_y: ``(n,)`` labels of the training features: class-conditional Mahalanobis, and the linear head that msp
            and energy read.
        scorer: one of ``SCORERS``, default "mahalanobis".
        neighbours: k of "knn", default 50, at most n.
        shrinkage: see ``mahalanobis``; default Ledoit and Wolf's.
        temperature: T of "energy", default 1.
        resamples: draws of the bootstrap; 0 leaves the intervals out.

    Returns:
        ``Result`` "ood" with the numbers of ``detection``; figure ``scores``: ``edges`` of 30 bins, and the share of
        each set in them (``inside``, ``outside``).

    Raises:
        UserError: as ``make_scorer``; NaN features; widths that differ.
    """
    options = {"neighbours": neighbours, "shrinkage": shrinkage, "temperature": temperature}
    score = make_scorer(train_x, train_y, scorer=scorer, **options)  # type: ignore[arg-type]
    inside, outside = score(test_x), score(other_x)
    edges = np.histogram_bin_edges(np.concatenate([inside, outside]), 30)
    shares = {"inside": inside, "outside": outside}
    figure = {name: np.histogram(values, edges)[0] / len(values) for name, values in shares.items()}
    return Result("ood", detection(inside, outside, resamples=resamples), {"scores": {"edges": edges, **figure}})


def make_scorer(
    train_x: Array,
    train_y: Array | None = None,
    *,
    scorer: str = "mahalanobis",
    neighbours: int = NEIGHBOURS,
    shrinkage: float | None = None,
    temperature: float = 1.0,
) -> Scorer:
    """Fit a score on in-distribution training features; the function returned maps ``(m, d)`` features to ``(m,)``.

    Args:
        train_x: ``(n, d)``.
        train_y: ``(n,)`` labels or None.
        scorer: one of ``SCORERS``.
        neighbours: k of "knn".
        shrinkage: of "mahalanobis".
        temperature: of "energy".

    Raises:
        UserError: unknown scorer; msp or energy without labels; a number out of range.
    """
    if scorer not in SCORERS:
        raise UserError(f"scorer: no {scorer!r}; one of {', '.join(SCORERS)}")
    if scorer == "mahalanobis":
        return mahalanobis(train_x, train_y, shrinkage=shrinkage)
    if scorer == "knn":
        return knn_distance(train_x, k=neighbours)
    if train_y is None:
        raise UserError(f"scorer {scorer} reads a linear head: pass train_y, or take mahalanobis or knn")
    head = linear_head(train_x, train_y)
    if scorer == "msp":
        return lambda x: msp(head(x))
    return lambda x: energy(head(x), temperature=temperature)


def mahalanobis(train_x: Array, train_y: Array | None = None, *, shrinkage: float | None = None) -> Scorer:
    """Squared Mahalanobis distance to the nearest class mean, one covariance for all classes.

        d(x) = min_c (x - mu_c)^T Sigma^-1 (x - mu_c),    Sigma = (1 - s) S + s (tr S / d) I

    on features standardised by the training set; S is the covariance around the class means (divisor n).

    Args:
        train_x: ``(n, d)``.
        train_y: ``(n,)`` labels; None takes a single Gaussian.
        shrinkage: s in [0, 1]; None takes Ledoit and Wolf's (2004). At 0 the score does not change under invertible
            affine maps of the features (directions without variance are then left out).

    Raises:
        UserError: shrinkage outside [0, 1]; broken features or labels.
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise UserError(f"shrinkage {shrinkage}: it must lie in [0, 1]")
    x = as_features(train_x, "train features")
    mean, scale = moments(x)
    z = ((x - mean) / scale).double()
    labels = np.zeros(len(z), dtype=np.int64) if train_y is None else as_labels(train_y, len(z), "train labels")
    code = torch.as_tensor(np.unique(labels, return_inverse=True)[1], device=z.device)
    count = torch.bincount(code).to(z)
    centres = z.new_zeros(len(count), z.shape[1]).index_add_(0, code, z) / count[:, None]
    whiten = _whitening(z - centres[code], shrinkage)
    anchors = centres @ whiten

    def score(features: Array) -> np.ndarray:
        rows = (_same_width(features, x) - mean) / scale
        spots = rows.double() @ whiten
        parts = [torch.cdist(spots[part], anchors).square().amin(1) for part in chunks(len(spots), len(anchors))]
        return torch.cat(parts).cpu().numpy()

    return score


def _whitening(residuals: Tensor, shrinkage: float | None) -> Tensor:
    """``(d, r)`` W with W W^T = Sigma^-1 (the pseudo-inverse where directions have no variance)."""
    n, d = residuals.shape
    covariance = residuals.T @ residuals / n
    mean = covariance.diagonal().mean()
    if shrinkage is None:
        shrinkage = ledoit_wolf(residuals)
    shrunk = (1 - shrinkage) * covariance
    shrunk.diagonal().add_(shrinkage * mean)
    values, vectors = torch.linalg.eigh(shrunk)
    kept = values > 1e-10 * values[-1].clamp_min(1e-30)
    if not bool(kept.any()):  # every sample is its class mean: plain distance
        return torch.eye(d, dtype=residuals.dtype, device=residuals.device)
    return vectors[:, kept] / values[kept].sqrt()


def ledoit_wolf(residuals: Tensor) -> float:
    """The shrinkage s* towards ``(tr S / d) I`` that Ledoit and Wolf (2004) estimate, of centred rows ``(n, d)``.

    s* = min(b, a) / a,  a = ||S - m I||^2 / d,  b = sum_i ||x_i x_i^T - S||^2 / (n^2 d),  m = tr S / d
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    return float(ledoit_wolf_shrinkage(residuals.cpu().numpy(), assume_centered=True))


def knn_distance(train_x: Array, *, k: int = NEIGHBOURS) -> Scorer:
    """Euclidean distance to the k-th nearest training sample, features L2-normalised; k is at most n.

    Raises:
        UserError: k below 1.
    """
    if k < 1:
        raise UserError(f"neighbours {k}: must be at least 1")
    x = as_features(train_x, "train features")
    bank = normalise(x)
    k = min(k, len(bank))

    def score(features: Array) -> np.ndarray:
        rows = normalise(_same_width(features, x))
        parts = [(rows[part] @ bank.T).topk(k, dim=1).values[:, -1] for part in chunks(len(rows), len(bank))]
        return (2 - 2 * torch.cat(parts).double()).clamp_min(0).sqrt().cpu().numpy()

    return score


def linear_head(train_x: Array, train_y: Array) -> Callable[[Array], np.ndarray]:
    """Logits ``(m, k)`` of a logistic regression on standardised features, regularised as ``evaluation.linear`` does.

    Raises:
        UserError: a single class; broken features or labels.
    """
    x = as_features(train_x, "train features")
    known, y = np.unique(as_labels(train_y, len(x), "train labels"), return_inverse=True)
    if len(known) < 2:
        raise UserError(f"train labels: only class {known[0]}; a linear head needs at least two classes")
    folds = 5 if np.bincount(y).max() > 1 else 0
    hold_out = 1 if len(x) >= HOLD_OUT_FROM else None
    options = {"strengths": STRENGTHS, "folds": folds, "use_folds": hold_out, "rng": np.random.default_rng(0)}
    chosen = fit_probe(x, y, x[:1], len(known), **options).strength  # type: ignore[arg-type]
    space, z = make_space(x, moments(x))
    solution = fit(z, torch.as_tensor(y, device=x.device), len(known), [chosen], energy=space.energy)
    return lambda features: solution.logits(space(_same_width(features, x)))[:, 0].double().cpu().numpy()


def msp(logits: Array) -> np.ndarray:
    """Minus the largest softmax probability of ``(m, k)`` logits, ``(m,)``."""
    return -as_features(logits, "logits").double().softmax(1).amax(1).cpu().numpy()


def energy(logits: Array, *, temperature: float = 1.0) -> np.ndarray:
    """``-T log sum_k exp(l_k / T)`` of ``(m, k)`` logits, ``(m,)``.

    Raises:
        UserError: a temperature that is not positive.
    """
    if temperature <= 0:
        raise UserError(f"temperature {temperature}: must be positive")
    return -temperature * (as_features(logits, "logits").double() / temperature).logsumexp(1).cpu().numpy()


def detection(inside: Array, outside: Array, *, resamples: int = RESAMPLES) -> dict[str, Number]:
    """The numbers of a detector by its scores, the larger the less in-distribution.

    Args:
        inside: ``(m,)`` scores of in-distribution samples.
        outside: ``(q,)`` scores of the others.
        resamples: bootstrap draws for the intervals of aupr, aupr_in and fpr95; 0 leaves all intervals out.

    Returns:
        ``auroc`` (interval of DeLong); ``aupr``: average precision with the others as positives; ``aupr_in`` with the
        in-distribution samples as positives; ``fpr95``: share of the others that pass at the threshold which lets
        95 % of the in-distribution samples pass.

    Raises:
        UserError: an empty side, or scores that are not finite.
    """
    sides = [np.asarray(side, dtype=np.float64).reshape(-1) for side in (inside, outside)]
    if not all(side.size and np.isfinite(side).all() for side in sides):
        raise UserError("scores: both sides need at least one, and all must be finite")
    score, positive = np.concatenate(sides), np.repeat([0, 1], [len(side) for side in sides])
    area = auc_ovr(np.stack([-score, score], 1), positive)
    kinds: dict[str, Callable[[np.ndarray], float]] = {
        "aupr": lambda rows: average_precision(rows[:, 0], rows[:, 1]),
        "aupr_in": lambda rows: average_precision(-rows[:, 0], 1 - rows[:, 1]),
        "fpr95": lambda rows: false_positive_rate(rows[:, 0], rows[:, 1]),
    }
    rows = np.stack([score, positive], 1)
    if not resamples:
        plain = {"auroc": area.mean} | {name: statistic(rows) for name, statistic in kinds.items()}
        return {name: Number(value, values=(value,)) for name, value in plain.items()}
    return {"auroc": area} | {
        name: Number.bootstrap(rows, statistic, resamples=resamples) for name, statistic in kinds.items()
    }


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """``sum_t (R_t - R_{t-1}) P_t`` over the distinct thresholds t from the largest score down; NaN without positives.

    Args:
        score: ``(n,)``.
        positive: ``(n,)`` 1 for a positive, else 0.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positive, score)) if positive.any() else float("nan")


def false_positive_rate(score: np.ndarray, outside: np.ndarray, accepted: float = 0.95) -> float:
    """Share of the others (``outside`` 1) whose score is at most the one that ``accepted`` of the rest stay below.

    NaN where one side is empty.
    """
    own, others = np.sort(score[outside == 0]), score[outside == 1]
    if not len(own) or not len(others):
        return float("nan")
    threshold = own[int(np.ceil(accepted * len(own) - 1e-9)) - 1]
    return float((others <= threshold).mean())


def _same_width(features: Array, like: Tensor) -> Tensor:
    rows = as_features(features)
    if rows.shape[1] != like.shape[1]:
        raise UserError(f"features: width {rows.shape[1]} where the training features have {like.shape[1]}")
    return rows.to(like)
