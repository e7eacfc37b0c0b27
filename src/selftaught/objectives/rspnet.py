"""RSPNet: clips of one speed are nearer than clips of two; clips of a video belong together at any speed (Chen et al.,
AAAI 2021, arXiv 2011.07949).
"""

from __future__ import annotations

from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_entries, check_positive, check_views, in_float32, softplus
from selftaught.objectives._tiled import lse_rows

__all__ = ["a_vid", "relative_speed", "rspnet", "rspnet_terms"]


@in_float32
def a_vid(q: Tensor, k: Tensor, kneg: Tensor, queue: Tensor, *, temperature: float | Tensor = 0.07) -> Tensor:
    """A-VID: CE([q.k, q.Queue] / tau) + CE([q.kneg, q.Queue] / tau), target 0: one video at any speed is positive.

    Args:
        q: (N, D) of the appearance head, unit vectors already.
        k: (N, D) keys of clips at the query's speed, unit vectors; a constant.
        kneg: (N, D) keys of clips at the other speed; a constant.
        queue: (K, D) past keys; a constant, K may be 0.
        temperature: tau, above 0.

    Raises:
        UserError: shapes that don't fit, a temperature that isn't above 0.
    """
    _, width = check_views(q, k, kneg)
    check_entries(queue, width, minimum=0)
    check_positive(temperature=temperature)
    if not len(queue):
        return (q * 0).sum()
    negatives = lse_rows(q, queue.detach(), scale=1 / temperature)
    terms = [softplus(negatives - (q * key.detach()).sum(1) / temperature).mean() for key in (k, kneg)]
    return terms[0] + terms[1]


@in_float32
def relative_speed(
    q: Tensor, k: Tensor, kneg: Tensor, *, temperature: float | Tensor = 0.07, margin: float = 1.0
) -> Tensor:
    """RSP: mean max(0, margin - (q.k - q.kneg) / tau): the clip of the same speed is nearer by tau margin.

    Args:
        q: (N, D) of the motion head, unit vectors already.
        k: (N, D) keys at the query's speed; a constant.
        kneg: (N, D) keys at the other speed; a constant.
        temperature: tau, above 0: a margin of 1 is a gap of 0.07 between cosines.
        margin: 0 or more.

    Raises:
        UserError: shapes that don't fit, numbers out of range.
    """
    check_views(q, k, kneg)
    check_positive(temperature=temperature)
    if not margin >= 0:
        raise UserError(f"margin must be 0 or more, got {margin}")
    gap = (q * (k.detach() - kneg.detach())).sum(1) / temperature
    return (margin - gap).clamp_min(0).mean()


def rspnet(
    appearance: tuple[Tensor, Tensor, Tensor],
    motion: tuple[Tensor, Tensor, Tensor],
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    margin: float = 1.0,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """L = A-VID + RSP; see :func:`rspnet_terms`."""
    terms = rspnet_terms(appearance, motion, queue, temperature=temperature, margin=margin, weights=weights)
    return terms["loss"]


def rspnet_terms(
    appearance: tuple[Tensor, Tensor, Tensor],
    motion: tuple[Tensor, Tensor, Tensor],
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    margin: float = 1.0,
    weights: tuple[float, float] = (1.0, 1.0),
) -> dict[str, Tensor]:
    """The weighted sum of both terms.

    Args:
        appearance: q, k, kneg (N, D) of head A, unit vectors.
        motion: q, k, kneg (N, D) of head M, unit vectors.
        queue: (K, D) past keys of head A.
        temperature: tau of both.
        margin: of RSP.
        weights: of A-VID and of RSP.

    Returns:
        ``loss``, ``a_vid``, ``rsp`` and ``speed_acc``: share of queries nearer to their own speed.

    Raises:
        UserError: not three tensors each, shapes that don't fit, numbers out of range.
    """
    for name, parts in (("appearance", appearance), ("motion", motion)):
        if len(parts) != 3:
            raise UserError(f"{name} needs three tensors (q, k, kneg), got {len(parts)}")
        check_views(*parts)
    if len(appearance[0]) != len(motion[0]):
        raise UserError(f"appearance and motion need as many rows, got {len(appearance[0])} and {len(motion[0])}")
    shared = a_vid(*appearance, queue, temperature=temperature)
    speed = relative_speed(*motion, temperature=temperature, margin=margin)
    q, k, kneg = (part.detach() for part in motion)
    nearer = ((q * k).sum(1) > (q * kneg).sum(1)).to(q.dtype).mean()
    return {
        "loss": weights[0] * shared + weights[1] * speed,
        "a_vid": shared.detach(),
        "rsp": speed.detach(),
        "speed_acc": nearer,
    }
