"""RetFiner's four objectives of images and their reports, with their masker and their hard negatives (2506.22149)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_labels, check_positive, check_views, in_float32, unit
from selftaught.objectives.clip import check_smoothing

__all__ = [
    "IGNORED", "contrast_texts", "hard_negatives", "mask_tokens", "masked_language", "negative_weights",
    "text_matching",
]  # fmt: skip

IGNORED = -100
"""The label of a place that no loss looks at."""


def mask_tokens(
    tokens: Tensor,
    probability: float = 0.15,
    *,
    mask: int = 103,
    low: int = 106,
    high: int = 30521,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Hide some tokens: 80 % become [MASK], 10 % another one, 10 % stay; each row has one at least.

    Each token that isn't padding (0), from the second place on, is chosen with ``probability``; a row without any is
    drawn again. The last token of a text, its end, may be chosen.

    Args:
        tokens: (N, L) int64, 0 for padding.
        probability: of a token (0.15 for masked language, 0.6 for generating).
        mask: number of [MASK].
        low: lowest number that replaces a token at random.
        high: highest such number, itself included.
        generator: of the draws; on the CPU.

    Returns:
        (N, L) with hidden tokens, and (N, L) labels: the original at chosen places, else -100.

    Raises:
        UserError: no int64 tokens (N, L), a probability outside (0, 1], a row with nothing to hide.
    """
    if tokens.dim() != 2 or tokens.dtype != torch.int64 or not len(tokens):
        raise UserError(f"tokens are (N, L) int64, got {tuple(tokens.shape)} {tokens.dtype}")
    if not 0 < probability <= 1 or low > high:
        raise UserError(f"probability {probability:g} may be above 0 to 1, low {low} at most high {high}")
    able = tokens != 0
    able[:, 0] = False
    if not bool(able.any(1).all()):
        raise UserError("a text has nothing to hide behind its first token; leave out empty texts")

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(tokens.device)

    chosen = able & (uniform(*tokens.shape) < probability)
    while len(rows := (~chosen.any(1)).nonzero().flatten()):
        chosen[rows] = able[rows] & (uniform(len(rows), tokens.shape[1]) < probability)
    labels = torch.where(chosen, tokens, IGNORED)
    fate = uniform(*tokens.shape)
    others = (low + (uniform(*tokens.shape) * (high - low + 1)).long()).clamp(max=high)
    hidden = torch.where(chosen & (fate < 0.8), mask, tokens)
    return torch.where(chosen & (fate >= 0.8) & (fate < 0.9), others, hidden), labels


@in_float32
def masked_language(logits: Tensor, labels: Tensor) -> Tensor:
    """L_mlm (and L_gm): the mean over all chosen places of the batch of CE(vocabulary logits there, original token).

    Targets are at the chosen places themselves, for generating too: what is causal is the network.

    Args:
        logits: (N, L, V).
        labels: (N, L) int64, -100 where nothing was chosen.

    Returns:
        A scalar >= 0; 0 where nothing was chosen.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, labels outside the vocabulary.
    """
    if logits.dim() != 3 or labels.shape != logits.shape[:2] or labels.dtype != torch.int64:
        raise UserError(f"logits are (N, L, V), labels (N, L) int64; got {tuple(logits.shape)}, {tuple(labels.shape)}")
    check_floats(logits=logits)
    chosen = labels != IGNORED
    if not bool(chosen.any()):
        return logits.sum() * 0.0
    picked = labels[chosen]
    check_labels(picked, len(picked), logits.shape[2])
    return F.cross_entropy(logits[chosen], picked)


@in_float32
def contrast_texts(
    image: Tensor,
    text: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    smoothing: float = 0.1,
    same: Tensor | None = None,
) -> Tensor:
    """L_itc = ( CE_e(S, arange) + CE_e(S^T, arange) ) / 2,   S = v t^T / temperature of the L2-normalised rows.

    Args:
        image: (N, D) projections of the images' class tokens; normalised here.
        text: (N, D) projections of the texts' first tokens.
        temperature: 0.07, or a learnt tensor.
        smoothing: e, label smoothing.
        same: (N, N) bool, pairs of equal texts: those off the diagonal are no negatives; None: all are.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, values out of range.
    """
    rows, _ = check_views(image, text)
    check_positive(temperature=temperature)
    check_smoothing(smoothing)
    scores = unit(image) @ unit(text).T / temperature
    if same is not None:
        if same.shape != scores.shape or same.dtype != torch.bool:
            raise UserError(f"same is ({rows}, {rows}) bool, got {tuple(same.shape)} {same.dtype}")
        own = torch.eye(rows, dtype=torch.bool, device=scores.device)
        return (_smoothed(scores, same & ~own, smoothing) + _smoothed(scores.T, same.T & ~own, smoothing)) / 2
    target = torch.arange(rows, device=scores.device)
    both = [F.cross_entropy(s, target, label_smoothing=smoothing) for s in (scores, scores.T)]
    return (both[0] + both[1]) / 2


def _smoothed(scores: Tensor, left_out: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with smoothing over what is left of each row."""
    log_p = scores.masked_fill(left_out, -torch.inf).log_softmax(1)
    kept = log_p.masked_fill(left_out, 0.0)
    spread = kept.sum(1) / (~left_out).sum(1)
    return -((1 - smoothing) * log_p.diagonal() + smoothing * spread).mean()


@in_float32
@torch.no_grad()
def negative_weights(similarity: Tensor, same: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weights by which negatives are drawn: of an image for each text, and of a text for each image.

        w_t2i = softmax_rows(S^T) + 1e-4,    w_i2t = softmax_rows(S) + 1e-4,    diagonals 0

    Args:
        similarity: S (N, N), rows images.
        same: (N, N) bool, pairs of equal texts, which are no negatives either; None: only a pair's own.

    Raises:
        UserError: (a ``ValueError``) another shape, fewer than two rows.
    """
    if similarity.dim() != 2 or similarity.shape[0] != similarity.shape[1] or not similarity.is_floating_point():
        raise UserError(f"similarities are (N, N), got {tuple(similarity.shape)}")
    if len(similarity) < 2:
        raise UserError("a batch of 1 has no negatives; raise the batch size")
    own = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    if same is not None:
        if same.shape != similarity.shape or same.dtype != torch.bool:
            raise UserError(f"same is {tuple(similarity.shape)} bool, got {tuple(same.shape)} {same.dtype}")
        own = own | same
    found = [(s.softmax(1) + 1e-4).masked_fill(mask, 0.0) for s, mask in ((similarity.T, own.T), (similarity, own))]
    return found[0], found[1]


def hard_negatives(
    similarity: Tensor, same: Tensor | None = None, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw for each text an image, and for each image a text, that doesn't belong to it (:func:`negative_weights`).

    Args:
        similarity: S (N, N), rows images.
        same: see :func:`negative_weights`; a row all of whose pairs are equal draws among all but its own.
        generator: of the draws; on the CPU.

    Returns:
        (N,) numbers of images for the texts, and of texts for the images.
    """
    plain = negative_weights(similarity)
    found = []
    for weights, fallback in zip(negative_weights(similarity, same), plain, strict=True):
        some = weights.sum(1, keepdim=True) > 0
        drawn = torch.multinomial(torch.where(some, weights, fallback).cpu(), 1, generator=generator)
        found.append(drawn.flatten().to(similarity.device))
    return found[0], found[1]


@in_float32
def text_matching(logits: Tensor, belongs: Tensor) -> Tensor:
    """L_itm: the mean over 3N pairs (N that belong together, 2N drawn negatives) of CE on two logits.

    Args:
        logits: (M, 2).
        belongs: (M,) int64, 1 where image and text belong together.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, other labels than 0 and 1.
    """
    rows, width = check_views(logits)
    if width != 2:
        raise UserError(f"matching has two logits, got {width}")
    check_labels(belongs, rows, 2)
    return F.cross_entropy(logits, belongs)
