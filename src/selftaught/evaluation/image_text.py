"""Images and texts in one space: classes by their names alone, and each modality found by the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["TEMPLATES", "ensemble_scores", "text_retrieval", "zero_shot"]

TEMPLATES = {
    "name": ("{}",),
    "plain": ("a photo of a {}.",),
    "seven": (
        "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
        "art of the {}.", "a photo of the small {}.",
    ),
}  # fmt: skip
"""Prompts by name: the class alone, CLIP's first prompt, and the seven that CLIP's authors found to do nearly as well
as all eighty."""

_BLOCK = 1024


def ensemble_scores(z: np.ndarray, h: np.ndarray, weight: float) -> np.ndarray:
    """w sim_z + (1 - w) sim_h of two matrices (n, K) of cosines (arXiv 2305.08675).

    Raises:
        UserError: shapes that differ, a weight outside [0, 1].
    """
    z, h = np.asarray(z), np.asarray(h)
    if z.shape != h.shape or not 0 <= weight <= 1:
        raise UserError(f"scores of shapes {z.shape} and {h.shape} with weight {weight}: one shape, weight from 0 to 1")
    return weight * z + (1 - weight) * h


@protocol("zero-shot", "classes by their names alone", inputs="worded")
def zero_shot(
    scores: np.ndarray, labels: np.ndarray | Sequence[int], *, local: np.ndarray | None = None, note: str = ""
) -> Result:
    """Accuracy of classes that are known by their names alone.

    Args:
        scores: (n, K) cosines of images and classes, by the global projectors.
        labels: (n,) the true classes, 0 to K - 1.
        local: (n, K) cosines by the local projectors, where there are some: reported alone and in ensembles.
        note: what a reader must know.

    Returns:
        ``accuracy``, ``top5`` (from six classes on), ``balanced`` (mean over classes) and ``chance``; with ``local``
        also ``local`` and ``z0.1`` ... ``z0.9``, the ensembles' accuracies.

    Raises:
        UserError: shapes that don't fit, labels outside the classes, no sample.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 2 or labels.shape != (len(scores),) or not len(scores):
        raise UserError(f"zero-shot: scores (n, K) and labels (n,), got {scores.shape} and {labels.shape}")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise UserError(f"zero-shot: labels from 0 to {scores.shape[1] - 1}, got {labels.min()} to {labels.max()}")
    right = scores.argmax(1) == labels
    numbers = {"accuracy": Number.bootstrap(right)}
    if scores.shape[1] > 5:
        best = np.argpartition(-scores, 4, axis=1)[:, :5]
        numbers["top5"] = Number.bootstrap((best == labels[:, None]).any(1))
    numbers["balanced"] = Number.of(float(np.mean([right[labels == k].mean() for k in np.unique(labels)])))
    numbers["chance"] = Number.of(1 / scores.shape[1])
    if local is not None:
        numbers["local"] = Number.bootstrap(np.asarray(local).argmax(1) == labels)
        for tenths in range(1, 10):
            mixed = ensemble_scores(scores, local, tenths / 10)
            numbers[f"z0.{tenths}"] = Number.bootstrap(mixed.argmax(1) == labels)
    return Result("zero-shot", numbers, note=note)


@protocol("text-retrieval", "texts found by images and images by texts: R@k", inputs="worded")
def text_retrieval(
    images: np.ndarray,
    texts: np.ndarray,
    owner: np.ndarray | Sequence[int],
    *,
    said: Sequence[str] | None = None,
    ks: Sequence[int] = (1, 5, 10),
) -> Result:
    """R@k both ways: how often one of an image's texts is among the k nearest texts, and the reverse.

    Args:
        images: (n, D) embeddings of length 1.
        texts: (m, D) embeddings of length 1.
        owner: (m,) the image that each text belongs to.
        said: the m texts themselves: equal ones are one text, which is right for the images of all of them. None: all
            texts count as different.
        ks: the numbers k; those above the number of candidates are left out.

    Returns:
        ``image_to_text_r1`` ..., ``text_to_image_r1`` ..., and the median ranks (1 is best), with the number of
        candidates in the note. Ties count against the model.

    Raises:
        UserError: shapes that don't fit, an owner that is no image, an image without a text.
    """
    images, texts, owner = np.asarray(images), np.asarray(texts), np.asarray(owner)
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1] or owner.shape != (len(texts),):
        raise UserError(f"retrieval: images (n, D), texts (m, D), owners (m,); got {images.shape}, {texts.shape}")
    if not len(images) or set(owner.tolist()) != set(range(len(images))):
        raise UserError(f"retrieval: every one of the {len(images)} images needs a text, and every text an image")
    group = np.arange(len(texts)) if said is None else np.unique(np.asarray(said), return_inverse=True)[1].reshape(-1)
    first = np.unique(group, return_index=True)[1]
    pairs = np.unique(np.stack([owner, group], axis=1), axis=0)
    forward = _ranks(images, texts[first], pairs)
    backward = _ranks(texts[first], images, pairs[:, ::-1])
    numbers: dict[str, Number] = {}
    for way, ranks, candidates in (("image_to_text", forward, len(first)), ("text_to_image", backward, len(images))):
        for k in (k for k in ks if k <= candidates):
            numbers[f"{way}_r{k}"] = Number.bootstrap(ranks < k)
    numbers["image_to_text_rank"] = Number.of(float(np.median(forward)) + 1)
    numbers["text_to_image_rank"] = Number.of(float(np.median(backward)) + 1)
    return Result("text-retrieval", numbers, note=f"among {len(first)} texts and {len(images)} images")


def _ranks(queries: np.ndarray, keys: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """For each query how many keys that aren't right are at least as near as its best right one: 0 is best."""
    order = np.argsort(pairs[:, 0], kind="stable")
    pairs = pairs[order]
    bounds = np.searchsorted(pairs[:, 0], np.arange(len(queries) + 1))
    ranks = np.zeros(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _BLOCK):
        scores = queries[start : start + _BLOCK] @ keys.T
        for row, own in enumerate(scores):
            right = pairs[bounds[start + row] : bounds[start + row + 1], 1]
            best = own[right].max()
            ranks[start + row] = int((own >= best).sum()) - int((own[right] >= best).sum())
    return ranks
