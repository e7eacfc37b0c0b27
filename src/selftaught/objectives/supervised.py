"""Cross-entropy, the supervised baseline."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_labels, check_numbers, in_float32

__all__ = ["supervised"]


@in_float32
def supervised(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, mean over the batch: -sum_c y_c log softmax(logits)_c with y one-hot, or smoothed.

    Args:
        logits: (N, K).
        labels: (N,) int64 in [0, K).
        smoothing: share of the label's mass that is spread evenly over all K classes (Szegedy et al., 1512.00567).

    Returns:
        A scalar >= 0; of equal logits log K.

    Raises:
        UserError: (a ``ValueError``) shapes that don't fit, an empty batch, labels that aren't int64 or (seen on the
            CPU only) outside [0, K), smoothing outside [0, 1).
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or not len(logits):
        raise UserError(f"need logits (N, K) and labels (N,), got {tuple(logits.shape)} and {tuple(labels.shape)}")
    check_floats(logits=logits)
    check_labels(labels, *logits.shape)
    check_numbers(smoothing=smoothing)
    if not 0 <= smoothing < 1:
        raise UserError(f"smoothing must lie in [0, 1), got {smoothing}")
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)
