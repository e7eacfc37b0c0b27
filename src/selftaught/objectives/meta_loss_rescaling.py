"""STORM: features of noisy labels and the losses that a rescaler learns from (AAAI 2025, arXiv 2412.12955).

One pass with gradient and G more with other dropout masks give, for sample i, losses l_i and the largest class
probability in each pass. m_i, s_i are mean and deviation of the losses, a_i, b_i those of the probabilities, g_i says
whether most passes agree with the given label. Samples of one label and one g form a group with means mu of m, sg of s:

    kl_i  = log(sg / s_i) + (s_i^2 + (m_i - mu)^2) / (2 sg^2) - 1/2       ovl_i = overlap of N(m_i, s_i) and N(mu, sg)
    L_in  = 1/B sum_i w_i(omega) l_i(theta)                              theta' = one optimiser step on it
    L_out = 1/B sum_j w_j(omega) l_j(theta'(omega))

AGRA, a baseline, keeps a sample whose gradient does not point against that of a comparison batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_numbers

__all__ = [
    "FEATURES",
    "DropoutStatistics",
    "agra_keep",
    "agra_similarity",
    "binary_weights",
    "dropout_statistics",
    "feature_count",
    "linear_gradients",
    "majority_agreement",
    "meta_loss_rescaling",
    "normal_kl",
    "overlap_coefficient",
    "storm_features",
]

_TINY = 1e-8
FEATURES = (
    *(f"{of}{what}" for what in ("loss", "loss spread", "confidence", "confidence spread", "kl", "overlap")
      for of in ("", "mean ", "deviation ")),
    "agreement",
)  # fmt: skip
"""Names of the 19 features, in their order."""
FeatureSet = Literal["default", "loss"]


class DropoutStatistics(NamedTuple):
    """What the passes say of each sample, (B,) each.

    Attributes:
        loss: m, mean of the losses.
        loss_spread: s, their unbiased deviation; 0 for one pass.
        confidence: a, mean of the largest probability.
        confidence_spread: b, its unbiased deviation.
        agree: g, whether most passes predict the given label.
        label: the given labels.
    """

    loss: Tensor
    loss_spread: Tensor
    confidence: Tensor
    confidence_spread: Tensor
    agree: Tensor
    label: Tensor


def majority_agreement(probabilities: Tensor, labels: Tensor) -> Tensor:
    """g (B,) bool: most passes predict the given label; on a tie the first pass decides.

    Args:
        probabilities: (1 + G, B, C); logits do as well.
        labels: (B,) given classes.

    Raises:
        UserError: shapes that do not fit together, or labels outside the classes.
    """
    _check_passes(probabilities.sum(-1) if probabilities.dim() else probabilities, probabilities, labels)
    return torch.from_numpy(_agreement(_array(probabilities), labels.cpu().numpy())).to(labels.device)


def _agreement(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    right = probabilities.argmax(2) == labels
    count, passes = right.sum(0), len(right)
    return np.where(2 * count == passes, right[0], 2 * count > passes)


def _array(x: Tensor) -> np.ndarray:
    """In float64 on the CPU: features are constants, a few numbers each, with which numpy is quicker than torch."""
    return x.detach().double().cpu().numpy()


def dropout_statistics(losses: Tensor, probabilities: Tensor, labels: Tensor) -> DropoutStatistics:
    """Mean and deviation over passes, in float64 and without gradient.

    Args:
        losses: (1 + G, B), the first row from the pass with gradient.
        probabilities: (1 + G, B, C).
        labels: (B,) given classes.

    Raises:
        UserError: shapes that do not fit together, or labels outside the classes.
    """
    _check_passes(losses, probabilities, labels)
    every = _array(probabilities)
    both = np.stack([_array(losses), every.max(2)])
    count, off = both.shape[1], both - both[:, :1]  # from the first pass, so that equal ones deviate by exactly 0
    shift = off.sum(1) / count
    mean, spread = both[:, 0] + shift, np.sqrt(((off - shift[:, None]) ** 2).sum(1) / max(count - 1, 1))
    agree = _agreement(every, labels.cpu().numpy())
    found = (mean[0], spread[0], mean[1], spread[1], agree)
    made: list[Tensor] = [torch.from_numpy(x).to(losses.device) for x in found]
    return DropoutStatistics._make([*made, labels])


def _check_passes(losses: Tensor, probabilities: Tensor, labels: Tensor) -> None:
    if losses.dim() != 2 or probabilities.dim() != 3 or probabilities.shape[:2] != losses.shape:
        raise UserError(
            f"losses (1 + G, B) and probabilities (1 + G, B, C) must fit together: {tuple(losses.shape)} and "
            f"{tuple(probabilities.shape)}"
        )
    if not losses.is_floating_point() or not probabilities.is_floating_point():
        raise UserError("losses and probabilities must be floating point")
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.shape != losses.shape[1:]:
        raise UserError(f"labels must be whole numbers (B,) = {tuple(losses.shape[1:])}, got {tuple(labels.shape)}")
    if not losses.numel():
        raise UserError("no sample to take statistics of")
    if int(labels.min()) < 0 or int(labels.max()) >= probabilities.shape[2]:
        raise UserError(f"labels must lie in 0 to {probabilities.shape[2] - 1}")


def normal_kl(mean: Tensor, spread: Tensor, group_mean: Tensor, group_spread: Tensor) -> Tensor:
    """KL(N(m, s^2) || N(mu, sg^2)), elementwise; 0 where either deviation is 0. float64, without gradient."""
    return torch.from_numpy(_kl(*_alike(mean, spread, group_mean, group_spread))).to(mean.device)


def _kl(m: np.ndarray, s: np.ndarray, mu: np.ndarray, sg: np.ndarray) -> np.ndarray:
    valid = (s > 0) & (sg > 0)
    s, sg = np.where(valid, s, 1.0), np.where(valid, sg, 1.0)
    return np.where(valid, np.log(sg / s) + (s**2 + (m - mu) ** 2) / (2 * sg**2) - 0.5, 0.0)


def _alike(*values: Tensor) -> list[np.ndarray]:
    """All in float64, refused where they are no floats of one shape."""
    if any(x.shape != values[0].shape or not x.is_floating_point() for x in values):
        raise UserError(f"means and deviations must be floats of one shape, got {[tuple(x.shape) for x in values]}")
    return [_array(x) for x in values]


def overlap_coefficient(mean: Tensor, spread: Tensor, other_mean: Tensor, other_spread: Tensor) -> Tensor:
    """Area under two normal densities, in [0, 1], elementwise; deviations are at least 1e-8. float64, no gradient.

    Equal deviations: 1 - erf(|m - mu| / (2 sqrt(2) s)). Else the densities cross twice, and between the crossings the
    one of smaller deviation is above.
    """
    return torch.from_numpy(_overlap(*_alike(mean, spread, other_mean, other_spread))).to(mean.device)


def _overlap(m: np.ndarray, s: np.ndarray, mu: np.ndarray, t: np.ndarray) -> np.ndarray:
    from scipy.special import erf, ndtr  # 0.1 s that only this needs

    s, t = np.maximum(s, _TINY), np.maximum(t, _TINY)
    distance, difference = mu - m, t**2 - s**2
    alike = abs(difference) <= 1e-9 * np.maximum(s, t) ** 2
    same = 1 - erf(abs(distance) / (2**0.5 * (s + t)))
    part = np.where(alike, 1.0, difference)
    root = s * t * np.sqrt(np.maximum(distance**2 + part * 2 * np.log(t / s), 0))
    crossings = np.stack([-distance * s**2 - root, -distance * s**2 + root]) / part  # measured from m
    between = abs(ndtr((crossings - distance) / t) - ndtr(crossings / s))
    return np.where(alike, same, 1 - between[0] - between[1]).clip(0, 1)


def feature_count(feature_set: FeatureSet = "default", *, agreement: bool = True) -> int:
    """How many features a set has: 19 or, without agreement, 18; of the loss alone 2 or 1."""
    return {"default": 18, "loss": 1}[feature_set] + agreement


def storm_features(
    losses: Tensor,
    probabilities: Tensor,
    labels: Tensor,
    *,
    feature_set: FeatureSet = "default",
    agreement: bool = True,
    categories: bool = True,
    class_separation: bool = True,
    earlier: Sequence[DropoutStatistics] = (),
) -> Tensor:
    """The features (B, F) of a batch in the order of `FEATURES`: constants, float32.

    Args:
        losses: (1 + G, B), the first row from the pass with gradient.
        probabilities: (1 + G, B, C).
        labels: (B,) given classes.
        feature_set: "default", or "loss": m alone.
        agreement: append g as 0 or 1.
        categories: agreeing and disagreeing samples form groups of their own.
        class_separation: every label forms groups of its own; off shares the statistics of all.
        earlier: statistics of batches before, whose members join the groups (a sliding window).

    Raises:
        UserError: see `dropout_statistics`; an unknown set.
    """
    own = dropout_statistics(losses, probabilities, labels)
    options = {"agreement": agreement, "categories": categories, "class_separation": class_separation}
    return features_of(own, feature_set=feature_set, earlier=earlier, **options).float()


def features_of(
    own: DropoutStatistics,
    *,
    feature_set: FeatureSet = "default",
    agreement: bool = True,
    categories: bool = True,
    class_separation: bool = True,
    earlier: Sequence[DropoutStatistics] = (),
) -> Tensor:
    """`storm_features` of statistics that are known already, in float64."""
    if feature_set not in ("default", "loss"):
        raise UserError(f"feature_set={feature_set!r}: it may be default or loss")
    flag = [own.agree.double()] if agreement else []
    if feature_set == "loss":
        return torch.stack([own.loss, *flag], 1)
    parts = [own, *earlier]
    measured = np.stack([np.concatenate([_array(part[k]) for part in parts]) for k in range(4)])
    group = np.zeros(measured.shape[1], dtype=np.int64)
    if class_separation:
        group += 2 * np.concatenate([part.label.cpu().numpy() for part in parts])
    if categories:
        group += ~np.concatenate([part.agree.cpu().numpy() for part in parts])
    _, member = np.unique(group, return_inverse=True)
    grouped = _by_group(measured, member)
    apart = np.stack([f(measured[0], measured[1], grouped[0, 1], grouped[1, 1]) for f in (_kl, _overlap)])
    columns = np.concatenate([grouped, _by_group(apart, member)]).reshape(-1, len(member))[:, : len(own.loss)]
    return torch.cat([torch.from_numpy(columns.T).to(own.loss), *(x[:, None] for x in flag)], 1)


def _by_group(values: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Of values (K, n) each, its group's mean and unbiased deviation, (K, 3, n); that of a single member is 1e-8.

    ``member`` (n,) is the number of each one's group.
    """
    groups = int(member.max()) + 1
    place = (member + groups * np.arange(len(values))[:, None]).ravel()

    def summed(x: np.ndarray) -> np.ndarray:
        return np.bincount(place, weights=x.ravel(), minlength=groups * len(values)).reshape(len(values), groups)

    sizes = np.bincount(member)
    mean = (summed(values) / sizes)[:, member]
    squares = summed((values - mean) ** 2)
    deviation = np.where(sizes > 1, np.sqrt(squares / np.maximum(sizes - 1, 1)), _TINY)[:, member]
    return np.stack([values, mean, deviation], 1)


def meta_loss_rescaling(losses: Tensor, weights: Tensor | None = None) -> Tensor:
    """1/B sum_i w_i l_i: the inner and the outer loss alike; divided by B, not by the sum of the weights.

    Args:
        losses: (B,) float.
        weights: (B,) float; None is the plain mean (``meta_loss_rescaling=False`` in the outer loop).

    Raises:
        UserError: shapes that differ.
    """
    if losses.dim() != 1 or not losses.is_floating_point() or not len(losses):
        raise UserError(f"losses must be floating point (B,), got {losses.dtype} {tuple(losses.shape)}")
    if weights is None:
        return losses.mean()
    if weights.shape != losses.shape or not weights.is_floating_point():
        raise UserError(f"a weight for each of {len(losses)} losses, got {weights.dtype} {tuple(weights.shape)}")
    return (weights * losses).mean()


class _Straight(torch.autograd.Function):
    """1 above the threshold, else 0; the gradient goes straight through, cut to [-1, 1]."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, threshold: float) -> Tensor:
        return (weights > threshold).to(weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp(-1, 1), None


def binary_weights(weights: Tensor, threshold: float = 0.5) -> Tensor:
    """Weights of 0 and 1 with a straight-through estimator: its backward cuts the incoming gradient to [-1, 1].

    Args:
        weights: any shape.
        threshold: a larger weight becomes 1; 0.5, or 0.1 to 0.4.
    """
    if not weights.is_floating_point():
        raise UserError("weights must be floating point")
    check_numbers(threshold=threshold)
    through: Callable[..., Tensor] = _Straight.apply
    return through(weights, threshold)


# ---- AGRA --------------------------------------------------------------------------------------------------------
def linear_gradients(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of every sample's cross-entropy in the weight and the bias of the last, linear layer: (B, C (D + 1)).

    dl/dW = (p - onehot(y)) h^T, dl/db = p - onehot(y).

    Args:
        features: h (B, D), what the layer takes.
        logits: (B, C).
        labels: (B,).
    """
    if features.dim() != 2 or logits.dim() != 2 or len(features) != len(logits) or labels.shape != logits.shape[:1]:
        raise UserError(
            f"features (B, D), logits (B, C) and labels (B,) must fit together: {tuple(features.shape)}, "
            f"{tuple(logits.shape)}, {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or not features.is_floating_point() or not logits.is_floating_point():
        raise UserError("features and logits must be floating point, labels whole numbers")
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]):
        raise UserError(f"labels must lie in 0 to {logits.shape[1] - 1}")
    error = logits.softmax(1) - torch.nn.functional.one_hot(labels.long(), logits.shape[1]).to(logits)
    with_one = torch.cat([features, torch.ones_like(features[:, :1])], 1)
    return (error[:, :, None] * with_one[:, None]).flatten(1)


def agra_similarity(gradients: Tensor, comparison: Tensor) -> Tensor:
    """Cosine (B,) between each sample's gradient and the mean gradient of a comparison batch.

    Args:
        gradients: (B, P), of the samples.
        comparison: (M, P), of the comparison batch.
    """
    if gradients.dim() != 2 or comparison.dim() != 2 or gradients.shape[1] != comparison.shape[1]:
        raise UserError(
            f"gradients (B, P) and comparison (M, P) must fit: {tuple(gradients.shape)} and {tuple(comparison.shape)}"
        )
    if not gradients.is_floating_point() or not comparison.is_floating_point() or not len(comparison):
        raise UserError("gradients and comparison must be floating point, and not empty")
    return torch.nn.functional.cosine_similarity(gradients, comparison.mean(0, keepdim=True), dim=1)


def agra_keep(gradients: Tensor, comparison: Tensor) -> Tensor:
    """Which samples AGRA keeps, (B,) bool: those whose `agra_similarity` is at least 0."""
    return agra_similarity(gradients, comparison) >= 0
