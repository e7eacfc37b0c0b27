"""Protocols of video papers: clips found among the training clips, and clips under noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from selftaught._words import listed
from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, code_labels, feature_pair, join_notes
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.corruptions import SEVERITIES, corrupt
from selftaught.evaluation.neighbours import CELLS, normalise
from selftaught.evaluation.result import Number, Result

__all__ = ["VIDEO_NOISE", "noisy_clip", "recall"]

VIDEO_NOISE = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
"""The kinds of noise of the video benchmark (arXiv 2504.06153), with ImageNet-C's strengths."""

SPECKLE = (0.15, 0.2, 0.35, 0.45, 0.6)
"""Deviations of speckle noise at severities 1 to 5."""


@protocol("recall", "share of test samples with one of their class among the k nearest", inputs="split")
def recall(
    train_x: Array, train_y: Array, test_x: Array, test_y: Array, *, ks: Sequence[int] = (1, 5, 10, 20, 50)
) -> Result:
    """Clip retrieval R@k: share of test clips with one of their class among the k nearest training clips by cosine.

    Args:
        train_x: ``(n, d)`` features of the gallery.
        train_y: ``(n,)`` class indices.
        test_x: ``(m, d)`` queries.
        test_y: ``(m,)``.
        ks: numbers of neighbours; more than n is clipped, with a note.

    Returns:
        ``Result`` "recall": ``recall@k`` for each k, with an interval over queries.

    Raises:
        UserError: NaN features, widths or lengths that do not match, a single class, a k below 1.
    """
    if not ks or min(ks) < 1:
        raise UserError(f"ks: {list(ks)}; pass whole numbers of 1 or more")
    train, test = feature_pair(train_x, test_x)
    coded = code_labels(train_y, test_y, len(train), len(test))
    gallery, queries = normalise(train), normalise(test)
    labels, wanted = torch.as_tensor(coded.train), torch.as_tensor(coded.test)
    most = min(max(ks), len(train))
    rows = max(1, CELLS // len(train))
    near = torch.cat([(part @ gallery.T).topk(most, dim=1).indices.cpu() for part in queries.split(rows)])
    right = labels[near] == wanted[:, None]
    numbers = {f"recall@{k}": Number.bootstrap(right[:, : min(k, most)].any(1).double().numpy()) for k in ks}
    clipped = [k for k in ks if k > len(train)]
    return Result(
        "recall", numbers, {}, join_notes(coded.note, f"k {listed(clipped)} clipped to {most}" if clipped else "")
    )


def noisy_clip(clip: np.ndarray, kind: str, severity: int = 3, *, rng: np.random.Generator | None = None) -> np.ndarray:
    """A clip with noise that is drawn anew for every frame.

    Args:
        clip: (T, H, W, C) uint8, or float in [0, 1].
        kind: one of `VIDEO_NOISE`; speckle is x + x n with n of deviation 0.15 to 0.6.
        severity: 1 (weak) to 5 (strong).
        rng: draws the noise; None takes a new one of seed 0.

    Returns:
        (T, H, W, C) float32 in [0, 1].

    Raises:
        UserError: another shape, kind or severity.
    """
    if clip.ndim != 4 or kind not in VIDEO_NOISE:
        known = ", ".join(VIDEO_NOISE)
        raise UserError(f"noisy_clip: a clip (T, H, W, C) and one of {known}, got {clip.shape}, {kind!r}")
    rng = np.random.default_rng(0) if rng is None else rng
    if kind != "speckle_noise":
        return np.stack([corrupt(frame, kind, severity, rng=rng) for frame in clip])
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity}: it may be 1 to 5")
    plain = clip.astype(np.float32) / (255 if clip.dtype == np.uint8 else 1)
    noise = rng.standard_normal(plain.shape, dtype=np.float32)
    return np.clip(plain + SPECKLE[severity - 1] * plain * noise, 0, 1).astype(np.float32)
