"""BEiT: which visual word stands where a patch is hidden?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_labels, in_float32

__all__ = ["beit"]


@in_float32
def beit(logits: Tensor, words: Tensor, mask: Tensor) -> Tensor:
    """BEiT (Bao et al., ICLR 2022, arXiv 2106.08254, eq. 2): the cross-entropy of the hidden patches' visual words.

        L = - mean over hidden i  log softmax(W h_i + b)_{z_i}

    Args:
        logits: W h + b (B, L, K) of all patches.
        words: z (B, L) int64 in [0, K), of a frozen tokeniser.
        mask: (B, L) bool, True where a patch was hidden.

    Returns:
        A scalar >= 0; log K for equal logits.

    Raises:
        UserError: (a ``ValueError``) shapes or words that don't fit, a mask that isn't bool or hides nothing.
    """
    check_floats(logits=logits)
    if logits.dim() != 3 or words.shape != logits.shape[:2] or mask.shape != logits.shape[:2]:
        shapes = [tuple(t.shape) for t in (logits, words, mask)]
        raise UserError(f"logits, words and mask need shapes (B, L, K), (B, L) and (B, L), got {shapes}")
    if mask.dtype != torch.bool or not bool(mask.any()):
        raise UserError("the mask must be bool and hide at least one patch")
    check_labels(words.flatten(), words.numel(), logits.shape[2])
    return cross_entropy(logits[mask], words[mask])
