"""ColloSSL: devices worn together are each other's views (IMWUT 6(1), 2022, arXiv 2202.00758).

    k(x, y)  = sum_s exp( -||x - y||^2 / (2 sigma_s) ),   12 values of sigma
    d(X, Y)  = max( mean k(X, X) + mean k(Y, Y) - 2 mean k(X, Y), 1e-4 )           of the signals' norms
    P_b = sum_i v_i exp( cos(z*_b, z+_ib) / tau ),   N_b = sum_j w_j exp( cos(z*_b, z-_j,pi(b)) / tau )
    L   = mean_b -log( P_b / (P_b + N_b) )

The device of smallest distance gives the positive of the same instant, the others negatives of other instants, weighted
by 1/d. The released code has the opposite sign of the similarity: ``similarity="keras_negative"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import unit

__all__ = [
    "SIGMAS",
    "STRATEGIES",
    "Selection",
    "collossl",
    "collossl_terms",
    "device_distance",
    "gaussian_kernel",
    "mmd",
    "pair_weights",
    "select_devices",
    "signal_norm",
]

SIGMAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 100.0)
"""Of the kernel: each divides the squared distance as it is, not squared."""
FLOOR = 1e-4
"""Least distance of two devices."""
Strategy = Literal[
    "closest_pos_all_neg", "closest_only", "hard_negative", "harder_negative", "closest_two", "closest_two_reverse",
    "closest_pos_rest_neg", "closest_pos_random_neg", "mid_selection", "random",
]  # fmt: skip
STRATEGIES: tuple[str, ...] = get_args(Strategy)
Similarity = Literal["cosine", "keras_negative"]


# ---- distances -------------------------------------------------------------------------------------------------------
def gaussian_kernel(x: Tensor, y: Tensor, sigmas: Sequence[float] = SIGMAS) -> Tensor:
    """sum_s exp(-||x_i - y_j||^2 / (2 sigma_s)), (N, M) float64, by the Gram expansion: no (N, L, M) tensor.

    Args:
        x: (N, L).
        y: (M, L).
        sigmas: the sum's widths.

    Raises:
        UserError: other shapes, or a width that is not positive.
    """
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise UserError(f"a kernel of rows (N, L) and (M, L), got {tuple(x.shape)} and {tuple(y.shape)}")
    if not x.is_floating_point() or not y.is_floating_point():
        raise UserError("a kernel of floating point rows")
    if not sigmas or min(sigmas) <= 0:
        raise UserError("sigmas: give positive widths")
    x, y = x.double(), y.double()
    squared = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
    if x is y or (x.shape == y.shape and torch.equal(x, y)):
        squared = squared - torch.diag(squared.diagonal())
    squared = squared.clamp_min(0)
    return sum(((-squared / (2 * s)).exp() for s in sigmas), torch.zeros_like(squared))


def mmd(x: Tensor, y: Tensor, sigmas: Sequence[float] = SIGMAS, floor: float = FLOOR) -> Tensor:
    """Maximum mean discrepancy of two sets of windows, diagonal included, at least ``floor``; float64 scalar.

    Args:
        x: (N, L).
        y: (M, L).
        sigmas: of `gaussian_kernel`.
        floor: least value.
    """
    own = gaussian_kernel(x, x, sigmas).mean() + gaussian_kernel(y, y, sigmas).mean()
    return (own - 2 * gaussian_kernel(x, y, sigmas).mean()).clamp_min(0).clamp_min(floor)


def signal_norm(x: Tensor) -> Tensor:
    """sqrt(ax^2 + ay^2 + az^2) of the first three channels: (N, C, L) to (N, L)."""
    if x.dim() != 3 or x.shape[1] < 3 or not x.is_floating_point():
        raise UserError(f"windows must be floats (N, C, L) with three axes or more, got {tuple(x.shape)}")
    return torch.linalg.vector_norm(x[:, :3], dim=1)


def device_distance(
    x: Tensor, y: Tensor, form: Literal["norm", "axes"] = "norm", *, sigmas: Sequence[float] = SIGMAS
) -> Tensor:
    """How differently two devices move: the MMD of their norms, or the mean of the MMDs of the three axes.

    Args:
        x: (N, C, L) windows of one device, the first three channels its acceleration.
        y: (M, C, L) of another.
        form: "norm" or "axes".
        sigmas: of `gaussian_kernel`.
    """
    if form not in ("norm", "axes"):
        raise UserError(f"form={form!r}: it may be norm or axes")
    if x.dim() != 3 or y.dim() != 3 or x.shape[1] != y.shape[1]:
        raise UserError(f"windows (N, C, L) of two devices, got {tuple(x.shape)} and {tuple(y.shape)}")
    if form == "norm":
        return mmd(signal_norm(x), signal_norm(y), sigmas)
    signal_norm(x)
    return torch.stack([mmd(x[:, axis], y[:, axis], sigmas) for axis in range(3)]).mean()


# ---- selection -------------------------------------------------------------------------------------------------------
class Selection(NamedTuple):
    """Which devices give positives and negatives, and with what weight.

    Attributes:
        positives: places in the list of distances.
        negatives: places in the list of distances; its length stands for the anchor itself.
        positive_weights: v, one each.
        negative_weights: w, one each.
    """

    positives: list[int]
    negatives: list[int]
    positive_weights: Tensor
    negative_weights: Tensor


def _check_distances(distances: Tensor, used: Sequence[int]) -> None:
    if distances.ndim != 1 or not distances.is_floating_point() or not bool((distances > 0).all()):
        raise UserError(f"distances must be positive floats (devices,), got {tuple(distances.shape)}")
    if any(not 0 <= k < len(distances) for k in used):
        raise UserError(f"positives and negatives number the {len(distances)} other devices from 0")


def pair_weights(
    distances: Tensor, positives: Sequence[int], negatives: Sequence[int], *, weighted: bool = True
) -> tuple[Tensor, Tensor]:
    """v = 1 and w_j = 1 / d_j, all divided by the largest of them; without ``weighted`` all 1. float32.

    Where the nearest negative is very near, its weight is 1 and the positive's as small as 1e-4: so it is in the
    released code.

    Raises:
        UserError: distances that are no vector of positive numbers, or devices that there are not.
    """
    _check_distances(distances, [*positives, *negatives])
    v = torch.ones(len(positives), dtype=torch.float64)
    w = 1 / distances.detach().double().cpu()[list(negatives)] if weighted else torch.ones(len(negatives)).double()
    largest = torch.cat([v, w]).max()
    return (v / largest).float(), (w / largest).float()


def select_devices(
    distances: Tensor,
    strategy: Strategy = "closest_pos_all_neg",
    *,
    weighted: bool = True,
    with_anchor: bool = False,
    generator: torch.Generator | None = None,
) -> Selection:
    """Choose positives and negatives by the distances of the other devices to the anchor.

    | strategy | positives | negatives |
    | --- | --- | --- |
    | closest_pos_all_neg | the closest | all, the closest included |
    | closest_only | the closest | the closest |
    | hard_negative | the closest | the second and third |
    | harder_negative | the closest | the second |
    | closest_two | the two closest | the rest |
    | closest_two_reverse | the two farthest | the rest |
    | closest_pos_rest_neg | the closest | all others |
    | closest_pos_random_neg | the closest | one of the others, at random |
    | mid_selection | the one in the middle | all others |
    | random | one at random | one of the others, at random |

    Where no other device is left to be a negative, the positive's own device is (of other instants).

    Args:
        distances: (D - 1,), of the other devices.
        strategy: one of `STRATEGIES`.
        weighted: weigh negatives by 1 / d.
        with_anchor: the anchor's own windows, of other instants, are one negative more, at half the smallest distance.
        generator: of the random choices.

    Raises:
        UserError: no distance, one that is not positive, or an unknown strategy.
    """
    if distances.dim() != 1 or not len(distances) or not distances.is_floating_point():
        raise UserError(
            f"distances (D - 1,) of the other devices, got {tuple(distances.shape)}; give two or more devices"
        )
    if not bool((distances > 0).all()):
        raise UserError("distances must be positive")
    if strategy not in STRATEGIES:
        raise UserError(f"strategy={strategy!r}: it may be {', '.join(STRATEGIES)}")
    order = distances.argsort(stable=True).tolist()
    chance = torch.randperm(len(order), generator=generator).tolist() if "random" in strategy else []
    positives, negatives = _chosen(strategy, order, chance)
    negatives = negatives or positives
    known = distances.detach().double().cpu()
    if with_anchor:
        known = torch.cat([known, known.min()[None] / 2])
        negatives = [*negatives, len(order)]
    v, w = pair_weights(known, positives, negatives, weighted=weighted)
    return Selection(positives, negatives, v, w)


def _chosen(strategy: str, order: list[int], chance: list[int]) -> tuple[list[int], list[int]]:
    closest, rest = order[:1], order[1:]
    if strategy == "closest_pos_all_neg":
        return closest, order
    if strategy == "closest_only":
        return closest, closest
    if strategy in ("hard_negative", "harder_negative"):
        return closest, rest[: 2 if strategy == "hard_negative" else 1]
    if strategy == "closest_two":
        return order[:2], order[2:]
    if strategy == "closest_two_reverse":
        return order[-2:], order[:-2]
    if strategy == "closest_pos_random_neg":
        return closest, [device for device in chance if device != closest[0]][:1]
    if strategy == "mid_selection":
        middle = order[len(order) // 2]
        return [middle], [device for device in order if device != middle]
    if strategy == "random":
        return chance[:1], chance[1:2]
    return closest, rest


# ---- the loss --------------------------------------------------------------------------------------------------------
def collossl(
    anchor: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    positive_weights: Tensor | None = None,
    negative_weights: Tensor | None = None,
    temperature: float = 0.05,
    similarity: Similarity = "cosine",
) -> Tensor:
    """The multi-view contrastive loss, a mean over the batch.

    Args:
        anchor: z* (B, d).
        positives: z+ (P, B, d), of the same instants.
        negatives: z- (Q, B, d), of other instants: already permuted.
        positive_weights: v (P,); None: 1.
        negative_weights: w (Q,); None: 1.
        temperature: tau; 0.05 in the authors' script, 0.1 the default of their code.
        similarity: "cosine", or "keras_negative": minus the cosine, as released.

    Raises:
        UserError: shapes that do not fit, weights that are not positive, a temperature that is not.
    """
    terms = collossl_terms(
        anchor, positives, negatives, positive_weights=positive_weights, negative_weights=negative_weights,
        temperature=temperature, similarity=similarity,
    )  # fmt: skip
    return terms["loss"]


def collossl_terms(
    anchor: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    positive_weights: Tensor | None = None,
    negative_weights: Tensor | None = None,
    temperature: float = 0.05,
    similarity: Similarity = "cosine",
) -> dict[str, Tensor]:
    """`collossl` as "loss", with the mean cosines "positive" and "negative" (no gradient)."""
    for name, part in (("positives", positives), ("negatives", negatives)):
        if part.dim() != 3 or part.shape[1:] != anchor.shape or not len(part) or not part.is_floating_point():
            raise UserError(f"{name} must be floats (n, B, d) beside an anchor (B, d) = {tuple(anchor.shape)}")
    if anchor.dim() != 2 or not anchor.numel() or not anchor.is_floating_point():
        raise UserError(f"anchor must be floats (B, d), got {tuple(anchor.shape)}")
    if not temperature > 0:
        raise UserError(f"temperature={temperature} must be positive")
    if similarity not in ("cosine", "keras_negative"):
        raise UserError(f"similarity={similarity!r}: it may be cosine or keras_negative")
    z = unit(anchor.float() if anchor.dtype != torch.float64 else anchor)
    sign = 1.0 if similarity == "cosine" else -1.0
    cosines, sums = [], []
    for part, weights in ((positives, positive_weights), (negatives, negative_weights)):
        cosine = (unit(part.to(z)) * z).sum(2)
        logarithm = _logarithm(weights, len(part), z)
        cosines.append(cosine.detach().mean())
        sums.append((sign * cosine / temperature + logarithm[:, None]).logsumexp(0))
    loss = F.softplus(sums[1] - sums[0]).mean()
    return {"loss": loss, "positive": cosines[0], "negative": cosines[1]}


def _logarithm(weights: Tensor | None, count: int, like: Tensor) -> Tensor:
    if weights is None:
        return like.new_zeros(count)
    if weights.shape != (count,) or not weights.is_floating_point() or not bool((weights > 0).all()):
        raise UserError(f"a positive weight for each of {count} devices, got {tuple(weights.shape)}")
    return weights.to(like).log()
