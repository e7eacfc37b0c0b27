"""Self-supervised label augmentation (SLA): one softmax over class and transformation, and the baselines beside it.

Every image b comes as M transformed copies, interleaved: copy j is row b*M + j, copy 0 is the image itself. A joint
logit s[c, k] stands in column c*M + k (class major).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, check_labels, check_positive, in_float32

__all__ = [
    "UNLABELLED",
    "effective_weights",
    "ldam_margins",
    "sla",
    "sla_aggregate",
    "sla_da",
    "sla_episode",
    "sla_mt",
    "sla_single",
    "sla_terms",
]

UNLABELLED = -1
"""Label of an image whose class is not known."""


def sla(
    joint: Tensor,
    labels: Tensor,
    single: Tensor | None = None,
    *,
    T: float = 1.0,
    beta: float = 1.0,
    large_loss: bool = False,
    class_weights: Tensor | None = None,
    margins: Tensor | None = None,
) -> Tensor:
    """SLA, and with ``single`` SLA+SD (Lee et al., ICML 2020, arXiv 1910.05872, eq. 3 and 5).

        L_SLA = 1/(B M) sum_b sum_j CE(s_bj, y_b M + j)                                   ``large_loss``: times M
        L     = L_SLA + beta CE(u_b, y_b) + T^2 KL( softmax(sg(a_b) / T) || softmax(u_b / T) )

    with a_b = :func:`sla_aggregate` (no gradient), u_b the single head on copy 0, the KL summed over classes and
    averaged over the batch.

    Args:
        joint: (B*M, N*M) joint logits of the interleaved copies, column y*M + j.
        labels: (B,) classes in 0 .. N-1, of the images. -1 is an unlabelled image: its joint term is that of the
            transformation alone, -log sum_c p(c, j), and it takes part in the distillation (our semi-supervised form).
        single: (B*M, N) or (B, N) logits of the second head; of the former only the rows of copy 0 are used.
        T: temperature of the distillation, above 0.
        beta: weight of the single head's cross-entropy.
        large_loss: sum over the transformations instead of their mean in L_SLA.
        class_weights: (N,) weights of the classes in both cross-entropies, which become weighted means.
        margins: (N,) subtracted from the logit of the true class first (LDAM, arXiv 1906.07413, eq. 13).

    Returns:
        A scalar >= 0. With M = 1 and without ``single`` it is the ordinary cross-entropy.

    Raises:
        UserError: (a ``ValueError``) rows or columns that fit no M, a label out of range, a T that isn't above 0.
    """
    return sla_terms(
        joint, labels, single, T=T, beta=beta, large_loss=large_loss, class_weights=class_weights, margins=margins
    )["loss"]


@in_float32
def sla_terms(
    joint: Tensor,
    labels: Tensor,
    single: Tensor | None = None,
    *,
    T: float = 1.0,
    beta: float = 1.0,
    large_loss: bool = False,
    class_weights: Tensor | None = None,
    margins: Tensor | None = None,
) -> dict[str, Tensor]:
    """:func:`sla` with its terms: ``loss``, ``joint`` and, with ``single``, ``single`` and ``distillation``."""
    check_positive(T=T)
    copies, classes = _sizes(joint, labels)
    _check_per_class(classes, class_weights, margins)
    joint_loss = _joint_cross_entropy(joint, labels, copies, class_weights, margins)
    joint_loss = joint_loss * copies if large_loss else joint_loss
    if single is None:
        return {"loss": joint_loss, "joint": joint_loss}
    u = _identity_rows(single, len(labels), copies, classes)
    own = _cross_entropy(u, labels, class_weights, margins)
    teacher = sla_aggregate(joint, copies).detach()
    student = F.log_softmax(u / T, dim=1)
    distillation = T**2 * F.kl_div(student, F.log_softmax(teacher / T, dim=1), reduction="batchmean", log_target=True)
    total = joint_loss + beta * own + distillation
    return {"loss": total, "joint": joint_loss, "single": own, "distillation": distillation}


@in_float32
def sla_aggregate(joint: Tensor, copies: int) -> Tensor:
    """Aggregated inference (arXiv 1910.05872, eq. 4): a_b[c] = 1/M sum_j s_bj[c, j], each copy read at its own j.

    Args:
        joint: (B*M, N*M) joint logits of the interleaved copies.
        copies: M.

    Returns:
        (B, N) logits: a mean of logits, which is a geometric mean of probabilities.
    """
    table = _table(joint, copies)
    return table.diagonal(dim1=1, dim2=3).mean(2)


def sla_single(joint: Tensor, copies: int) -> Tensor:
    """Single inference: the logits s_b0[c, 0] of untransformed images, given that they are untransformed.

    Args:
        joint: (B, N*M) joint logits of the images themselves.
        copies: M.

    Returns:
        (B, N) logits.
    """
    _check_columns(joint, copies)
    return joint[:, ::copies]


@in_float32
def sla_da(
    logits: Tensor, labels: Tensor, *, class_weights: Tensor | None = None, margins: Tensor | None = None
) -> Tensor:
    """Data augmentation, a baseline of SLA: every copy has the image's own label, CE(u_bj, y_b) averaged over b and j.

    Args:
        logits: (B*M, N) of the interleaved copies; M = 1 is ordinary supervised learning.
        labels: (B,) classes; -1 (unlabelled) is left out.
        class_weights: (N,), as in :func:`sla`.
        margins: (N,), as in :func:`sla`.

    Raises:
        UserError: rows that are no multiple of the labels, a label out of range.
    """
    copies = _copies(logits, labels)
    _check_labels(labels, logits.shape[1])
    _check_per_class(logits.shape[1], class_weights, margins)
    return _cross_entropy(logits, labels.repeat_interleave(copies), class_weights, margins)


@in_float32
def sla_mt(
    logits: Tensor,
    transformation: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    margins: Tensor | None = None,
) -> Tensor:
    """Multi-task learning, a baseline of SLA: class and transformation as two tasks (arXiv 1910.05872, eq. 2).

        L = 1/(B M) sum_b sum_j [ CE(u_bj, y_b) + CE(v_bj, j) ]

    Args:
        logits: (B*M, N) class logits u of the interleaved copies.
        transformation: (B*M, M) logits v of the transformation.
        labels: (B,) classes; of -1 (unlabelled) only the second term counts.
        class_weights: (N,), as in :func:`sla`; of the first term.
        margins: (N,), as in :func:`sla`; of the first term.

    Raises:
        UserError: shapes that don't fit, a label out of range.
    """
    copies = _copies(logits, labels)
    if transformation.shape != (len(logits), copies):
        found = tuple(transformation.shape)
        raise UserError(f"transformation logits must be ({len(logits)}, {copies}), one per copy, got {found}")
    check_floats(transformation=transformation)
    _check_labels(labels, logits.shape[1])
    _check_per_class(logits.shape[1], class_weights, margins)
    which = torch.arange(copies, device=labels.device).repeat(len(labels))
    own = _cross_entropy(logits, labels.repeat_interleave(copies), class_weights, margins)
    return own + F.cross_entropy(transformation, which)


@in_float32
def sla_episode(
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    classes: int,
    copies: int,
    head: str = "prototypes",
    ridge: float = 50.0,
) -> Tensor:
    """Joint logits of a few-shot episode: every class and transformation is a class of its own (arXiv 1910.05872, 4.3).

    ``"prototypes"`` (ProtoNet, arXiv 1703.05175): -|| q - mean of the support of (c, k) ||^2. ``"ridge"``
    (MetaOptNet-RR, arXiv 1904.03758): q X^T (X X^T + ridge I)^-1 Y with one-hot Y over the pseudo-classes.
    Train with :func:`sla` on the result, test with :func:`sla_aggregate`.

    Args:
        support: (S*M, D) features of the interleaved copies of the support images.
        labels: (S,) classes of the support in 0 .. classes-1, each at least once.
        query: (Q*M, D) features of the interleaved copies of the queries.
        classes: ways N of the episode.
        copies: M.
        head: ``"prototypes"`` or ``"ridge"``.
        ridge: the ridge's weight, above 0.

    Returns:
        (Q*M, N*M), column c*M + k.

    Raises:
        UserError: shapes that don't fit, a class without support, an unknown head.
    """
    check_choice("head", head, ("prototypes", "ridge"))
    check_positive(ridge=ridge)
    fits = copies >= 1 and support.ndim == query.ndim == 2 and labels.ndim == 1
    if not fits or len(support) != len(labels) * copies or len(query) % copies or support.shape[1] != query.shape[1]:
        raise UserError(
            f"episode: support {tuple(support.shape)}, labels {tuple(labels.shape)} and query {tuple(query.shape)} "
            f"don't fit {copies} copies of every image"
        )
    check_floats(support=support, query=query)
    check_labels(labels, len(labels), classes)
    if not set(range(classes)) <= set(labels.tolist()):
        raise UserError(f"episode: each of the {classes} classes needs a support image")
    pseudo = (labels[:, None] * copies + torch.arange(copies, device=labels.device)).flatten()
    hot = F.one_hot(pseudo, classes * copies).to(support)
    if head == "ridge":
        gram = support @ support.T + ridge * torch.eye(len(support), dtype=support.dtype, device=support.device)
        return query @ support.T @ torch.linalg.solve(gram, hot)
    prototypes = hot.T @ support / hot.sum(0)[:, None]
    return -(query[:, None] - prototypes[None]).square().sum(2)


@in_float32
def effective_weights(counts: Tensor, *, gamma: float = 0.9999) -> Tensor:
    """Class weights by the effective number of samples (Cui et al., CVPR 2019, arXiv 1901.05555, eq. 2-3).

    w_c proportional to (1 - gamma) / (1 - gamma^n_c), scaled to mean 1; classes never seen count as seen once.

    Args:
        counts: (N,) training samples n_c per class, integers or not.
        gamma: in [0, 1); 0 gives equal weights, towards 1 the inverse frequency.

    Returns:
        (N,) floating point.

    Raises:
        UserError: a gamma outside [0, 1), counts that aren't (N,) or are negative.
    """
    counts = _counts(counts)
    if not 0 <= gamma < 1:
        raise UserError(f"gamma must lie in [0, 1), got {gamma}")
    number = counts.double().clamp_min(1)
    weights = (1 - gamma) / (1 - gamma**number)
    return (weights / weights.mean()).to(counts.dtype)


@in_float32
def ldam_margins(counts: Tensor, *, largest: float = 0.5) -> Tensor:
    """Margins of LDAM (Cao et al., NeurIPS 2019, arXiv 1906.07413, eq. 13): (N,), proportional to n_c^(-1/4).

    Args:
        counts: (N,) training samples n_c per class, integers or not; 0 counts as 1.
        largest: margin of the rarest class (on cosines; multiply by their scale).

    Returns:
        (N,) floating point.

    Raises:
        UserError: counts that aren't (N,) or are negative.
    """
    counts = _counts(counts)
    check_positive(largest=largest)
    margins = counts.clamp_min(1).pow(-0.25)
    return margins * (largest / margins.max())


def _counts(counts: Tensor) -> Tensor:
    if counts.ndim != 1 or not len(counts) or bool((counts < 0).any()):
        raise UserError(f"counts must be (N,) numbers of samples, 0 or more, one per class; got {tuple(counts.shape)}")
    return counts if counts.is_floating_point() else counts.to(torch.get_default_dtype())


# ---- parts --------------------------------------------------------------------------------------------------------
def _copies(logits: Tensor, labels: Tensor) -> int:
    check_floats(logits=logits)
    if logits.ndim != 2 or labels.ndim != 1 or not len(labels) or len(logits) % len(labels) or not len(logits):
        found = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise UserError(f"logits (B*M, ...) and labels (B,) are needed, an image's copies side by side; got {found}")
    return len(logits) // len(labels)


def _check_columns(joint: Tensor, copies: int) -> int:
    if joint.ndim != 2 or copies < 1 or joint.shape[1] % copies:
        raise UserError(f"joint logits {tuple(joint.shape)} don't divide into {copies} transformations per class")
    return joint.shape[1] // copies


def _check_labels(labels: Tensor, classes: int) -> None:
    check_labels(labels, len(labels))
    if int(labels.max()) >= classes or int(labels.min()) < UNLABELLED:
        raise UserError(f"labels must lie in 0 .. {classes - 1} (-1: unlabelled), got {labels.min()} .. {labels.max()}")


def _check_per_class(classes: int, weights: Tensor | None, margins: Tensor | None) -> None:
    for name, value in (("class_weights", weights), ("margins", margins)):
        if value is not None and value.shape != (classes,):
            raise UserError(f"{name} must have the shape ({classes},), one per class, got {tuple(value.shape)}")


def _sizes(joint: Tensor, labels: Tensor) -> tuple[int, int]:
    copies = _copies(joint, labels)
    classes = _check_columns(joint, copies)
    _check_labels(labels, classes)
    return copies, classes


def _table(joint: Tensor, copies: int) -> Tensor:
    """(B*M, N*M) -> (B, j, c, k)."""
    check_floats(joint=joint)
    classes = _check_columns(joint, copies)
    if len(joint) % copies:
        raise UserError(f"joint logits of {len(joint)} rows aren't {copies} copies of every image")
    return joint.view(-1, copies, classes, copies)


def _identity_rows(single: Tensor, images: int, copies: int, classes: int) -> Tensor:
    if single.ndim != 2 or single.shape[1] != classes or len(single) not in (images, images * copies):
        found = tuple(single.shape)
        raise UserError(f"single logits must be ({images * copies}, {classes}) or ({images}, {classes}), got {found}")
    check_floats(single=single)
    return single if len(single) == images else single[::copies]


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, margins: Tensor | None) -> Tensor:
    """Mean over the labelled rows, weighted by class; 0 without any."""
    known = labels >= 0
    column = labels.clamp_min(0)
    if margins is not None:
        logits = logits - F.one_hot(column, logits.shape[1]) * margins[column][:, None]
    nll = -F.log_softmax(logits, dim=1).gather(1, column[:, None]).squeeze(1)
    return _weighted_mean(nll, known, column, weights)


def _weighted_mean(nll: Tensor, known: Tensor, column: Tensor, weights: Tensor | None) -> Tensor:
    share = known.to(nll) if weights is None else known * weights[column]
    return (nll * share).sum() / share.sum().clamp_min(torch.finfo(nll.dtype).tiny)


def _joint_cross_entropy(
    joint: Tensor, labels: Tensor, copies: int, weights: Tensor | None, margins: Tensor | None
) -> Tensor:
    """Mean over all rows of -log p(y, j), and of -log sum_c p(c, j) where y is unknown (weight 1)."""
    known = (labels >= 0).repeat_interleave(copies)
    column = labels.clamp_min(0).repeat_interleave(copies)
    which = torch.arange(copies, device=labels.device).repeat(len(labels))
    if margins is not None:
        joint = joint - F.one_hot(column * copies + which, joint.shape[1]) * (margins[column] * known)[:, None]
    log_p = F.log_softmax(joint, dim=1)
    both = log_p.gather(1, (column * copies + which)[:, None]).squeeze(1)
    if bool(known.all()):
        return _weighted_mean(-both, known, column, weights)
    own = which.view(-1, 1, 1).expand(-1, joint.shape[1] // copies, 1)
    transformation = log_p.view(len(joint), -1, copies).gather(2, own).logsumexp((1, 2))
    share = torch.ones_like(both) if weights is None else torch.where(known, weights[column], 1.0)
    return -(torch.where(known, both, transformation) * share).sum() / share.sum()
