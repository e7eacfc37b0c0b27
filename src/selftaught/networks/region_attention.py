"""Cross-attention of one head, by which a region of one view looks for its counterpart in another."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["RegionAttention"]


class RegionAttention(nn.Module):
    """softmax(W_q q (W_k T)^T / sqrt(D)) W_v T, with trained projections.

    Args:
        dim: width D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Regions (N, R, D) and tokens of another view (N, L, D) -> their counterparts (N, R, D)."""
        return scaled_dot_product_attention(self.query(queries), self.key(tokens), self.value(tokens))
