"""Clusters of tokens that one branch takes from another: DISCOVR's cluster distillation, and SIGMA, its baseline."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_choice, check_floats, check_positive, in_float32, unit
from selftaught.objectives.swav import Join, sinkhorn


def cluster_distillation(
    video: Tensor,
    image: Tensor,
    prototypes: Tensor,
    *,
    targets: str = "hard",
    temperature: float = 0.1,
    eps: float = 0.05,
    iters: int = 10,
    join: Join | None = None,
) -> Tensor:
    """Semantic cluster distillation (DISCOVR, arXiv 2506.11777): video tokens take the clusters of image tokens.

        S = unit(z) unit(P)^T,     Q = sinkhorn(S)     (:func:`sinkhorn`, over the tokens of the batch together)
        L_SCD = CE(S_i / temperature, Q_v) + CE(S_v / temperature, Q_i),     both means over the B N tokens

    Image tokens are constants and so are the prototypes within S_i and the codes Q: the first term has no gradient, it
    only shows in the value. The second trains video tokens and prototypes.

    Args:
        video: (B, N, D) tokens of the video's decoder, in raster order.
        image: (B, N, D) their partners, from :func:`paired_tokens`.
        prototypes: (K, D); scaled to length 1 here.
        targets: "hard" takes the largest entry of each code (as the authors' code does), "soft" the code (the paper).
        temperature: of the scores, above 0.
        eps: smoothness of the codes, above 0.
        iters: rounds of Sinkhorn's algorithm.
        join: gathers rows over processes, see :func:`sinkhorn`.

    Returns:
        A scalar >= 0; 2 log K for scores that are all equal.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, a value out of range, unknown ``targets``.
    """
    return cluster_distillation_terms(
        video, image, prototypes, targets=targets, temperature=temperature, eps=eps, iters=iters, join=join
    )["loss"]


@in_float32
def cluster_distillation_terms(
    video: Tensor,
    image: Tensor,
    prototypes: Tensor,
    *,
    targets: str = "hard",
    temperature: float = 0.1,
    eps: float = 0.05,
    iters: int = 10,
    join: Join | None = None,
) -> dict[str, Tensor]:
    """:func:`cluster_distillation` with its two terms and what shows a collapse, the latter without gradient.

    ``loss``; ``image_term`` = CE(S_i, Q_v), a constant but for the temperature; ``video_term`` = CE(S_v, Q_i);
    ``agreement``, the share of tokens whose best prototype is that of their partner's code; ``used_prototypes``, the
    share of prototypes that are the largest entry of some image token's code.
    """
    check_floats(video=video, image=image, prototypes=prototypes)
    _check_pair(video, image, prototypes)
    check_choice("targets", targets, ("hard", "soft"))
    check_positive(temperature=temperature, eps=eps)
    rows = unit(prototypes)
    s_v = unit(video).flatten(0, 1) @ rows.T
    with torch.no_grad():
        s_i = unit(image).flatten(0, 1) @ rows.T
        q_v, q_i = (sinkhorn(s, eps=eps, iters=iters, join=join) for s in (s_v, s_i))
        best = q_i.argmax(1)
        agreement = (s_v.argmax(1) == best).to(s_v.dtype).mean()
        used = s_v.new_tensor(len(best.unique()) / len(rows))
    image_term = _cross_entropy(s_i / temperature, q_v, targets)
    video_term = _cross_entropy(s_v / temperature, q_i, targets)
    return {
        "loss": image_term + video_term,
        "image_term": image_term,
        "video_term": video_term,
        "agreement": agreement,
        "used_prototypes": used,
    }


def sigma(
    prediction: Tensor,
    target: Tensor,
    prototypes: Tensor,
    *,
    targets: str = "hard",
    temperature: float = 0.1,
    eps: float = 0.05,
    iters: int = 10,
    join: Join | None = None,
) -> Tensor:
    """SIGMA (Salehi et al., ECCV 2024, arXiv 2407.15447): decoder and target network predict each other's clusters.

        L = CE(S_x / temperature, Q_y) + CE(S_y / temperature, Q_x)

    Both directions train: the decoder's tokens x, the target network's tokens y (an MLP over the pixels of a tubelet)
    and the prototypes. The equal partition of the codes Q keeps the target network from collapse.

    Args:
        prediction: (B, N, D) tokens of the decoder, the hidden ones alone.
        target: (B, N, D) the target network's tokens of the same places.
        prototypes: (K, D); scaled to length 1 here, as are the tokens.
        targets, temperature, eps, iters, join: see :func:`cluster_distillation`.

    Returns:
        A scalar >= 0; 2 log K for scores that are all equal.

    Raises:
        UserError: (a ``ValueError``) as :func:`cluster_distillation` raises it.
    """
    return sigma_terms(
        prediction, target, prototypes, targets=targets, temperature=temperature, eps=eps, iters=iters, join=join
    )["loss"]


@in_float32
def sigma_terms(
    prediction: Tensor,
    target: Tensor,
    prototypes: Tensor,
    *,
    targets: str = "hard",
    temperature: float = 0.1,
    eps: float = 0.05,
    iters: int = 10,
    join: Join | None = None,
) -> dict[str, Tensor]:
    """:func:`sigma` with ``used_prototypes``, the share that is the largest entry of some target's code."""
    check_floats(prediction=prediction, target=target, prototypes=prototypes)
    _check_pair(prediction, target, prototypes)
    check_choice("targets", targets, ("hard", "soft"))
    check_positive(temperature=temperature, eps=eps)
    rows = unit(prototypes)
    s_x, s_y = (unit(z).flatten(0, 1) @ rows.T for z in (prediction, target))
    q_x, q_y = (sinkhorn(s.detach(), eps=eps, iters=iters, join=join) for s in (s_x, s_y))
    loss = _cross_entropy(s_x / temperature, q_y, targets) + _cross_entropy(s_y / temperature, q_x, targets)
    return {"loss": loss, "used_prototypes": s_x.new_tensor(len(q_y.argmax(1).unique()) / len(rows))}


def _cross_entropy(logits: Tensor, codes: Tensor, targets: str) -> Tensor:
    return F.cross_entropy(logits, codes.argmax(1) if targets == "hard" else codes)


def check_tokens(*tokens: Tensor) -> None:
    """Refuse tokens that aren't (B, N, D) of one shape, or integers."""
    shapes = {tuple(t.shape) for t in tokens}
    if len(shapes) != 1 or tokens[0].dim() != 3 or 0 in tokens[0].shape:
        raise UserError(f"tokens need one shape (batch, tokens, width), got {' and '.join(map(str, sorted(shapes)))}")
    if not all(t.is_floating_point() for t in tokens):
        raise UserError("tokens need floating-point values; call .float() on them")


def _check_pair(video: Tensor, image: Tensor, prototypes: Tensor) -> None:
    check_tokens(video, image)
    if prototypes.dim() != 2 or not len(prototypes) or prototypes.shape[1] != video.shape[2]:
        raise UserError(
            f"prototypes need the shape (count, {video.shape[2]}) of the tokens' width, got {tuple(prototypes.shape)}"
        )
